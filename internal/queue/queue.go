package queue

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"maps"
	"sync"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/mail"
	"github.com/sallyport-mail/sallyport/internal/store"
	"github.com/sallyport-mail/sallyport/internal/trace"
)

// Config of the queue. Its functions are called with the queue locked, so they
// must be quick and must not call it.
type Config struct {
	Store *store.Store
	Trace *trace.Log
	Log   *slog.Logger
	Now   func() time.Time
	// Window is how many items of a destination are in memory; 0 means 500.
	Window int
	// WindowBytes bounds the bodies kept in memory for quick delivery over all
	// destinations; 0 means 32 MiB.
	WindowBytes int64
	// Slots is how many deliveries run at a time over all destinations; 0
	// means 200.
	Slots int
	// Limit says how many connections a destination may have at a time, over
	// which it is reached; nil means 20.
	Limit func(destination string) int
	// Times of a tenant: how long to try, and when to tell an own sender of
	// delay (0: never). nil means 5 days and 4 hours.
	Times func(tenant string) (expiry, delayNotice time.Duration)
	// KeepFailed is how long a tenant's failed items are kept; nil means 14
	// days.
	KeepFailed func(tenant string) time.Duration
	// Bounce gives the route for a notification to one of our own tenants'
	// senders; ok false when the address is not served by that tenant.
	Bounce func(tenant string, to mail.Address) (destination, connection string, ok bool)
	// Hostname is the Reporting-MTA of a tenant's notifications.
	Hostname func(tenant string) string
}

// Queue is the queue.
type Queue struct {
	c    Config
	road store.RoadDoor
	log  *slog.Logger
	ids  identifiers

	refillKick, alarmKick, lateKick chan struct{}

	clients clients

	mu         sync.Mutex
	dests      map[string]*destination
	busy       map[string]*hand // items in somebody's hands, by id
	leased     int
	run        fifo[destination] // those that want a slot
	callers    []chan *Slot      // those that wait for one
	used       int               // slots given
	alarms     alarms
	probes     probes
	refills    fifo[window]
	recounts   fifo[lane]
	entries    int   // in all windows
	cached     int64 // bytes of items and bodies in memory
	stops      stops
	late       []unwritten
	retryLater []string // items that were refused before their route was known to be broken
	figures    figures
	regions    map[string]uint64 // what figures.delivered sums up
}

// figures since the start.
type figures struct{ accepted, delivered, deferrals, failures uint64 }

