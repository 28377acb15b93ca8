package deliver

import (
	"sync"
	"time"

	"github.com/sallyport-mail/sallyport/internal/connection"
)

// healthAge is how often an unchanged state of a connection is told again.
const healthAge = time.Minute

// healthNotes remembers what was told of each connection, so that the registry
// hears only what is new.
type healthNotes struct {
	mu   sync.Mutex
	last map[healthKey]healthNote
}

type healthKey struct{ tenant, connection string }

type healthNote struct {
	ok     bool
	reason string
	at     time.Time
}

func newHealthNotes() *healthNotes {
	return &healthNotes{last: make(map[healthKey]healthNote)}
}

// fresh notes a state and reports whether it is worth telling.
func (n *healthNotes) fresh(k healthKey, ok bool, reason string) bool {
	now := time.Now()
	n.mu.Lock()
	defer n.mu.Unlock()
	l, seen := n.last[k]
	if seen && l.ok == ok && l.reason == reason && now.Sub(l.at) < healthAge {
		return false
	}
	n.last[k] = healthNote{ok, reason, now}
	return true
}

// note tells the registry how a connection of a tenant went. Hosts of the
// internet are nobody's connection.
func (d *Deliverer) note(w way, ok bool, took time.Duration, reason string) {
	if w.Connection == "" || !d.health.fresh(healthKey{w.Tenant, w.Connection}, ok, reason) {
		return
	}
	at, ms := d.now(), took.Milliseconds()
	h := connection.Health{OK: &ok, CheckedAt: &at, LatencyMS: &ms}
	if reason != "" {
		h.Reason = &reason
	}
	d.routes.NoteHealth(w.Tenant, w.Connection, h)
}
