-- +goose Up
-- Accepted mail on its way: one row per message and route. state is 1 ready,
-- 2 deferred, 3 held, 4 failed; flags and detail are the queue's own, detail
-- holds the envelope.
CREATE TABLE item (
    id          TEXT NOT NULL PRIMARY KEY,
    message     TEXT NOT NULL,
    tenant      TEXT NOT NULL,
    destination TEXT NOT NULL,
    connection  TEXT NOT NULL,
    state       INTEGER NOT NULL,
    due         BIGINT NOT NULL,
    expires     BIGINT NOT NULL,
    received    BIGINT NOT NULL,
    attempts    INTEGER NOT NULL,
    rcpts       INTEGER NOT NULL,
    reason      TEXT NOT NULL,
    flags       INTEGER NOT NULL,
    body        TEXT NOT NULL,
    size        BIGINT NOT NULL,
    sum         BIGINT NOT NULL,
    detail      TEXT NOT NULL
);

-- The one way in: a tenant's items at a destination, by state, oldest first.
CREATE INDEX item_lane ON item (tenant, destination, state, due, id);

-- How many items share a body; only bodies of more than one item are here.
CREATE TABLE item_share (
    tenant TEXT NOT NULL,
    body   TEXT NOT NULL,
    uses   INTEGER NOT NULL,
    PRIMARY KEY (tenant, body)
);

-- Destinations that are in trouble; the others have no row.
CREATE TABLE destination (
    key      TEXT NOT NULL PRIMARY KEY,
    state    TEXT NOT NULL,
    cause    TEXT NOT NULL,
    reason   TEXT NOT NULL,
    failures INTEGER NOT NULL,
    next_try BIGINT NOT NULL,
    since    BIGINT NOT NULL
);

-- Stop switches.
CREATE TABLE stop (
    scope  TEXT NOT NULL,
    value  TEXT NOT NULL,
    reason TEXT NOT NULL,
    actor  TEXT NOT NULL,
    since  BIGINT NOT NULL,
    PRIMARY KEY (scope, value)
);
