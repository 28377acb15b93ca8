package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/sallyport-mail/sallyport/internal/fault"
)

// ourTables lists the tables of a PostgreSQL database without goose's own.
const ourTables = `SELECT table_name FROM information_schema.tables WHERE table_schema = current_schema()
	AND table_type = 'BASE TABLE' AND table_name NOT IN ('version_road', 'version_control', 'version_trace', 'version_keeper') ORDER BY 1`

// postgres writes every table as COPY gives it (binary), all of one snapshot,
// and then the bodies.
func (a *archive) postgres(ctx context.Context) error {
	conn, err := a.s.Road.write.Conn(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	for _, q := range []string{
		"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
		"SET LOCAL statement_timeout = 0",
		"SET LOCAL idle_in_transaction_session_timeout = 0",
	} {
		if _, err := conn.ExecContext(ctx, q); err != nil {
			return err
		}
	}
	defer conn.ExecContext(context.WithoutCancel(ctx), "ROLLBACK")
	tables, err := column(ctx, conn, ourTables)
	if err != nil {
		return err
	}
	if err := a.manifest(tables); err != nil {
		return err
	}
	for _, table := range tables {
		if err := a.table(ctx, conn, table); err != nil {
			return err
		}
	}
	return a.bodies(ctx, conn)
}

func (a *archive) table(ctx context.Context, conn *sql.Conn, table string) error {
	tmp, err := os.Create(filepath.Join(a.tmp, "table"))
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	defer tmp.Close()
	err = postgresConn(conn, func(c *pgx.Conn) error {
		_, err := c.PgConn().CopyTo(ctx, tmp, fmt.Sprintf(`COPY %q TO STDOUT (FORMAT binary)`, table))
		return err
	})
	if err != nil {
		return err
	}
	return a.file(path.Join(tableFolder, table), tmp.Name())
}

// emptyPostgres is true of a database without tables.
func emptyPostgres(ctx context.Context, db *sql.DB) (bool, error) {
	var n int
	err := db.QueryRowContext(ctx, `SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = current_schema()`).Scan(&n)
	return n == 0, err
}

// fillTable brings one table's rows into an empty table, within the
// transaction that conn is in.
type fillTable func(ctx context.Context, conn *sql.Conn, table string) error

// fillPostgres makes the schema of the backup in an empty database, and fills
// its tables in one transaction.
func fillPostgres(ctx context.Context, url string, m manifest, tables []string, fill fillTable) error {
	write, read, err := openPostgres(url)
	if err != nil {
		return err
	}
	defer write.Close()
	defer read.Close()
	for set, version := range m.Versions {
		if _, err := migrate(ctx, write, onPostgres, set, version); err != nil {
			return err
		}
	}
	conn, err := write.Conn(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := conn.ExecContext(ctx, "BEGIN; SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0"); err != nil {
		return err
	}
	if err := fillTables(ctx, conn, tables, fill); err != nil {
		conn.ExecContext(context.WithoutCancel(ctx), "ROLLBACK")
		return notFilled(err)
	}
	_, err = conn.ExecContext(ctx, "COMMIT")
	return err
}

// notFilled says what a restore that ended here leaves: tables without rows.
func notFilled(err error) error {
	err = Fault("store.Restore", err)
	if e, ok := errors.AsType[*fault.Error](err); ok && e.Hint == "" {
		return e.WithHint("Nothing was restored. Before another try give it an empty database: this one has tables now.")
	}
	return err
}

func fillTables(ctx context.Context, conn *sql.Conn, tables []string, fill fillTable) error {
	tables, err := parentsFirst(ctx, conn, tables)
	if err != nil || len(tables) == 0 {
		return err
	}
	// Rows that migrations put in are in the backup too.
	if _, err := conn.ExecContext(ctx, `TRUNCATE "`+strings.Join(tables, `", "`)+`" CASCADE`); err != nil {
		return err
	}
	for _, table := range tables {
		if err := fill(ctx, conn, table); err != nil {
			return err
		}
	}
	return advanceIdentities(ctx, conn)
}

// copiedTables fills tables from the files that COPY wrote, below dir.
func copiedTables(dir string) fillTable {
	return func(ctx context.Context, conn *sql.Conn, table string) error {
		f, err := os.Open(filepath.Join(dir, tableFolder, table))
		if err != nil {
			return err
		}
		defer f.Close()
		return postgresConn(conn, func(c *pgx.Conn) error {
			_, err := c.PgConn().CopyFrom(ctx, f, fmt.Sprintf(`COPY %q FROM STDIN (FORMAT binary)`, table))
			return err
		})
	}
}

// parentsFirst orders tables so that none comes before one that it refers to.
func parentsFirst(ctx context.Context, conn *sql.Conn, tables []string) ([]string, error) {
	refers, err := column(ctx, conn, `SELECT c.conrelid::regclass::text || ' ' || c.confrelid::regclass::text
		FROM pg_constraint c WHERE c.contype = 'f' AND c.conrelid <> c.confrelid`)
	if err != nil {
		return nil, err
	}
	waits := map[string][]string{}
	for _, pair := range refers {
		child, parent, _ := strings.Cut(pair, " ")
		waits[child] = append(waits[child], parent)
	}
	done, seen := []string{}, map[string]bool{}
	var visit func(string)
	visit = func(table string) {
		if seen[table] {
			return
		}
		seen[table] = true
		for _, parent := range waits[table] {
			visit(parent)
		}
		done = append(done, table)
	}
	for _, table := range tables {
		visit(table)
	}
	return done, nil
}

// advanceIdentities sets every counter behind the rows that came with their
// numbers; none goes back.
func advanceIdentities(ctx context.Context, conn *sql.Conn) error {
	updates, err := column(ctx, conn, `SELECT format('SELECT setval(pg_get_serial_sequence(%1$L, %2$L),
			GREATEST(COALESCE(MAX(%2$I), 0) + 1, nextval(pg_get_serial_sequence(%1$L, %2$L))), false) FROM %3$I',
		quote_ident(table_name), column_name, table_name)
		FROM information_schema.columns WHERE table_schema = current_schema() AND is_identity = 'YES'
		AND table_name NOT IN ('version_road', 'version_control', 'version_trace', 'version_keeper')`)
	if err != nil {
		return err
	}
	for _, q := range updates {
		if _, err := conn.ExecContext(ctx, q); err != nil {
			return err
		}
	}
	return nil
}