// New opens the queue: it reads destinations and counts, not items.
func New(ctx context.Context, c Config) (*Queue, error) {
	if c.Store == nil || c.Trace == nil {
		return nil, fault.New(fault.Internal, "queue.New", "a store and a trace are needed")
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Window == 0 {
		c.Window = 500
	}
	if c.WindowBytes == 0 {
		c.WindowBytes = 32 << 20
	}
	if c.Slots == 0 {
		c.Slots = 200
	}
	q := &Queue{
		c: c, road: c.Store.Road.Road(), log: c.Log,
		refillKick: make(chan struct{}, 1), alarmKick: make(chan struct{}, 1), lateKick: make(chan struct{}, 1),
		dests: map[string]*destination{}, busy: map[string]*hand{}, regions: map[string]uint64{},
	}
	q.stops.set(nil)
	if err := q.load(ctx); err != nil {
		return nil, fault.Wrap(fault.KindOf(err), "queue.New", err)
	}
	return q, nil
}

func (q *Queue) now() time.Time { return q.c.Now() }

func (q *Queue) expiry(tenant string) time.Duration {
	if q.c.Times != nil {
		if expiry, _ := q.c.Times(tenant); expiry > 0 {
			return expiry
		}
	}
	return 5 * 24 * time.Hour
}

func (q *Queue) delayNotice(tenant string) time.Duration {
	if q.c.Times != nil {
		_, notice := q.c.Times(tenant)
		return notice
	}
	return 4 * time.Hour
}

func (q *Queue) keepFailed(tenant string) time.Duration {
	if q.c.KeepFailed != nil {
		if keep := q.c.KeepFailed(tenant); keep > 0 {
			return keep
		}
	}
	return 14 * 24 * time.Hour
}

func (q *Queue) hostname(tenant string) string {
	if q.c.Hostname != nil {
		return q.c.Hostname(tenant)
	}
	return "localhost"
}

// Run does the timed work (due items, expiry, delay notices, retention) until
// ctx ends.
func (q *Queue) Run(ctx context.Context) error {
	var all sync.WaitGroup
	for _, work := range []func(context.Context){q.fill, q.fill, q.keepTime, q.persist, q.walk} {
		all.Go(func() { work(ctx) })
	}
	all.Wait()
	return nil
}

// keepTime fires alarms.
func (q *Queue) keepTime(ctx context.Context) {
	for ctx.Err() == nil {
		wait := time.NewTimer(q.ring())
		select {
		case <-ctx.Done():
		case <-wait.C:
		case <-q.alarmKick:
		}
		wait.Stop()
	}
}

// persist writes what could not be written when it happened, and sends again
// what was refused by a route that was found to be broken.
func (q *Queue) persist(ctx context.Context) {
	turn := time.NewTicker(time.Second)
	defer turn.Stop()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
			return
		case <-turn.C:
		case <-q.lateKick:
			pause(ctx, 100*time.Millisecond)
		}
		if err := q.writeLate(ctx); err != nil && ctx.Err() == nil {
			q.log.Error("what was delivered cannot be recorded", "error", err)
		}
		if err := q.retryRefused(ctx); err != nil && ctx.Err() == nil {
			q.log.Warn("refused mail of a stopped route is not queued again", "error", err)
		}
	}
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// Open reads an item's body but for what is cut, from memory when it is still
// there.
func (q *Queue) Open(ctx context.Context, it *Item) (io.ReadCloser, error) {
	if it.bytes != nil {
		return io.NopCloser(bytes.NewReader(it.bytes)), nil
	}
	if it.Body.ID == "" {
		return nil, fault.New(fault.Missing, "queue.Open", "item "+it.ID+" has no body")
	}
	r, err := q.c.Store.Bodies.Open(ctx, it.Body)
	if err == nil && len(it.Cut) > 0 {
		r = &rest{ReadCloser: r, cut: it.Cut}
	}
	return r, err
}

// Bytes is what Open reads when it is in memory, else nil.
func (q *Queue) Bytes(it *Item) []byte { return it.bytes }

// InUse is of kind conflict when the tenant has items.
func (q *Queue) InUse(tenant string) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, d := range q.dests {
		if l := d.lanes[tenant]; l != nil && (l.total() > 0 || l.internal > 0) {
			return fault.New(fault.Conflict, "queue.InUse", "there is still mail of "+tenant+" in the queue").
				WithHint("Let it be delivered, or drop it: queue list --tenant " + tenant + ".")
		}
	}
	return nil
}

// Stats are figures for metrics and the demo.
type Stats struct {
	Queued, Ready, Deferred, Held, Failed, InFlight int64
	Accepted, Delivered, Deferrals, Failures        uint64            // since start
	Regions                                         map[string]uint64 // Delivered by the items' region
	Destinations                                    int
	OldestReady                                     *time.Time
}

// Stats counts items; Delivered and Failures count recipients.
func (q *Queue) Stats() Stats {
	q.mu.Lock()
	defer q.mu.Unlock()
	f := q.figures
	s := Stats{
		Accepted: f.accepted, Delivered: f.delivered, Deferrals: f.deferrals, Failures: f.failures,
		Regions: maps.Clone(q.regions), InFlight: int64(q.leased),
	}
	var oldest int64
	for _, d := range q.dests {
		if len(d.lanes) > 0 || d.state != up {
			s.Destinations++
		}
		for _, l := range d.lanes {
			s.Ready += l.n[storedReady]
			s.Deferred += l.n[storedDeferred]
			s.Held += l.n[storedHeld]
			s.Failed += l.n[storedFailed]
			if o := l.eldest(); o != 0 && (oldest == 0 || o < oldest) {
				oldest = o
			}
		}
	}
	s.Queued = s.Ready + s.Deferred
	if oldest != 0 {
		s.OldestReady = pointer(fromMicros(oldest))
	}
	return s
}
