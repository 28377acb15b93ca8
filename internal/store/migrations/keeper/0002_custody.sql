-- +goose Up
-- What the keeper holds in custody. Everything secret is a sealed blob
-- (internal/keeper/seal) whose associated data is made from the row's other
-- columns, so that an edited or swapped row does not open.

-- Where the ledger ends, signed with its key in the commit that wrote the end:
-- no other row can be put behind it, or taken from it, unseen.
CREATE TABLE ledger_tail (
    id   INTEGER PRIMARY KEY,
    note TEXT NOT NULL
);

-- A tenant's data key under the region's KEK. Tenants with a colon are the
-- region's own: region:ledger, region:authority, region:hosts, region:pool,
-- region:memory; and standby:<tenant> is a tenant's second data key, under the
-- KEK of standbys.
CREATE TABLE keeper_datakey (
    tenant TEXT PRIMARY KEY,
    kek    TEXT NOT NULL,
    blob   BLOB NOT NULL
);
CREATE INDEX keeper_datakey_by_kek ON keeper_datakey (kek, tenant);

-- The partner that a connection's keys and secrets may be shown to, as JSON.
CREATE TABLE keeper_binding (
    tenant     TEXT NOT NULL,
    connection TEXT NOT NULL,
    binding    TEXT NOT NULL,
    set_at     BIGINT NOT NULL,
    PRIMARY KEY (tenant, connection)
);

-- handle is the sealed PKCS#8, or the sealed name of an object in a token;
-- binding is the one that the handle was sealed at. chain is PEM. marker is
-- sealed in every row that has not ended, and says in as many bytes whether it
-- is a decoy, and of which id, state and sealer the row is. sealer says what the
-- handle is sealed under: nothing for the tenant's data key, standby for that of
-- its standbys.
CREATE TABLE keeper_identity (
    id          TEXT PRIMARY KEY,
    tenant      TEXT NOT NULL,
    connection  TEXT NOT NULL,
    purpose     TEXT NOT NULL,
    epoch       BIGINT NOT NULL,
    name        TEXT NOT NULL,
    state       TEXT NOT NULL,
    issuer      TEXT NOT NULL,
    driver      TEXT NOT NULL,
    algorithm   TEXT NOT NULL,
    handle      BLOB NOT NULL,
    sealer      TEXT NOT NULL,
    binding     TEXT NOT NULL,
    chain       TEXT NOT NULL,
    sha256      TEXT NOT NULL,
    not_before  BIGINT NOT NULL,
    not_after   BIGINT NOT NULL,
    announced   BIGINT NOT NULL,
    explanation TEXT NOT NULL,
    marker      BLOB NOT NULL,
    created_at  BIGINT NOT NULL,
    changed_at  BIGINT NOT NULL
);
CREATE INDEX keeper_identity_by_place ON keeper_identity (tenant, connection, purpose, epoch, id);
CREATE INDEX keeper_identity_by_state ON keeper_identity (state, id);
CREATE INDEX keeper_identity_by_end ON keeper_identity (not_after) WHERE state <> 'retired';
CREATE UNIQUE INDEX keeper_identity_by_certificate ON keeper_identity (sha256) WHERE sha256 <> '';

-- used are the openings, sealed too: a decoy is never opened, and a column
-- that said so would give it away.
CREATE TABLE keeper_credential (
    tenant      TEXT NOT NULL,
    connection  TEXT NOT NULL,
    purpose     TEXT NOT NULL,
    blob        BLOB NOT NULL,
    binding     TEXT NOT NULL,
    marker      BLOB NOT NULL,
    set_at      BIGINT NOT NULL,
    used        BLOB NOT NULL,
    PRIMARY KEY (tenant, connection, purpose)
);

-- RSA keys made ahead, sealed in the pool's name.
CREATE TABLE keeper_spare (
    id        TEXT PRIMARY KEY,
    algorithm TEXT NOT NULL,
    handle    BLOB NOT NULL
);

-- Orders that were carried out: each counts once.
CREATE TABLE keeper_nonce (
    nonce     TEXT PRIMARY KEY,
    not_after BIGINT NOT NULL
);

-- What the keeper must remember of itself: breaker, freeze, rotation, and so on.
-- The row manifest is sealed and has the digests of the others.
CREATE TABLE keeper_state (
    name  TEXT PRIMARY KEY,
    value TEXT NOT NULL
);
