package ledger

import (
	"context"

	"github.com/sallyport-mail/sallyport/internal/store"
)

const columnsPage = 2000

// Columns holds what entries are searched by against their leaves, and returns
// the indexes of those of which they differ: somebody has hidden them from
// searches. An export has no columns, so that audit can't know.
func (l *Ledger) Columns(ctx context.Context) ([]int64, error) {
	l.ending.RLock()
	defer l.ending.RUnlock()
	var differ []int64
	for at, size := int64(0), l.Size(); at < size; at += columnsPage {
		page, err := l.columnsIn(ctx, at, min(at+columnsPage, size))
		if err != nil {
			return nil, err
		}
		differ = append(differ, page...)
	}
	return differ, nil
}

func (l *Ledger) columnsIn(ctx context.Context, from, to int64) ([]int64, error) {
	rows, err := l.door.Query(ctx, selectColumns, from, to)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var differ []int64
	for rows.Next() {
		var index, when int64
		var c Entry
		var hash, payload []byte
		if err := rows.Scan(&index, &when, &c.Actor, &c.Act, &c.Tenant, &c.Connection, &c.Trace, &c.Key, &hash, &payload); err != nil {
			return nil, store.Fault("ledger.Columns", err)
		}
		if payload == nil {
			continue
		}
		e, err := readLeaf(payload)
		if err != nil || e.Index != index || e.Time.UnixMicro() != when || e.Actor != c.Actor || e.Act != c.Act ||
			e.Tenant != c.Tenant || e.Connection != c.Connection || e.Trace != c.Trace || e.Key != c.Key {
			differ = append(differ, index)
		}
	}
	return differ, store.Fault("ledger.Columns", rows.Err())
}
