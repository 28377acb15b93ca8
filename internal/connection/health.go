package connection

import (
	"context"
	"encoding/json"
	"sync"
	"time"

	"github.com/sallyport-mail/sallyport/internal/store"
)

// healthInterval is how often one connection's health is written at most.
const healthInterval = time.Minute

// place names a connection.
type place struct{ tenant, name string }

// healthBook collects health that the database does not know yet. Nothing is
// lost that matters when it is lost: the next attempt says it again.
type healthBook struct {
	write func(ctx context.Context, p place, h Health) error

	mu      sync.Mutex
	changed map[place]Health
	timer   *time.Timer
	closed  bool
}

// NoteHealth records what the last attempt showed, in memory (written to the
// database when it changes, at most once a minute).
func (r *Registry) NoteHealth(tenant, name string, h Health) {
	e := r.entry(tenant, name)
	if e == nil {
		return
	}
	before := e.health.Swap(&h)
	if before == nil || !same(before.OK, h.OK) || !same(before.Reason, h.Reason) {
		r.health.note(place{tenant, name}, h)
	}
}

func same[T comparable](a, b *T) bool {
	if a == nil || b == nil {
		return a == b
	}
	return *a == *b
}

func (b *healthBook) note(p place, h Health) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.changed == nil {
		b.changed = make(map[place]Health)
	}
	b.changed[p] = h
	if b.timer == nil && !b.closed {
		b.timer = time.AfterFunc(healthInterval, func() { _ = b.flush(context.Background()) })
	}
}

func (b *healthBook) flush(ctx context.Context) error {
	b.mu.Lock()
	batch := b.changed
	b.changed = nil
	if b.timer != nil {
		b.timer.Stop()
		b.timer = nil
	}
	b.mu.Unlock()
	for p, h := range batch {
		if err := b.write(ctx, p, h); err != nil {
			return err
		}
	}
	return nil
}

func (b *healthBook) close(ctx context.Context) error {
	b.mu.Lock()
	b.closed = true
	b.mu.Unlock()
	return b.flush(ctx)
}

// writeHealth writes one connection's. It is no change of anybody's making,
// so it leaves no audit event.
func (r *Registry) writeHealth(ctx context.Context, p place, h Health) error {
	text, err := json.Marshal(h)
	if err != nil {
		return err
	}
	return r.c.DB.For(p.tenant).Change(ctx, func(tx store.TenantTx) error {
		_, err := tx.Exec(updateHealth, p.name, string(text))
		return err
	})
}
