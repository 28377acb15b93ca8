package api

import (
	"bytes"
	"container/list"
	"context"
	"crypto/sha256"
	"net/http"
	"sync"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
)

// A client that lost the answer to a POST sends it again with the same
// Idempotency-Key and gets the stored answer; nothing is done twice. Only
// success is stored: what failed changed nothing and may be tried again. The
// memory is this process's, bounded in entries and bytes.
const (
	replayFor       = 24 * time.Hour
	replaySecretFor = 10 * time.Minute
	replayEntries   = 10_000
	replayBytes     = 32 << 20
	keyLimit        = 200
)

// replayKey names a request: the same key means another thing for another
// token or route.
type replayKey struct{ key, token, route string }

// replay is a request that runs (done is open) or has its answer.
type replay struct {
	id      replayKey
	body    [sha256.Size]byte
	done    chan struct{}
	status  int
	header  http.Header
	answer  []byte
	expires time.Time
}

type replays struct {
	now     func() time.Time
	mu      sync.Mutex
	entries map[replayKey]*list.Element // of *replay
	order   *list.List                  // most recent first
	bytes   int
}

func newReplays(now func() time.Time) *replays {
	return &replays{now: now, entries: map[replayKey]*list.Element{}, order: list.New()}
}

// begin returns the entry of a request and whether it is the caller's to run.
func (m *replays) begin(id replayKey, body []byte) (e *replay, mine bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if el, ok := m.entries[id]; ok {
		e := el.Value.(*replay)
		if e.running() || m.now().Before(e.expires) {
			m.order.MoveToFront(el)
			return e, false
		}
		m.remove(el)
	}
	e = &replay{id: id, body: sha256.Sum256(body), done: make(chan struct{})}
	m.entries[id] = m.order.PushFront(e)
	return e, true
}

func (e *replay) running() bool {
	select {
	case <-e.done:
		return false
	default:
		return true
	}
}

// end stores a success and forgets a failure; those who wait are woken.
func (m *replays) end(e *replay, rec *recorder, keep time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	e.status, e.header, e.answer = rec.status, rec.head, rec.body.Bytes()
	e.expires = m.now().Add(keep)
	close(e.done)
	if e.status < 200 || e.status > 299 {
		m.remove(m.entries[e.id])
		return
	}
	m.bytes += len(e.answer)
	m.trim()
}

// trim drops the least recently used answers over the bounds. Running ones
// stay; there are never more of them than requests.
func (m *replays) trim() {
	for el := m.order.Back(); el != nil && (m.order.Len() > replayEntries || m.bytes > replayBytes); {
		prev := el.Prev()
		if !el.Value.(*replay).running() {
			m.remove(el)
		}
		el = prev
	}
}

func (m *replays) remove(el *list.Element) {
	e := m.order.Remove(el).(*replay)
	delete(m.entries, e.id)
	if e.status >= 200 && e.status <= 299 {
		m.bytes -= len(e.answer)
	}
}

// once runs a POST for an Idempotency-Key, or gives the answer it had. It goes
// on when its client goes away: that client comes back for the answer.
func (s *server) once(w http.ResponseWriter, r *http.Request, token, key string, body []byte, rule rule, run func(context.Context, http.ResponseWriter)) {
	if len(key) > keyLimit {
		s.refuse(w, r, fault.New(fault.Invalid, "api", "the Idempotency-Key is too long").WithHint("Send a UUID or the like."))
		return
	}
	id := replayKey{key, token, r.Method + " " + r.URL.RequestURI()}
	e, mine := s.replays.begin(id, body)
	if mine {
		keep := replayFor
		if rule.secret {
			keep = replaySecretFor
		}
		s.record(r.Context(), e, keep, run)
	} else if e.body != sha256.Sum256(body) {
		s.refuse(w, r, fault.New(fault.Conflict, "api", "this Idempotency-Key was used for another body").WithHint("Use a new key for a new request."))
		return
	}
	select {
	case <-e.done:
		if e.status == 0 { // the other one panicked
			s.refuse(w, r, fault.New(fault.Later, "api", "the same request failed a moment ago").WithHint("Send it again."))
			return
		}
		e.write(w, !mine)
	case <-r.Context().Done():
	}
}

// record runs a request into its entry; the entry ends also by a panic.
func (s *server) record(ctx context.Context, e *replay, keep time.Duration, run func(context.Context, http.ResponseWriter)) {
	rec := &recorder{head: http.Header{}}
	defer func() { s.replays.end(e, rec, keep) }()
	run(context.WithoutCancel(ctx), rec)
}

func (e *replay) write(w http.ResponseWriter, again bool) {
	for k, v := range e.header {
		w.Header()[k] = v
	}
	if again {
		w.Header().Set("Idempotent-Replayed", "true")
	}
	w.WriteHeader(e.status)
	_, _ = w.Write(e.answer) // a client that has gone needs no answer
}

// recorder is a ResponseWriter into memory.
type recorder struct {
	head   http.Header
	status int
	body   bytes.Buffer
}

func (r *recorder) Header() http.Header { return r.head }

func (r *recorder) WriteHeader(status int) {
	if r.status == 0 {
		r.status = status
	}
}

func (r *recorder) Write(p []byte) (int, error) {
	r.WriteHeader(http.StatusOK)
	return r.body.Write(p)
}
