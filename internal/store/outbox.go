package store

import (
	"context"
	"database/sql"
	"sync"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
)

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

// reasonEvery is how often the same reason is told to the ledger.
const reasonEvery = time.Minute

// audit writes an event into the outbox; it has a time from now on.
func (s *session) audit(e Event) error {
	if s.db.name != controlSet {
		return fault.New(fault.Internal, "store.Audit", "audit events belong to the control database, not to "+s.db.name)
	}
	if e.Time.IsZero() {
		e.Time = s.db.now()
	}
	_, err := s.exec(string(insertEvent), e.Time.UnixMicro(), e.Actor, e.Act, e.Tenant, e.Connection, e.Subject, e.Purpose, e.Outcome)
	return err
}

// reasons remembers which reasons operators have given lately.
type reasons struct {
	control *DB
	now     func() time.Time
	mu      sync.Mutex
	told    map[string]time.Time
}

// note tells the ledger that somebody looks across tenants, before he does.
func (r *reasons) note(ctx context.Context, reason string) error {
	if reason == "" {
		return fault.New(fault.Invalid, "store.Operator", "no reason was given for looking across tenants")
	}
	now := r.now()
	if !r.due(reason, now) {
		return nil
	}
	err := r.control.change(ctx, func(s *session) error {
		return s.audit(Event{Time: now, Actor: "system", Act: "operator.open", Purpose: reason})
	})
	if err != nil {
		r.forget(reason)
	}
	return err
}

func (r *reasons) due(reason string, now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if last, ok := r.told[reason]; ok && now.Sub(last) < reasonEvery {
		return false
	}
	for old, last := range r.told {
		if now.Sub(last) >= reasonEvery {
			delete(r.told, old)
		}
	}
	r.told[reason] = now
	return true
}

func (r *reasons) forget(reason string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.told, reason)
}

func noTenant() error { return fault.New(fault.Invalid, "store.For", "no tenant was named") }

// noRow is a row whose Scan returns err: a Row can only be had from a query,
// so it is one whose context ended for that reason.
func (db *DB) noRow(err error) *sql.Row {
	over := make(chan struct{})
	close(over)
	return db.read.QueryRowContext(refused{context.Background(), over, err}, "SELECT 1")
}

// refused is a context that was over before it began.
type refused struct {
	context.Context
	over <-chan struct{}
	err  error
}

func (r refused) Done() <-chan struct{} { return r.over }
func (r refused) Err() error            { return r.err }
