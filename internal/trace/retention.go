package trace

import (
	"context"
	"database/sql"
	"errors"
	"strings"

	"github.com/oklog/ulid/v2"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/store"
)

// retain ends what is older than its tenant keeps, a small batch at a time.
// Messages that are still queued or held stay, however old.
func (l *Log) retain(ctx context.Context) error {
	door := l.c.Trace.Road()
	for tenant := ""; ; {
		err := door.QueryRow(ctx, nextTenant, tenant).Scan(&tenant)
		if errors.Is(err, sql.ErrNoRows) {
			break
		}
		if err != nil {
			return fault.Wrap(fault.KindOf(err), "trace.retain", err)
		}
		if err := l.retainOf(ctx, deleteMessages, tenant); err != nil {
			return err
		}
	}
	// Refusals that are nobody's have no tenant, so the first step includes "".
	for tenant, last := "", "\x01"; ; {
		err := door.QueryRow(ctx, nextRefusedTenant, tenant, last).Scan(&tenant)
		if errors.Is(err, sql.ErrNoRows) {
			return nil
		}
		if err != nil {
			return fault.Wrap(fault.KindOf(err), "trace.retain", err)
		}
		last = tenant
		if err := l.retainOf(ctx, deleteRefusals, tenant); err != nil {
			return err
		}
	}
}

func (l *Log) retainOf(ctx context.Context, q store.RoadSQL, tenant string) error {
	var bound ulid.ULID
	end := l.c.Now().Add(-l.c.Keep(tenant))
	if end.Unix() < 0 || bound.SetTime(ulid.Timestamp(end)) != nil {
		return nil
	}
	for {
		var n int64
		err := l.c.Trace.Road().Background(ctx, func(tx store.RoadTx) (err error) {
			n, err = tx.Exec(q, tenant, bound.String())
			return err
		})
		if err != nil {
			return fault.Wrap(fault.KindOf(err), "trace.retain", err)
		}
		if n == 0 {
			return nil
		}
	}
}

// clean takes out of a text what PostgreSQL does not store in one: NUL, and
// bytes that are no UTF-8.
func clean(s string) string {
	return strings.ReplaceAll(strings.ToValidUTF8(s, "�"), "\x00", "�")
}
