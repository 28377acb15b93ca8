-- +goose Up
-- Bodies up to the row limit; a row without data names a file in bodies/.
CREATE TABLE body (
    tenant TEXT NOT NULL,
    id     TEXT NOT NULL,
    size   BIGINT NOT NULL,
    sum    BIGINT NOT NULL,
    file   INTEGER NOT NULL,
    data   BLOB,
    PRIMARY KEY (tenant, id)
);
-- postgres: ALTER TABLE body ALTER COLUMN data SET STORAGE EXTERNAL;
