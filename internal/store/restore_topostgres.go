package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/sallyport-mail/sallyport/internal/fault"
)

// sqliteTableNames lists the tables of a SQLite file without goose's own.
const sqliteTableNames = `SELECT name FROM sqlite_master WHERE type = 'table'
	AND name NOT LIKE 'sqlite\_%' ESCAPE '\' AND name NOT IN ('version_road', 'version_control', 'version_trace', 'version_keeper') ORDER BY name`

// sqliteTables are the tables of a backup's SQLite files.
type sqliteTables struct {
	log   *slog.Logger
	files []*sql.DB
	homes map[string]*sql.DB // by table
	names []string
}

// sqliteIntoPostgres fills an empty PostgreSQL database from the SQLite files
// that were unpacked below tmp, and takes those away.
func sqliteIntoPostgres(ctx context.Context, c Config, m manifest, tmp string) error {
	from := &sqliteTables{log: c.Log, homes: map[string]*sql.DB{}}
	defer from.close()
	for _, set := range m.sets() {
		if err := from.open(ctx, filepath.Join(tmp, "db", set+".db")); err != nil {
			return damagedBackup(err)
		}
	}
	if err := fillPostgres(ctx, c.URL, m, from.names, from.copy); err != nil {
		return err
	}
	from.close()
	return os.RemoveAll(filepath.Join(tmp, "db"))
}

func (s *sqliteTables) open(ctx context.Context, file string) error {
	db, err := sql.Open("sqlite", sqliteName(file, []string{"query_only(1)"}))
	if err != nil {
		return err
	}
	s.files = append(s.files, db)
	names, err := column(ctx, db, sqliteTableNames)
	for _, name := range names {
		s.homes[name] = db
		s.names = append(s.names, name)
	}
	return err
}

func (s *sqliteTables) close() {
	for _, db := range s.files {
		db.Close()
	}
	s.files = nil
}

// copy streams one table as it lies in its file, so that memory holds one row
// at a time, and compares the counts of both sides.
func (s *sqliteTables) copy(ctx context.Context, conn *sql.Conn, table string) error {
	db := s.homes[table]
	columns, err := sqliteColumns(ctx, db, table)
	if err != nil {
		return err
	}
	names := columnNames(columns)
	rows, err := db.QueryContext(ctx, fmt.Sprintf(`SELECT "%s" FROM %q`, strings.Join(names, `", "`), table))
	if err != nil {
		return err
	}
	defer rows.Close()
	source := newSQLiteRows(rows, columns)
	err = postgresConn(conn, func(c *pgx.Conn) error {
		_, err := c.CopyFrom(ctx, pgx.Identifier{table}, names, source)
		return err
	})
	if err != nil {
		return fmt.Errorf("table %s: %w", table, err)
	}
	if source.changed > 0 {
		s.log.Warn("PostgreSQL keeps no NUL and nothing but UTF-8 in a text: other bytes became \uFFFD", "table", table, "rows", source.changed)
	}
	if err := s.counterOf(ctx, conn, table); err != nil {
		return err
	}
	return sameCount(ctx, table, db, conn)
}

// counterOf carries over how far a table's own numbers have come: that of a
// row which is gone is not given again.
func (s *sqliteTables) counterOf(ctx context.Context, conn *sql.Conn, table string) error {
	db := s.homes[table]
	counters, err := column(ctx, db, `SELECT name FROM sqlite_master WHERE name = 'sqlite_sequence'`)
	if err != nil || len(counters) == 0 {
		return err
	}
	var last int64
	err = db.QueryRowContext(ctx, `SELECT seq FROM sqlite_sequence WHERE name = $1`, table).Scan(&last)
	if errors.Is(err, sql.ErrNoRows) {
		return nil
	}
	if err != nil {
		return err
	}
	_, err = conn.ExecContext(ctx, `SELECT setval(pg_get_serial_sequence(quote_ident(table_name), column_name), $2, false)
		FROM information_schema.columns WHERE table_schema = current_schema() AND is_identity = 'YES' AND table_name = $1`, table, last+1)
	return err
}

// rowQuerier is a pool or a connection.
type rowQuerier interface {
	QueryRowContext(ctx context.Context, q string, args ...any) *sql.Row
}

// sameCount compares the rows of a table on both sides.
func sameCount(ctx context.Context, table string, from, to rowQuerier) error {
	var had, has int64
	q := fmt.Sprintf(`SELECT COUNT(*) FROM %q`, table)
	err := errors.Join(from.QueryRowContext(ctx, q).Scan(&had), to.QueryRowContext(ctx, q).Scan(&has))
	return errors.Join(err, differ(table, had, has))
}

func differ(table string, had, has int64) error {
	if had == has {
		return nil
	}
	return fault.New(fault.Internal, "store.Restore", fmt.Sprintf("table %s has %d rows in the backup and %d after the copy", table, had, has))
}

// tableColumn is a column as the SQLite schema declares it.
type tableColumn struct {
	name string
	kind string // TEXT, BLOB, BIGINT or INTEGER: migrations/README.md
}

func sqliteColumns(ctx context.Context, db querier, table string) ([]tableColumn, error) {
	rows, err := db.QueryContext(ctx, `SELECT name, UPPER(type) FROM pragma_table_info($1) ORDER BY cid`, table)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var all []tableColumn
	for rows.Next() {
		var one tableColumn
		if err := rows.Scan(&one.name, &one.kind); err != nil {
			return nil, err
		}
		all = append(all, one)
	}
	return all, rows.Err()
}

func columnNames(columns []tableColumn) []string {
	names := make([]string, len(columns))
	for i, c := range columns {
		names[i] = c.name
	}
	return names
}

// sqliteRows hands rows of SQLite to COPY; it is a pgx.CopyFromSource.
type sqliteRows struct {
	*sql.Rows
	columns []tableColumn
	values  []any
	places  []any // pointers to values
	changed int   // rows with a text that had to be changed
}

func newSQLiteRows(rows *sql.Rows, columns []tableColumn) *sqliteRows {
	r := &sqliteRows{Rows: rows, columns: columns, values: make([]any, len(columns)), places: make([]any, len(columns))}
	for i := range r.values {
		r.places[i] = &r.values[i]
	}
	return r
}

// Values reads the row that Next went to.
func (r *sqliteRows) Values() ([]any, error) {
	if err := r.Scan(r.places...); err != nil {
		return nil, err
	}
	changed := false
	for i, v := range r.values {
		value, other := forPostgres(r.columns[i], v)
		r.values[i], changed = value, changed || other
	}
	if changed {
		r.changed++
	}
	return r.values, nil
}

// forPostgres makes a value fit its column: SQLite keeps bytes in a text and
// text in bytes without a word.
func forPostgres(c tableColumn, v any) (value any, changed bool) {
	var text string
	switch v := v.(type) {
	case string:
		text = v
	case []byte:
		text = string(v)
	default:
		return v, false
	}
	if c.kind == "BLOB" {
		return []byte(text), false
	}
	fit := strings.ReplaceAll(strings.ToValidUTF8(text, "\uFFFD"), "\x00", "\uFFFD")
	return fit, fit != text
}
