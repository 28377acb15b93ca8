-- +goose Up

-- spec is the connection as JSON, without its state, health or any secret.
CREATE TABLE connection (
    tenant     text   NOT NULL REFERENCES tenant (tenant),
    name       text   NOT NULL,
    state      text   NOT NULL,
    spec       text   NOT NULL,
    health     text   NOT NULL,
    created_at bigint NOT NULL,
    PRIMARY KEY (tenant, name)
);

-- What proves whose a client's mail is: a network, a client certificate, or a
-- platform's name for an organisation. The primary key is the promise that
-- each is of one connection of one tenant at most.
CREATE TABLE claim (
    kind       text NOT NULL,
    value      text NOT NULL,
    tenant     text NOT NULL,
    connection text NOT NULL,
    PRIMARY KEY (kind, value)
);

CREATE INDEX claim_by_connection ON claim (tenant, connection);
