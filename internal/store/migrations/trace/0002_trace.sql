-- +goose Up
-- What happened to each message: one row with the sums of what became of its
-- recipients, and its steps as JSON objects, each after a comma.
CREATE TABLE trace_message (
    tenant     TEXT NOT NULL,
    id         TEXT NOT NULL,
    message_id TEXT NOT NULL,
    region     TEXT NOT NULL,
    direction  TEXT NOT NULL,
    sender     TEXT NOT NULL,
    recipients TEXT NOT NULL,
    subject    TEXT NOT NULL,
    size       BIGINT NOT NULL,
    received   BIGINT NOT NULL,
    queued     INTEGER NOT NULL,
    delivered  INTEGER NOT NULL,
    failed     INTEGER NOT NULL,
    held       INTEGER NOT NULL,
    dropped    INTEGER NOT NULL,
    steps      TEXT NOT NULL,
    PRIMARY KEY (tenant, id)
);
CREATE INDEX trace_message_by_id ON trace_message (id);
CREATE INDEX trace_message_by_message_id ON trace_message (message_id);

-- Which events the last batches applied, until the road has let go of them:
-- what makes a mover that is killed between its two commits apply each once.
CREATE TABLE trace_moved (
    batch BIGINT PRIMARY KEY,
    seqs  TEXT NOT NULL
);

-- Refusals in the SMTP dialogue, summed per address and reason.
CREATE TABLE trace_refusal (
    tenant   TEXT NOT NULL,
    id       TEXT NOT NULL,
    first    BIGINT NOT NULL,
    last     BIGINT NOT NULL,
    count    BIGINT NOT NULL,
    peer     TEXT NOT NULL,
    hello    TEXT NOT NULL,
    sender   TEXT NOT NULL,
    rcpt     TEXT NOT NULL,
    command  TEXT NOT NULL,
    code     INTEGER NOT NULL,
    enhanced TEXT NOT NULL,
    reply    TEXT NOT NULL,
    PRIMARY KEY (tenant, id)
);
CREATE INDEX trace_refusal_by_id ON trace_refusal (id);
