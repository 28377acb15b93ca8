-- +goose Up
-- The ledger of one region: one row that says whose it is, one row an entry,
-- and one row for each complete tile of 256 hashes of the Merkle tree (level 0
-- are hashes of entries, level 1 of tiles of level 0, and so on).
CREATE TABLE ledger_log (
    id      INTEGER PRIMARY KEY,
    origin  TEXT NOT NULL,
    keys    TEXT NOT NULL,
    removed BIGINT NOT NULL
);

-- payload is the leaf, byte for byte; it is null once its time is over. The
-- columns beside it are copies to search by, and empty then too, but for key.
CREATE TABLE ledger_entry (
    idx        INTEGER PRIMARY KEY, -- sqlite
-- postgres: idx BIGINT PRIMARY KEY,
    time       BIGINT NOT NULL,
    actor      TEXT NOT NULL,
    act        TEXT NOT NULL,
    tenant     TEXT NOT NULL,
    connection TEXT NOT NULL,
    trace      TEXT NOT NULL,
    key        TEXT NOT NULL,
    hash       BLOB NOT NULL,
    payload    BLOB
);
-- By blocks of the log: an entry then touches the index pages of its block only,
-- however long the log is, where an index by tenant alone would have another
-- cold page for each entry.
CREATE INDEX ledger_entry_by_tenant ON ledger_entry ((idx / 16384), tenant, idx) WHERE tenant <> '';
CREATE INDEX ledger_entry_by_trace ON ledger_entry ((idx / 16384), trace, idx) WHERE trace <> '';
CREATE UNIQUE INDEX ledger_entry_by_key ON ledger_entry (key) WHERE key <> '';

CREATE TABLE ledger_tile (
    level  INTEGER NOT NULL,
    n      BIGINT NOT NULL,
    hashes BLOB NOT NULL,
    PRIMARY KEY (level, n)
);

CREATE TABLE ledger_checkpoint (
    size BIGINT PRIMARY KEY,
    time BIGINT NOT NULL,
    note TEXT NOT NULL
);

-- What witnesses have signed below a checkpoint, a line each.
CREATE TABLE ledger_cosignature (
    size    BIGINT NOT NULL,
    witness TEXT NOT NULL,
    line    TEXT NOT NULL,
    PRIMARY KEY (size, witness)
);
