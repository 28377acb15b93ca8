-- +goose Up

-- What exists in the domains that are answered from a list. key is the form
-- in which addresses compare, address what was written.
CREATE TABLE recipient (
    tenant     text   NOT NULL,
    key        text   NOT NULL,
    domain     text   NOT NULL,
    address    text   NOT NULL,
    created_at bigint NOT NULL,
    PRIMARY KEY (tenant, key)
);

CREATE INDEX recipient_by_domain ON recipient (tenant, domain);

-- What a tenant's own server has said yes to, and when it last did. A "no" is
-- not kept here: strangers could fill the disk with addresses that they guess.
CREATE TABLE probe (
    tenant text   NOT NULL,
    key    text   NOT NULL,
    domain text   NOT NULL,
    at     bigint NOT NULL,
    PRIMARY KEY (tenant, key)
);

CREATE INDEX probe_by_domain ON probe (tenant, domain);
CREATE INDEX probe_by_age ON probe (at);
