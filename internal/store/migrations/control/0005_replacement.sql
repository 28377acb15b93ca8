-- +goose Up

-- The change of a connection's identities, under way or over. state is one of
-- the table in docs/states.md, spec the rest as JSON: which identities, what
-- happened when, what is waited for. No key and no secret is in it.
CREATE TABLE replacement (
    tenant     text    NOT NULL,
    id         text    NOT NULL,
    connection text    NOT NULL,
    state      text    NOT NULL,
    ended      integer NOT NULL,
    spec       text    NOT NULL,
    started_at bigint  NOT NULL,
    changed_at bigint  NOT NULL,
    PRIMARY KEY (tenant, id)
);

-- A connection has one change at a time.
CREATE UNIQUE INDEX replacement_under_way ON replacement (tenant, connection) WHERE ended = 0;
CREATE INDEX replacement_by_connection ON replacement (tenant, connection, id);
