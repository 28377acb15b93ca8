package store

import (
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/sallyport-mail/sallyport/internal/fault"
)

const (
	// postgresWriters is how many committers there are, so that one can
	// gather and send while the other waits for the log to be synced.
	postgresWriters = 2
	postgresReaders = 8
	postgresDial    = 5 * time.Second
)

// openPostgres opens the pools of writers and readers; nothing is connected
// before it is used.
func openPostgres(url string) (write, read *sql.DB, err error) {
	write, err = postgresPool(url, map[string]string{
		"statement_timeout":                   "30s",
		"lock_timeout":                        "10s",
		"idle_in_transaction_session_timeout": "60s",
		"synchronous_commit":                  "on",
	})
	if err != nil {
		return nil, nil, err
	}
	read, err = postgresPool(url, map[string]string{
		"statement_timeout":             fmt.Sprint(readLimit.Milliseconds()),
		"default_transaction_read_only": "on",
	})
	if err != nil {
		return nil, nil, err
	}
	read.SetMaxOpenConns(postgresReaders)
	read.SetMaxIdleConns(postgresReaders)
	return write, read, nil
}

func postgresPool(url string, settings map[string]string) (*sql.DB, error) {
	c, err := pgx.ParseConfig(url)
	if err != nil {
		return nil, fault.New(fault.Invalid, "store.Open", "the address of the PostgreSQL database cannot be read").
			WithHint("Write it as postgres://user@host:port/database.")
	}
	for k, v := range settings {
		c.RuntimeParams[k] = v
	}
	c.RuntimeParams["application_name"] = "sallyport"
	if c.ConnectTimeout == 0 {
		c.ConnectTimeout = postgresDial
	}
	return stdlib.OpenDB(*c), nil
}

// assertPostgres reads the durability settings back from the server.
func assertPostgres(ctx context.Context, db *sql.DB, log *slog.Logger) error {
	var commit, fsync, pages string
	row := db.QueryRowContext(ctx, `SELECT current_setting('synchronous_commit'), current_setting('fsync'), current_setting('full_page_writes')`)
	if err := row.Scan(&commit, &fsync, &pages); err != nil {
		return Fault("store.Open", err)
	}
	if commit != "on" {
		return fault.New(fault.Internal, "store.Open", "PostgreSQL runs with synchronous_commit = "+commit).
			WithHint("Set synchronous_commit = on for the database of Sallyport.")
	}
	if fsync != "on" || pages != "on" {
		log.Warn("PostgreSQL may lose accepted mail in a power cut", "fsync", fsync, "full_page_writes", pages)
	}
	return nil
}

// postgresConn hands the driver's own connection to f.
func postgresConn(conn *sql.Conn, f func(*pgx.Conn) error) error {
	return conn.Raw(func(c any) error {
		own, ok := c.(*stdlib.Conn)
		if !ok {
			return fault.New(fault.Internal, "store.postgres", fmt.Sprintf("a connection of type %T", c))
		}
		return f(own.Conn())
	})
}

// postgresFailed is true when a statement has failed in the transaction: it
// takes no more of them, and COMMIT would roll it back. It costs no round trip.
func postgresFailed(conn *sql.Conn) bool {
	failed := true
	if conn == nil {
		return true
	}
	err := postgresConn(conn, func(c *pgx.Conn) error {
		failed = c.IsClosed() || c.PgConn().TxStatus() == 'E'
		return nil
	})
	return failed || err != nil
}

// postgresClosed is true when the connection is gone.
func postgresClosed(conn *sql.Conn) bool {
	closed := true
	err := postgresConn(conn, func(c *pgx.Conn) error {
		closed = c.IsClosed()
		return nil
	})
	return closed || err != nil
}
