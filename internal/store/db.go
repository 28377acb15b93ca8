package store

import (
	"context"
	"database/sql"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

// readLimit is how long a read may take: a reader holds the WAL of SQLite and
// the old rows of PostgreSQL.
const readLimit = 5 * time.Second

// DB is one database: a SQLite file with its committer and its readers, or a
// PostgreSQL pool.
type DB struct {
	name    string // road, control, trace or keeper
	dialect dialect
	version int64 // of the schema
	write   *sql.DB
	read    *sql.DB
	commits *committer
	store   *Store
	log     *slog.Logger
	now     func() time.Time

	prepared sync.Map // SQL text to *sql.Stmt of the readers

	written   int          // bytes since the last look at the WAL; the committer's own, as shedAt is
	shedAt    time.Time    // when cached pages were last let go
	wal       atomic.Int64 // bytes of the WAL in use
	longReads atomic.Int32 // backups under way
}

// SkipLocked is the one dialect word: " FOR UPDATE SKIP LOCKED" on PostgreSQL,
// "" on SQLite.
func (db *DB) SkipLocked() string {
	if db.dialect == onPostgres {
		return " FOR UPDATE SKIP LOCKED"
	}
	return ""
}

// For is the ordinary door: every statement is bound to that tenant.
func (db *DB) For(tenant string) TenantDoor { return TenantDoor{db: db, tenant: tenant} }

// Road is the door of the queue and of the trace events on their way.
func (db *DB) Road() RoadDoor { return RoadDoor{db: db} }

// Operator is the door for reading across tenants. The reason becomes an audit
// event in the outbox, at most once a minute for the same reason.
func (db *DB) Operator(reason string) OperatorDoor { return OperatorDoor{db: db, reason: reason} }

// change runs f in the next commit.
func (db *DB) change(ctx context.Context, f func(*session) error) error {
	return db.commits.do(ctx, false, f)
}

// limited gives a read its time. The context cannot be cancelled when the read
// is over, since only the caller of Rows.Close knows when that is; it expires.
func limited(ctx context.Context) context.Context {
	ctx, cancel := context.WithTimeout(ctx, readLimit)
	context.AfterFunc(ctx, cancel)
	return ctx
}

// query reads outside of any transaction.
func (db *DB) query(ctx context.Context, q string, args ...any) (*sql.Rows, error) {
	ctx = limited(ctx)
	var rows *sql.Rows
	var err error
	if st := db.statement(q); st != nil {
		rows, err = st.QueryContext(ctx, args...)
	} else {
		rows, err = db.read.QueryContext(ctx, q, args...)
	}
	return rows, Fault("store.Query", err)
}

func (db *DB) queryRow(ctx context.Context, q string, args ...any) *sql.Row {
	return db.row(limited(ctx), q, args...)
}

// get is queryRow of one row by its key; see TenantDoor.Get.
func (db *DB) get(ctx context.Context, q string, args ...any) *sql.Row {
	if db.dialect == onPostgres {
		return db.queryRow(ctx, q, args...)
	}
	if err := ctx.Err(); err != nil {
		return db.noRow(err)
	}
	return db.row(context.WithoutCancel(ctx), q, args...)
}

// row reads one row in the time that ctx gives.
func (db *DB) row(ctx context.Context, q string, args ...any) *sql.Row {
	if st := db.statement(q); st != nil {
		return st.QueryRowContext(ctx, args...)
	}
	return db.read.QueryRowContext(ctx, q, args...)
}

// statement is q prepared for SQLite's readers; nil when it cannot be (the
// query itself then tells why) and on PostgreSQL, whose driver does it itself.
func (db *DB) statement(q string) *sql.Stmt {
	if db.dialect == onPostgres {
		return nil
	}
	if st, ok := db.prepared.Load(q); ok {
		return st.(*sql.Stmt)
	}
	st, err := db.read.Prepare(q)
	if err != nil {
		return nil
	}
	if have, loaded := db.prepared.LoadOrStore(q, st); loaded {
		st.Close()
		return have.(*sql.Stmt)
	}
	return st
}

// close ends the committer after what waits, and the connections after it.
func (db *DB) close() error {
	db.commits.close()
	db.prepared.Range(func(_, st any) bool {
		st.(*sql.Stmt).Close()
		return true
	})
	err := db.read.Close()
	if db.dialect == onSQLite && err == nil {
		_, err = db.write.Exec("PRAGMA wal_checkpoint(TRUNCATE)")
	}
	if e := db.write.Close(); err == nil {
		err = e
	}
	return Fault("store.Close", err)
}
