-- +goose Up
-- Trace events on their way from the road to the trace file. seq is given by
-- the writer (time and chance), so that both databases agree on it.
CREATE TABLE trace_event (
    seq     INTEGER PRIMARY KEY, -- sqlite
-- postgres:     seq     BIGINT PRIMARY KEY,
    tenant  TEXT NOT NULL,
    message TEXT NOT NULL,
    payload TEXT NOT NULL
);
