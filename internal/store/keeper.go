package store

import (
	"context"
	"database/sql"
	"errors"
	"os"
	"path/filepath"

	"github.com/sallyport-mail/sallyport/internal/fault"
)

// KeeperSQL is a statement on the keeper's tables, which belong to a region
// and not to a tenant. It names no table of the gateway, and no other kind of
// statement names one of the keeper's.
type KeeperSQL string

// KeeperDB is the keeper's own database: the ledger, and what the keeper
// holds in custody. It has one door, and none of the gateway's; the gateway's
// doors lead to none of its tables.
type KeeperDB struct{ db *DB }

// OpenKeeper opens or creates the keeper's database below c.Dir or at c.URL,
// asserts the durability settings and migrates forward. It refuses a place
// where the gateway's tables are, as Open refuses one with the keeper's.
func OpenKeeper(ctx context.Context, c Config) (*KeeperDB, error) {
	c = c.withDefaults()
	if c.Dir == "" {
		return nil, fault.New(fault.Invalid, "store.OpenKeeper", "no data directory was named for the keeper")
	}
	var err error
	if c.Dir, err = filepath.Abs(c.Dir); err != nil { // a SQLite URI wants it so
		return nil, Fault("store.OpenKeeper", err)
	}
	// Only the keeper's own user looks in here.
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return nil, Fault("store.OpenKeeper", err)
	}
	sweepCopies(c.Dir, c.Log)
	s := &Store{c: c, disk: newDisk(c.Dir, c.Reserve)}
	db, err := openDB(ctx, s, keeperSet, 4<<10)
	if err != nil {
		return nil, err
	}
	if err := s.syncNames(); err != nil {
		db.close()
		return nil, err
	}
	return &KeeperDB{db: db}, nil
}

// Close waits for running commits, checkpoints and closes.
func (k *KeeperDB) Close() error { return k.db.close() }

// Keeper is the door to the keeper's tables; arguments start at $1.
func (k *KeeperDB) Keeper() KeeperDoor { return KeeperDoor{db: k.db} }

// SkipLocked is as DB.SkipLocked.
func (k *KeeperDB) SkipLocked() string { return k.db.SkipLocked() }

// KeeperDoor reads and changes the keeper's rows.
type KeeperDoor struct{ db *DB }

// Query reads outside of any transaction, as TenantDoor.Query.
func (d KeeperDoor) Query(ctx context.Context, q KeeperSQL, args ...any) (*sql.Rows, error) {
	return d.db.query(ctx, string(q), args...)
}

// QueryRow reads one row.
func (d KeeperDoor) QueryRow(ctx context.Context, q KeeperSQL, args ...any) *sql.Row {
	return d.db.queryRow(ctx, string(q), args...)
}

// Change is as TenantDoor.Change.
func (d KeeperDoor) Change(ctx context.Context, f func(tx KeeperTx) error) error {
	return d.db.change(ctx, func(s *session) error { return f(KeeperTx{s: s}) })
}

// KeeperTx is a transaction on the keeper's tables.
type KeeperTx struct{ s *session }

// Exec is as TenantTx.Exec.
func (tx KeeperTx) Exec(q KeeperSQL, args ...any) (int64, error) {
	return tx.s.exec(string(q), args...)
}

// Query is as TenantTx.Query.
func (tx KeeperTx) Query(q KeeperSQL, args ...any) (*sql.Rows, error) {
	return tx.s.query(string(q), args...)
}

// QueryRow is as TenantTx.QueryRow.
func (tx KeeperTx) QueryRow(q KeeperSQL, args ...any) *sql.Row {
	return tx.s.queryRow(string(q), args...)
}

// apart refuses a place that the other process's tables are in: what holds
// keys and what eats hostile bytes share no database.
func (c Config) apart(ctx context.Context, name string) error {
	others, whose := []string{keeperSet}, "the keeper's"
	if name == keeperSet {
		others, whose = []string{roadSet, controlSet, traceSet}, "the gateway's"
	}
	for _, other := range others {
		there, err := c.has(ctx, other)
		if err != nil {
			return err
		}
		if there {
			return fault.New(fault.Conflict, "store.Open", "this place holds "+whose+" tables").
				WithHint("Give gateway and keeper a data directory each, and a PostgreSQL database each.")
		}
	}
	return nil
}

// has tells whether a set of tables was ever made here.
func (c Config) has(ctx context.Context, set string) (bool, error) {
	if c.dialect() == onSQLite {
		_, err := os.Stat(filepath.Join(c.Dir, "db", set+".db"))
		if errors.Is(err, os.ErrNotExist) {
			return false, nil
		}
		return err == nil, Fault("store.Open", err)
	}
	db, err := postgresPool(c.URL, nil)
	if err != nil {
		return false, err
	}
	defer db.Close()
	var there bool
	err = db.QueryRowContext(ctx, `SELECT to_regclass($1) IS NOT NULL`, "version_"+set).Scan(&there)
	return there, Fault("store.Open", err)
}
