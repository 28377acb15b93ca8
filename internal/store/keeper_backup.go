package store

import (
	"archive/tar"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/sallyport-mail/sallyport/internal/fault"
)

// Backup writes the keeper's database to w (a tar), from which RestoreKeeper
// rebuilds it, while it is in use. The mark is a change that is made in the
// copy alone: what comes out of a backup says so by itself, whoever puts it
// back and how.
func (k *KeeperDB) Backup(ctx context.Context, w io.Writer, mark KeeperSQL, args ...any) error {
	tmp, done, err := copyFolder(k.db.store.c.Dir, k.db.store.c.Log)
	if err != nil {
		return Fault("store.Backup", err)
	}
	defer done()
	a := &archive{s: k.db.store, tar: tar.NewWriter(w), tmp: tmp}
	content := k.sqlite
	if k.db.dialect == onPostgres {
		content = k.postgres
	}
	if err := content(ctx, a, string(mark), args); err != nil {
		return Fault("store.Backup", err)
	}
	return Fault("store.Backup", a.tar.Close())
}

// BackupKeeper is Backup of a database that another process may be using: it
// opens what is there, migrates nothing and makes nothing. A schema that is not
// this program's newest is refused with kind conflict, a place without a
// keeper's tables with kind missing.
func BackupKeeper(ctx context.Context, c Config, w io.Writer, mark KeeperSQL, args ...any) (err error) {
	c = c.withDefaults()
	if c.Dir, err = filepath.Abs(c.Dir); err != nil {
		return Fault("store.Backup", err)
	}
	there, err := c.has(ctx, keeperSet)
	if err != nil {
		return err
	}
	if !there {
		return fault.New(fault.Missing, "store.Backup", "there is no keeper's database to copy").
			WithHint("Name the folder of a keeper that has run, and the store that it uses.")
	}
	db := &DB{name: keeperSet, dialect: c.dialect(), store: &Store{c: c}, log: c.Log, now: c.Now}
	if db.write, err = c.beside(); err != nil {
		return Fault("store.Backup", err)
	}
	defer func() { err = errors.Join(err, Fault("store.Backup", db.write.Close())) }()
	if db.version, err = newestAlready(ctx, db); err != nil {
		return err
	}
	return (&KeeperDB{db: db}).Backup(ctx, w, mark, args...)
}

// beside opens a keeper's database with no more than a copy needs.
func (c Config) beside() (*sql.DB, error) {
	if c.dialect() == onPostgres {
		return postgresPool(c.URL, map[string]string{"lock_timeout": "10s"})
	}
	return sql.Open("sqlite", sqliteName(filepath.Join(c.Dir, "db", keeperSet+".db"), []string{"busy_timeout(10000)"}))
}

// newestAlready returns the version of the schema, which must be the newest
// that this program knows: a restore reads no other.
func newestAlready(ctx context.Context, db *DB) (int64, error) {
	p, err := provider(db.write, db.dialect, db.name)
	if err != nil {
		return 0, fault.Wrap(fault.Internal, "store.Backup", err)
	}
	have, err := p.GetDBVersion(ctx)
	if err != nil {
		return 0, Fault("store.Backup", err)
	}
	newest, err := newestVersion(db.name)
	if err == nil && have != newest {
		err = fault.New(fault.Conflict, "store.Backup", fmt.Sprintf("the keeper's database has schema %d, this program's is %d", have, newest)).
			WithHint("Use the version of sallyport that the keeper runs, or start the keeper once with this one.")
	}
	return have, err
}

func (k *KeeperDB) manifest(tables []string) manifest {
	return manifest{Format: manifestForm, Store: k.db.dialect.String(), Time: k.db.store.c.Now(),
		Versions: map[string]int64{k.db.name: k.db.version}, Tables: tables}
}

// sqlite writes a compact copy of the file.
func (k *KeeperDB) sqlite(ctx context.Context, a *archive, mark string, args []any) error {
	copied := filepath.Join(a.tmp, keeperSet+".db")
	if err := k.db.vacuumInto(ctx, copied); err != nil {
		return err
	}
	db, err := sql.Open("sqlite", sqliteName(copied, nil))
	if err != nil {
		return err
	}
	_, err = db.ExecContext(ctx, mark, args...)
	if err := errors.Join(err, db.Close()); err != nil {
		return err
	}
	if err := a.head(k.manifest(nil)); err != nil {
		return err
	}
	return a.file("db/"+keeperSet+".db", copied)
}

// postgres writes the tables as they are in one transaction, which has made
// the mark and is given up.
func (k *KeeperDB) postgres(ctx context.Context, a *archive, mark string, args []any) error {
	conn, err := k.db.write.Conn(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	for _, q := range []string{
		"BEGIN ISOLATION LEVEL REPEATABLE READ",
		"SET LOCAL statement_timeout = 0",
		"SET LOCAL idle_in_transaction_session_timeout = 0",
	} {
		if _, err := conn.ExecContext(ctx, q); err != nil {
			return err
		}
	}
	defer conn.ExecContext(context.WithoutCancel(ctx), "ROLLBACK")
	if _, err := conn.ExecContext(ctx, mark, args...); err != nil {
		return err
	}
	tables, err := column(ctx, conn, ourTables)
	if err != nil {
		return err
	}
	if err := a.head(k.manifest(tables)); err != nil {
		return err
	}
	for _, table := range tables {
		if err := a.table(ctx, conn, table); err != nil {
			return err
		}
	}
	return nil
}

// RestoreKeeper fills an empty directory (and an empty PostgreSQL database)
// from what Backup has written, whichever of the two databases that is of.
func RestoreKeeper(ctx context.Context, r io.Reader, c Config) error {
	c = c.withDefaults()
	if c.Dir == "" {
		return fault.New(fault.Invalid, "store.Restore", "no data directory was named for the keeper").WithHint("Name an empty one.")
	}
	var err error
	if c.Dir, err = filepath.Abs(c.Dir); err != nil {
		return Fault("store.Restore", err)
	}
	// Only the keeper's own user looks in here.
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return Fault("store.Restore", err)
	}
	if err := mustBeEmpty(ctx, c); err != nil {
		return err
	}
	return restore(ctx, r, c, []string{keeperSet}, nil)
}
