-- +goose Up
-- Audit events wait here, written in the transaction of the change they tell
-- of, until the ledger has them.
CREATE TABLE outbox (
    seq        INTEGER PRIMARY KEY AUTOINCREMENT,
    time       BIGINT NOT NULL,
    actor      TEXT NOT NULL,
    act        TEXT NOT NULL,
    tenant     TEXT NOT NULL,
    connection TEXT NOT NULL,
    subject    TEXT NOT NULL,
    purpose    TEXT NOT NULL,
    outcome    TEXT NOT NULL
);
