-- +goose Up
-- The region whose ledger an event goes to, '' until it is decided. It is
-- written down before the event is brought there, so that a second try after a
-- crash goes to the same place, whatever has become of the tenant.
ALTER TABLE outbox ADD COLUMN region TEXT NOT NULL DEFAULT '';
CREATE INDEX outbox_by_region ON outbox (region, seq);
