package ledger

import (
	"context"

	"github.com/sallyport-mail/sallyport/internal/store"
)

// filed is a row with what it is searched by.
type filed struct {
	row
	time                                       int64 // microseconds
	actor, act, tenant, connection, trace, key string
}

// eachFiled calls f for the rows of a range, in order.
func eachFiled(ctx context.Context, door store.KeeperDoor, from, to int64, f func(filed) error) error {
	rows, err := door.Query(ctx, selectColumns, from, to)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var r filed
		if err := rows.Scan(&r.index, &r.time, &r.actor, &r.act, &r.tenant, &r.connection, &r.trace, &r.key, &r.hash, &r.payload); err != nil {
			return store.Fault("ledger.read", err)
		}
		if err := f(r); err != nil {
			return err
		}
	}
	return store.Fault("ledger.read", rows.Err())
}

// misfiled reports a row that is searched by other things than its leaf says:
// somebody has hidden it from searches. Past its retention it has no leaf.
func (r filed) misfiled() bool {
	if r.payload == nil {
		return false
	}
	e, err := readLeaf(r.payload)
	return err != nil || e.Time.UnixMicro() != r.time || e.Actor != r.actor || e.Act != r.act ||
		e.Tenant != r.tenant || e.Connection != r.connection || e.Trace != r.trace || e.Key != r.key
}
