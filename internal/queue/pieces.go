package queue

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/sallyport-mail/sallyport/internal/store"
)

// Bulk acts, expiry and retention work in pieces: each is one commit, and
// leaves the writer to whoever waits for a reply.
const (
	// pieceTime is how long one piece should have the writer, its commit
	// with it.
	pieceTime = 5 * time.Millisecond
	// restShare is how much longer than a piece the time from its beginning
	// to that of the next one is while clients wait. What a piece costs does
	// not end with it: the trace follows, and in a queue for thousands of
	// destinations each row of it lies elsewhere too.
	restShare = 10
	// between is how long nobody has waited when clients count as gone: those
	// who send one message after the other leave gaps of a millisecond or two.
	between = 10 * time.Millisecond
)

// clients knows whether somebody waits for the reply to a message. Reports of
// deliveries do not count: probes of destinations that are away never end.
type clients struct {
	waiting atomic.Int32
	last    atomic.Int64 // when the last reply was given, in Unix nanoseconds
}

func (c *clients) come() { c.waiting.Add(1) }

func (c *clients) leave() {
	c.last.Store(time.Now().UnixNano())
	c.waiting.Add(-1)
}

func (c *clients) here() bool {
	return c.waiting.Load() > 0 || time.Since(time.Unix(0, c.last.Load())) < between
}

// pieces finds out how many items one commit can take in pieceTime: rows that
// lie close together share pages, but in a queue for thousands of destinations
// each row dirties pages of its own. It never goes below a tenth of the limit:
// where a commit by itself takes longer than that, fewer items in each would
// only make more of them.
type pieces struct{ most, limit int }

func newPieces(limit int) *pieces { return &pieces{most: max(1, limit/4), limit: limit} }

// learn hears how long a piece of n items took.
func (p *pieces) learn(n int, took time.Duration) {
	switch {
	case took > pieceTime:
		p.most = max(1, p.limit/10, int(int64(n)*int64(pieceTime)/int64(took)))
	case n >= p.most:
		p.most = min(p.limit, p.most+p.most/4+1)
	}
}

// piece commits background work, and says how long it had the writer.
func (q *Queue) piece(ctx context.Context, f func(store.RoadTx) error) (took time.Duration, err error) {
	began := time.Now()
	err = q.road.Background(ctx, func(tx store.RoadTx) error {
		began = time.Now()
		return f(tx)
	})
	return time.Since(began), err
}

// giveWay rests after background work that took so long, while clients wait
// for their replies: what it costs the processors (reading, encoding, the trace
// behind it) is theirs first.
func (q *Queue) giveWay(ctx context.Context, took time.Duration) {
	if q.clients.here() {
		pause(ctx, (restShare-1)*took)
	}
}
