package trace

import (
	"context"
	"crypto/rand"
	"database/sql"
	"sync"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/store"
)

const flushRefusals = 3 * time.Second

// Refusal is one refusal in the SMTP dialogue, or the sum of the like ones of
// a minute. Peer is empty where addresses were too many to be told apart.
type Refusal struct {
	Time     time.Time `json:"time"` // of the first of them
	Last     time.Time `json:"last"`
	Count    int64     `json:"count"`
	Peer     string    `json:"peer"` // IP address
	Hello    string    `json:"hello"`
	Tenant   string    `json:"tenant"` // "" when it is nobody's
	From     string    `json:"from"`
	To       string    `json:"to"`
	Command  string    `json:"command"`
	Code     int       `json:"code"`
	Enhanced string    `json:"enhanced"`
	Text     string    `json:"text"`
}

// refusals sums the refusals of the running minute. Nothing here is synced or
// waited for: it is what a botnet can make us write.
type refusals struct {
	trace store.RoadDoor
	now   func() time.Time
	most  int

	writing sync.Mutex // one flush at a time, so that an update follows its insert

	mu     sync.Mutex
	minute int64
	sums   map[sumKey]*refusalSum // of the minute
	loose  int                    // entries of sums that name a peer
	dirty  []*refusalSum
}

// sumKey is what is summed into one row: address and reason, or the reason
// alone above the cap.
type sumKey struct {
	tenant, peer, command, enhanced string
	code                            int
}

type refusalSum struct {
	Refusal
	id    string
	saved bool // has a row
	dirty bool
}

func (r *refusals) init(c Config) {
	r.trace, r.now, r.most = c.Trace.Road(), c.Now, c.RefusalsPerMinute
	r.sums = map[sumKey]*refusalSum{}
}

// Refused notes a refusal; it never blocks and costs no commit.
func (l *Log) Refused(r Refusal) { l.refuse.note(r) }

func (r *refusals) note(x Refusal) {
	if x.Time.IsZero() {
		x.Time = r.now()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if m := x.Time.Unix() / 60; m != r.minute {
		r.minute, r.loose = m, 0
		clear(r.sums)
	}
	key := sumKey{x.Tenant, x.Peer, x.Command, x.Enhanced, x.Code}
	s := r.sums[key]
	if s == nil && r.loose >= r.most {
		// Too many: by reason only. Tenants are too many to be kept apart too.
		key = sumKey{code: x.Code, enhanced: x.Enhanced}
		x.Peer, x.Hello, x.From, x.To, x.Tenant, x.Command = "", "", "", "", "", ""
		s = r.sums[key]
	}
	if s == nil {
		s = r.add(key, x)
	}
	s.Count++
	s.Last = x.Time
	if !s.dirty {
		s.dirty = true
		r.dirty = append(r.dirty, s)
	}
}

func (r *refusals) add(key sumKey, x Refusal) *refusalSum {
	if key.peer != "" || key.command != "" {
		r.loose++
	}
	x.Count = 0
	s := &refusalSum{Refusal: x, id: ulid.MustNew(ulid.Timestamp(x.Time), rand.Reader).String()}
	r.sums[key] = s
	return s
}

// flush writes the sums that have grown.
func (r *refusals) flush(ctx context.Context) error {
	r.writing.Lock()
	defer r.writing.Unlock()
	r.mu.Lock()
	sums := r.dirty
	r.dirty = nil
	rows := make([]refusalSum, len(sums))
	for i, s := range sums {
		rows[i] = *s
		s.saved, s.dirty = true, false
	}
	r.mu.Unlock()
	for at := 0; at < len(rows); at += 200 {
		end := min(at+200, len(rows))
		if err := r.write(ctx, rows[at:end]); err != nil {
			r.restore(sums[at:], rows[at:])
			return fault.Wrap(fault.KindOf(err), "trace.Refused", err)
		}
	}
	return nil
}

func (r *refusals) write(ctx context.Context, rows []refusalSum) error {
	return r.trace.Background(ctx, func(tx store.RoadTx) error {
		for _, s := range rows {
			if err := s.write(tx); err != nil {
				return err
			}
		}
		return nil
	})
}

func (s refusalSum) write(tx store.RoadTx) error {
	if s.saved {
		_, err := tx.Exec(updateRefusal, s.Tenant, s.id, s.Last.UnixMicro(), s.Count)
		return err
	}
	_, err := tx.Exec(insertRefusal, s.Tenant, s.id, s.Time.UnixMicro(), s.Last.UnixMicro(), s.Count, s.Peer, clip(s.Hello),
		clip(s.From), clip(s.To), clip(s.Command), s.Code, s.Enhanced, clip(s.Text))
	return err
}

// restore takes sums back that could not be written. They stay bounded: only
// those of the running minute and what it can add to them are kept.
func (r *refusals) restore(sums []*refusalSum, was []refusalSum) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, s := range sums {
		s.saved = was[i].saved
		if !s.dirty && len(r.dirty) < 2*r.most {
			s.dirty = true
			r.dirty = append(r.dirty, s)
		}
	}
}

// clip bounds what a stranger makes us keep, and keeps to what a text column
// of PostgreSQL takes.
func clip(s string) string {
	const most = 512
	if len(s) > most {
		s = s[:most]
	}
	return clean(s)
}

// Refusals lists them, newest first. Limit, After, Since, Tenant, From and To
// of the filter apply.
func (l *Log) Refusals(ctx context.Context, f Filter) (page []Refusal, next string, err error) {
	if err := l.refuse.flush(ctx); err != nil {
		l.c.Log.Warn("trace: refusals were not written", "error", err)
	}
	limit := pageSize(f.Limit)
	args := []any{before(f.After), sinceRefusal(f.Since), pattern(f.From, false), pattern(f.To, false), limit + 1}
	var rows *sql.Rows
	if f.Tenant != "" {
		rows, err = l.c.Trace.For(f.Tenant).Query(ctx, listRefusals, args...)
	} else {
		rows, err = l.c.Trace.Operator("refusals of every tenant").Query(ctx, listAllRefusals, append([]any{""}, args...)...)
	}
	if err != nil {
		return nil, "", fault.Wrap(fault.KindOf(err), "trace.Refusals", err)
	}
	defer rows.Close()
	page = []Refusal{}
	for rows.Next() {
		if len(page) == limit {
			return page, next, nil
		}
		var r Refusal
		var first, last int64
		if err := rows.Scan(&r.Tenant, &next, &first, &last, &r.Count, &r.Peer, &r.Hello, &r.From, &r.To, &r.Command,
			&r.Code, &r.Enhanced, &r.Text); err != nil {
			return nil, "", fault.Wrap(fault.Later, "trace.Refusals", err)
		}
		r.Time, r.Last = fromMicros(first), fromMicros(last)
		page = append(page, r)
	}
	return page, "", fault.Wrap(fault.Later, "trace.Refusals", rows.Err())
}

func sinceRefusal(since time.Time) string {
	var id ulid.ULID
	if since.IsZero() || since.Unix() < 0 || id.SetTime(ulid.Timestamp(since)) != nil {
		return ""
	}
	return id.String()
}
