package store

import (
	"context"
	"database/sql"
)

// TenantSQL is a statement that says "tenant = $1" (or inserts $1 as tenant).
type TenantSQL string

// KeySQL is a TenantSQL that finds at most one row: its WHERE names the whole
// primary key of its only table.
type KeySQL string

// RoadSQL is a statement of the road: inserts of any tenant's rows, reads and
// updates of queue columns, never content.
type RoadSQL string

// OperatorSQL is a statement across tenants.
type OperatorSQL string

// TenantDoor reads and changes one tenant's rows. Arguments start at $2.
type TenantDoor struct {
	db     *DB
	tenant string
}

// Query reads outside of any transaction. Reads are cut off after 5 s. Rows
// must be closed.
func (d TenantDoor) Query(ctx context.Context, q TenantSQL, args ...any) (*sql.Rows, error) {
	if d.tenant == "" {
		return nil, noTenant()
	}
	return d.db.query(ctx, string(q), bound(d.tenant, args)...)
}

// QueryRow reads one row. Through a door without a tenant it reads none.
func (d TenantDoor) QueryRow(ctx context.Context, q TenantSQL, args ...any) *sql.Row {
	if d.tenant == "" {
		return d.db.noRow(noTenant())
	}
	return d.db.queryRow(ctx, string(q), bound(d.tenant, args)...)
}

// Get reads the row with a key. It is cut off on PostgreSQL only: SQLite has
// found one row by its key before anybody could be told to stop, and being
// ready to stop (a timer and two goroutines for each read) costs as much as the
// reading. So the end of ctx does not end it either.
func (d TenantDoor) Get(ctx context.Context, q KeySQL, args ...any) *sql.Row {
	if d.tenant == "" {
		return d.db.noRow(noTenant())
	}
	return d.db.get(ctx, string(q), bound(d.tenant, args)...)
}

// Change runs f in the next group commit and returns when that is durable. f
// may run twice (when a neighbour failed), so it must only touch tx and
// variables that it sets anew. f must be quick and must not block on anything
// but tx. An error of a statement must be returned by f, not ignored.
func (d TenantDoor) Change(ctx context.Context, f func(tx TenantTx) error) error {
	if d.tenant == "" {
		return noTenant()
	}
	return d.db.change(ctx, func(s *session) error { return f(TenantTx{s: s, tenant: d.tenant}) })
}

// TenantTx is a transaction bound to a tenant. Rows of a Query must be closed
// before the next statement.
type TenantTx struct {
	s      *session
	tenant string
}

// Exec returns the number of rows affected. A unique violation is of kind
// conflict, a full disk or a lost database of kind later.
func (tx TenantTx) Exec(q TenantSQL, args ...any) (int64, error) {
	return tx.s.exec(string(q), bound(tx.tenant, args)...)
}

// Query reads what the transaction sees.
func (tx TenantTx) Query(q TenantSQL, args ...any) (*sql.Rows, error) {
	return tx.s.query(string(q), bound(tx.tenant, args)...)
}

// QueryRow reads one row of what the transaction sees.
func (tx TenantTx) QueryRow(q TenantSQL, args ...any) *sql.Row {
	return tx.s.queryRow(string(q), bound(tx.tenant, args)...)
}

// Audit puts an event into the outbox, in this transaction. Control database
// only. The event's tenant is the door's.
func (tx TenantTx) Audit(e Event) error {
	e.Tenant = tx.tenant
	return tx.s.audit(e)
}

// RoadDoor is the road's door; arguments start at $1.
type RoadDoor struct{ db *DB }

// Query reads queue columns outside of any transaction, as TenantDoor.Query.
func (d RoadDoor) Query(ctx context.Context, q RoadSQL, args ...any) (*sql.Rows, error) {
	return d.db.query(ctx, string(q), args...)
}

// QueryRow reads one row of queue columns.
func (d RoadDoor) QueryRow(ctx context.Context, q RoadSQL, args ...any) *sql.Row {
	return d.db.queryRow(ctx, string(q), args...)
}

// Change is as TenantDoor.Change.
func (d RoadDoor) Change(ctx context.Context, f func(tx RoadTx) error) error {
	return d.db.change(ctx, func(s *session) error { return f(RoadTx{s: s}) })
}

// Background is Change for bulk work: it gives way to every Change that waits
// (but not for longer than 200 ms), and f should not run longer than 10 ms.
func (d RoadDoor) Background(ctx context.Context, f func(tx RoadTx) error) error {
	return d.db.commits.do(ctx, true, func(s *session) error { return f(RoadTx{s: s}) })
}

// RoadTx is a transaction of the road.
type RoadTx struct{ s *session }

// Exec is as TenantTx.Exec.
func (tx RoadTx) Exec(q RoadSQL, args ...any) (int64, error) { return tx.s.exec(string(q), args...) }

// Query is as TenantTx.Query.
func (tx RoadTx) Query(q RoadSQL, args ...any) (*sql.Rows, error) {
	return tx.s.query(string(q), args...)
}

// QueryRow is as TenantTx.QueryRow.
func (tx RoadTx) QueryRow(q RoadSQL, args ...any) *sql.Row { return tx.s.queryRow(string(q), args...) }

// OperatorDoor reads across tenants; arguments start at $1.
type OperatorDoor struct {
	db     *DB
	reason string
}

// Query reads across tenants, after the reason is on its way to the ledger.
func (d OperatorDoor) Query(ctx context.Context, q OperatorSQL, args ...any) (*sql.Rows, error) {
	if err := d.db.store.reasons.note(ctx, d.reason); err != nil {
		return nil, err
	}
	return d.db.query(ctx, string(q), args...)
}

// QueryRow is Query of one row.
func (d OperatorDoor) QueryRow(ctx context.Context, q OperatorSQL, args ...any) *sql.Row {
	if err := d.db.store.reasons.note(ctx, d.reason); err != nil {
		return d.db.noRow(err)
	}
	return d.db.queryRow(ctx, string(q), args...)
}

// Change is for what belongs to no tenant: tokens of operators, settings of
// the node, housekeeping (retention) across tenants.
func (d OperatorDoor) Change(ctx context.Context, f func(tx OperatorTx) error) error {
	if err := d.db.store.reasons.note(ctx, d.reason); err != nil {
		return err
	}
	return d.db.change(ctx, func(s *session) error { return f(OperatorTx{s: s}) })
}

// OperatorTx is a transaction across tenants.
type OperatorTx struct{ s *session }

// Exec is as TenantTx.Exec.
func (tx OperatorTx) Exec(q OperatorSQL, args ...any) (int64, error) {
	return tx.s.exec(string(q), args...)
}

// Query is as TenantTx.Query.
func (tx OperatorTx) Query(q OperatorSQL, args ...any) (*sql.Rows, error) {
	return tx.s.query(string(q), args...)
}

// QueryRow is as TenantTx.QueryRow.
func (tx OperatorTx) QueryRow(q OperatorSQL, args ...any) *sql.Row {
	return tx.s.queryRow(string(q), args...)
}

// Audit is as TenantTx.Audit, with the event's own tenant.
func (tx OperatorTx) Audit(e Event) error { return tx.s.audit(e) }

// bound puts the tenant before the arguments.
func bound(tenant string, args []any) []any {
	return append(append(make([]any, 0, len(args)+1), tenant), args...)
}
