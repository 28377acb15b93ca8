package store

import (
	"context"
	"database/sql"
	"time"
)

// TenantSQL is a statement that says "tenant = $1" (or inserts $1 as tenant).
type TenantSQL string

// RoadSQL is a statement of the road: inserts of any tenant's rows, reads and
// updates of queue columns, never content.
type RoadSQL string

// OperatorSQL is a statement across tenants.
type OperatorSQL string

// DB is one database: a SQLite file with its committer and its readers, or a
// PostgreSQL pool.
type DB struct {
	// unexported
}

// SkipLocked is the one dialect word: " FOR UPDATE SKIP LOCKED" on PostgreSQL,
// "" on SQLite.
func (db *DB) SkipLocked() string { panic("skeleton") }

// For is the ordinary door: every statement is bound to that tenant.
func (db *DB) For(tenant string) TenantDoor { panic("skeleton") }

// Road is the door of the queue and of the trace events on their way.
func (db *DB) Road() RoadDoor { panic("skeleton") }

// Operator is the door for reading across tenants. The reason becomes an audit
// event in the outbox, at most once a minute for the same reason.
func (db *DB) Operator(reason string) OperatorDoor { panic("skeleton") }

// TenantDoor reads and changes one tenant's rows. Arguments start at $2.
type TenantDoor struct { /* unexported */
}

// Query reads outside of any transaction. Reads are cut off after 5 s. Rows
// must be closed.
func (d TenantDoor) Query(ctx context.Context, q TenantSQL, args ...any) (*sql.Rows, error) {
	panic("skeleton")
}

// QueryRow reads one row.
func (d TenantDoor) QueryRow(ctx context.Context, q TenantSQL, args ...any) *sql.Row {
	panic("skeleton")
}

// Change runs f in the next group commit and returns when that is durable. f
// may run twice (alone, when a neighbour failed), so it must only touch tx and
// variables that it sets anew. f must be quick and must not block on anything
// but tx.
func (d TenantDoor) Change(ctx context.Context, f func(tx TenantTx) error) error { panic("skeleton") }

// TenantTx is a transaction bound to a tenant.
type TenantTx struct { /* unexported */
}

// Exec returns the number of rows affected. A unique violation is of kind
// conflict, a full disk or a lost database of kind later.
func (tx TenantTx) Exec(q TenantSQL, args ...any) (int64, error)      { panic("skeleton") }
func (tx TenantTx) Query(q TenantSQL, args ...any) (*sql.Rows, error) { panic("skeleton") }
func (tx TenantTx) QueryRow(q TenantSQL, args ...any) *sql.Row        { panic("skeleton") }

// Audit puts an event into the outbox, in this transaction. Control database
// only.
func (tx TenantTx) Audit(e Event) error { panic("skeleton") }

// RoadDoor is the road's door; arguments start at $1.
type RoadDoor struct { /* unexported */
}

func (d RoadDoor) Query(ctx context.Context, q RoadSQL, args ...any) (*sql.Rows, error) {
	panic("skeleton")
}
func (d RoadDoor) QueryRow(ctx context.Context, q RoadSQL, args ...any) *sql.Row { panic("skeleton") }

// Change is as TenantDoor.Change.
func (d RoadDoor) Change(ctx context.Context, f func(tx RoadTx) error) error { panic("skeleton") }

// Background is Change for bulk work: it gives way to every Change that waits,
// and f should not run longer than 10 ms.
func (d RoadDoor) Background(ctx context.Context, f func(tx RoadTx) error) error { panic("skeleton") }

// RoadTx is a transaction of the road.
type RoadTx struct { /* unexported */
}

func (tx RoadTx) Exec(q RoadSQL, args ...any) (int64, error)      { panic("skeleton") }
func (tx RoadTx) Query(q RoadSQL, args ...any) (*sql.Rows, error) { panic("skeleton") }
func (tx RoadTx) QueryRow(q RoadSQL, args ...any) *sql.Row        { panic("skeleton") }

// PutBody makes the body durable with this transaction under a reference that
// its Finish gave: a small one is inserted as a row; a file has been synced
// already, and a row without data names it.
func (tx RoadTx) PutBody(b *Body, ref BodyRef) error { panic("skeleton") }

// DropBody removes a body in this transaction; a file is unlinked after the
// commit.
func (tx RoadTx) DropBody(ref BodyRef) error { panic("skeleton") }

// OperatorDoor reads across tenants; arguments start at $1.
type OperatorDoor struct { /* unexported */
}

func (d OperatorDoor) Query(ctx context.Context, q OperatorSQL, args ...any) (*sql.Rows, error) {
	panic("skeleton")
}
func (d OperatorDoor) QueryRow(ctx context.Context, q OperatorSQL, args ...any) *sql.Row {
	panic("skeleton")
}

// Change is for what belongs to no tenant: tokens of operators, settings of
// the node, housekeeping (retention) across tenants.
func (d OperatorDoor) Change(ctx context.Context, f func(tx OperatorTx) error) error {
	panic("skeleton")
}

// OperatorTx is a transaction across tenants.
type OperatorTx struct { /* unexported */
}

func (tx OperatorTx) Exec(q OperatorSQL, args ...any) (int64, error)      { panic("skeleton") }
func (tx OperatorTx) Query(q OperatorSQL, args ...any) (*sql.Rows, error) { panic("skeleton") }
func (tx OperatorTx) QueryRow(q OperatorSQL, args ...any) *sql.Row        { panic("skeleton") }
func (tx OperatorTx) Audit(e Event) error                                 { panic("skeleton") }

// Event is an audit event on its way to the ledger.
type Event struct {
	Time       time.Time `json:"time"`
	Actor      string    `json:"actor"` // "token:<id>", "system"
	Act        string    `json:"act"`   // "tenant.add"
	Tenant     string    `json:"tenant,omitempty"`
	Connection string    `json:"connection,omitempty"`
	Subject    string    `json:"subject,omitempty"`
	Purpose    string    `json:"purpose,omitempty"` // the reason, for operator reads
	Outcome    string    `json:"outcome,omitempty"`
}
