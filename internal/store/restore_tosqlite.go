package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// postgresIntoSQLite makes the SQLite files below tmp/db from the tables
// that COPY wrote. Nobody can have them before all of it is there, so they are
// synced once, at the end.
func postgresIntoSQLite(ctx context.Context, m manifest, tmp string) error {
	if err := os.MkdirAll(filepath.Join(tmp, "db"), 0o750); err != nil {
		return err
	}
	left := slices.Clone(m.Tables)
	for _, set := range m.sets() {
		file := filepath.Join(tmp, "db", set+".db")
		filled, err := fillSQLite(ctx, file, set, m, filepath.Join(tmp, tableFolder))
		if err == nil {
			err = syncFile(file)
		}
		if err != nil {
			return err
		}
		left = slices.DeleteFunc(left, func(table string) bool { return slices.Contains(filled, table) })
	}
	if len(left) > 0 {
		return damagedBackup(fmt.Errorf("it has tables that no schema of this program has: %s", strings.Join(left, ", ")))
	}
	return nil
}

// fillSQLite makes one file with the schema of the backup, fills its tables
// in one transaction and returns their names.
func fillSQLite(ctx context.Context, file, set string, m manifest, copied string) (filled []string, err error) {
	db, err := sql.Open("sqlite", sqliteName(file, []string{
		fmt.Sprintf("page_size(%d)", pageSize), "foreign_keys(1)", "synchronous(OFF)", "temp_store(2)"}))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	db.SetMaxOpenConns(1)
	if _, err := migrate(ctx, db, onSQLite, set, m.Versions[set]); err != nil {
		return nil, err
	}
	tables, err := column(ctx, db, sqliteTableNames)
	if err != nil {
		return nil, err
	}
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return nil, err
	}
	defer tx.Rollback() // of no effect after the commit
	if _, err := tx.ExecContext(ctx, "PRAGMA defer_foreign_keys = 1"); err != nil {
		return nil, err
	}
	for _, table := range tables {
		if !slices.Contains(m.Tables, table) {
			continue
		}
		if err := fillSQLiteTable(ctx, tx, table, filepath.Join(copied, table)); err != nil {
			return nil, fmt.Errorf("table %s: %w", table, err)
		}
		filled = append(filled, table)
	}
	return filled, tx.Commit()
}

// fillSQLiteTable reads what COPY wrote of a table. The columns are in the
// same order on both databases: the same migrations made them.
func fillSQLiteTable(ctx context.Context, tx *sql.Tx, table, file string) error {
	columns, err := sqliteColumns(ctx, tx, table)
	if err != nil {
		return err
	}
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	// Rows that migrations put in are in the backup too.
	if _, err := tx.ExecContext(ctx, fmt.Sprintf(`DELETE FROM %q`, table)); err != nil {
		return err
	}
	insert, err := tx.PrepareContext(ctx, insertInto(table, columns))
	if err != nil {
		return err
	}
	defer insert.Close()
	rows, err := newCopyReader(f, columns)
	if err != nil {
		return damagedBackup(err)
	}
	for {
		row, err := rows.next()
		if errors.Is(err, io.EOF) {
			return countIs(ctx, tx, table, rows.read)
		}
		if err != nil {
			return damagedBackup(err)
		}
		if _, err := insert.ExecContext(ctx, row...); err != nil {
			return err
		}
	}
}

func insertInto(table string, columns []tableColumn) string {
	places := make([]string, len(columns))
	for i := range places {
		places[i] = fmt.Sprintf("$%d", i+1)
	}
	return fmt.Sprintf(`INSERT INTO %q ("%s") VALUES (%s)`, table, strings.Join(columnNames(columns), `", "`), strings.Join(places, ", "))
}

// countIs compares what was read of a table with what it has now.
func countIs(ctx context.Context, tx *sql.Tx, table string, want int64) error {
	var has int64
	err := tx.QueryRowContext(ctx, fmt.Sprintf(`SELECT COUNT(*) FROM %q`, table)).Scan(&has)
	return errors.Join(err, differ(table, want, has))
}

func syncFile(name string) error {
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
