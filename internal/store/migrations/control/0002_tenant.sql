-- +goose Up

-- The primary key is called tenant, as in every table that is a tenant's, so
-- that the tenant door's "tenant = $1" holds here too.
CREATE TABLE tenant (
    tenant     text   NOT NULL PRIMARY KEY,
    region     text   NOT NULL,
    settings   text   NOT NULL,
    created_at bigint NOT NULL
);

-- The primary key is the promise that a domain is of one tenant at most.
CREATE TABLE domain (
    domain     text   NOT NULL PRIMARY KEY,
    tenant     text   NOT NULL REFERENCES tenant (tenant),
    recipients text   NOT NULL,
    plus_tags  bigint NOT NULL,
    created_at bigint NOT NULL
);

CREATE INDEX domain_by_tenant ON domain (tenant);

-- tenant is '' for a token that is good for every tenant.
CREATE TABLE token (
    id         text   NOT NULL PRIMARY KEY,
    tenant     text   NOT NULL,
    role       text   NOT NULL,
    sha256     text   NOT NULL,
    created_at bigint NOT NULL,
    expires_at bigint,
    revoked_at bigint,
    last_used  bigint
);

CREATE INDEX token_by_tenant ON token (tenant);

-- A user name is what a client says before anybody knows the tenant, so it is
-- unique over all of them.
CREATE TABLE submitter (
    username  text   NOT NULL PRIMARY KEY,
    tenant    text   NOT NULL REFERENCES tenant (tenant),
    hash      text   NOT NULL,
    state     text   NOT NULL,
    set_at    bigint NOT NULL,
    last_used bigint
);

CREATE INDEX submitter_by_tenant ON submitter (tenant);

-- Settings of the operator's own, of no tenant.
CREATE TABLE operator_setting (
    name  text NOT NULL PRIMARY KEY,
    value text NOT NULL
);
