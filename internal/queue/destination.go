package queue

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/mail"
	"github.com/sallyport-mail/sallyport/internal/store"
)

// States of a destination.
const (
	up      = "up"
	down    = "down"    // its host does not answer: probes at growing distance
	stopped = "stopped" // it refuses us as such: its mail is kept, somebody must act
)

// Why a destination is in trouble.
const (
	causeHost     = "host"
	causeReply    = "reply"    // a reply that is about the route
	causeRefusals = "refusals" // every recipient of several messages in a row
)

// Beginnings of the keys of destinations on the internet, which are many
// tenants': an MX set, or a domain whose MX set is not known yet.
const (
	internetMX     = "mx:"
	internetDomain = "domain:"
)

func isInternet(destination string) bool {
	return strings.HasPrefix(destination, internetMX) || strings.HasPrefix(destination, internetDomain)
}

// destination is a place that items go to, with its back-off.
type destination struct {
	key     string
	lanes   map[string]*lane
	active  fifo[lane] // lanes with due items, in turn
	slots   int        // connections
	asking  int        // of them, those that look for an item
	idle    []*Slot    // of those, the ones that wait in Next
	running bool       // is in the list of destinations that want a slot
	alarm   alarm      // for the next try, or the end of a pause

	trouble
	dirty   bool // trouble has changed and is to be written
	probe   *Slot
	pause   int64 // no new slot before
	skips   int   // slots that could not be used, in a row
	room    float64
	good    time.Time // of the last success
	losses  int       // sessions lost amid data, in a row
	refused streak
	known   acquainted
}

// trouble is what the row of a destination says.
type trouble struct {
	state    string
	cause    string
	reason   string
	failures int
	nextTry  time.Time
	since    time.Time
}

// streak is the messages refused for every recipient, since one was not.
type streak struct {
	ids     []string
	tenants map[string]bool
}

func (q *Queue) destination(k string) *destination {
	d := q.dests[k]
	if d == nil {
		d = &destination{key: k, lanes: map[string]*lane{}, trouble: trouble{state: up}, room: float64(q.limit(k))}
		d.alarm = alarm{at: never, fire: func() { q.poke(d) }}
		q.dests[k] = d
	}
	return d
}

// forget drops a destination that has nothing to remember. That a tenant's
// route worked is remembered for a while, to know when it suddenly does not.
func (q *Queue) forget(d *destination) {
	if !isInternet(d.key) && q.now().Sub(d.good) < suddenly {
		return
	}
	if len(d.lanes) == 0 && d.slots == 0 && d.state == up && !d.running {
		q.setAlarm(&d.alarm, never)
		delete(q.dests, d.key)
	}
}

func (q *Queue) limit(k string) int {
	const usual = 20
	if q.c.Limit == nil {
		return usual
	}
	return max(1, q.c.Limit(k))
}

// ready reports whether more than n items can be leased.
func (q *Queue) ready(d *destination, n int) bool {
	now := q.now().UnixMicro()
	for _, l := range d.active.all() {
		if q.stops.tenant(l.tenant) {
			continue
		}
		if n -= l.due(now, n+1); n < 0 {
			return true
		}
	}
	return false
}

// wants reports whether the destination should have one more slot now.
func (q *Queue) wants(d *destination) bool {
	if q.stops.outbound && isInternet(d.key) {
		return false
	}
	now := q.now()
	if d.pause > now.UnixMicro() {
		q.setAlarm(&d.alarm, d.pause)
		return false
	}
	if d.state != up {
		if d.probe != nil || !q.ready(d, 0) {
			return false
		}
		if now.Before(d.nextTry) {
			q.setAlarm(&d.alarm, d.nextTry.UnixMicro())
			return false
		}
		return true
	}
	return d.slots < min(q.limit(d.key), int(d.room)) && q.ready(d, d.asking)
}

// poke looks at a destination again: items have come, a slot was given back,
// or its trouble is over.
func (q *Queue) poke(d *destination) {
	if d.state == up {
		for n := 0; len(d.idle) > 0 && q.ready(d, n); n++ {
			d.idle[0].wake <- struct{}{}
			d.idle = slices.Delete(d.idle, 0, 1)
		}
	}
	if !d.running && q.wants(d) {
		d.running = true
		q.run.push(d)
	}
	q.match()
}

// dismiss ends the waiting of every idle slot of a destination.
func (d *destination) dismiss() {
	for _, s := range d.idle {
		s.wake <- struct{}{}
	}
	d.idle = nil
}

// backoff is the distance of the nth probe. A host that is away is soon asked
// again: it may only have been restarted, and a probe costs one connection.
func backoff(cause string, n int) time.Duration {
	first, most := 5*time.Second, 30*time.Minute
	if cause != causeHost {
		first = 5 * time.Minute
	}
	return jitter(min(most, first<<min(n-1, 10)))
}

// jitter spreads what would otherwise come at the same time, by a tenth each
// way.
func jitter(d time.Duration) time.Duration {
	return d - d/10 + rand.N(d/5+1)
}

// trip puts a destination into trouble, or deeper into it.
func (q *Queue) trip(d *destination, state, cause, reason string) {
	now := q.now()
	if d.state != state {
		d.since = now
	}
	if d.state == up {
		d.failures = 0
	}
	d.state, d.cause, d.reason = state, cause, clean(reason)
	d.failures++
	d.nextTry = q.probes.next(now.Add(backoff(cause, d.failures)))
	d.dirty = true
	d.losses, d.refused = 0, streak{}
	d.room = float64(q.limit(d.key))
	d.dismiss()
	for _, l := range d.lanes {
		q.shrink(l)
	}
	q.setAlarm(&d.alarm, d.nextTry.UnixMicro())
	level := slog.LevelDebug
	if d.failures == 1 {
		level = slog.LevelWarn
	}
	q.log.Log(context.Background(), level, "destination in trouble", "destination", d.key, "state", state, "cause", cause, "reason", d.reason,
		"failures", d.failures, "next_try", d.nextTry)
}

// shrink gives back the memory that envelopes and bodies of a lane take that
// is not going to need them soon.
func (q *Queue) shrink(l *lane) {
	for i := range l.fresh.list {
		q.uncache(&l.fresh.list[i])
	}
	for i := range l.putOff.list {
		q.uncache(&l.putOff.list[i])
	}
}

// recover ends a destination's trouble.
func (q *Queue) recover(d *destination, why string) {
	if d.state == up {
		return
	}
	q.log.Info("destination is back", "destination", d.key, "was", d.state, "since", d.since, "why", why)
	d.trouble = trouble{state: up}
	d.dirty = true
	d.losses, d.refused, d.pause = 0, streak{}, 0
	q.setAlarm(&d.alarm, never)
	q.poke(d)
}

// save writes what a destination's trouble is at this moment: two reports that
// overtake each other both write the newest.
func (q *Queue) save(tx store.RoadTx, d *destination) error {
	q.mu.Lock()
	t := d.trouble
	d.dirty = false
	q.mu.Unlock()
	var err error
	if t.state == up {
		_, err = tx.Exec(deleteDestination, d.key)
	} else {
		_, err = tx.Exec(upsertDestination, d.key, t.state, t.cause, t.reason, t.failures, micros(t.nextTry), micros(t.since))
	}
	return err
}

// Destination is a destination's state, for the api and for alarms.
type Destination struct {
	Key      string     `json:"destination"`
	State    string     `json:"state"` // "up", "down" (host), "stopped" (route),
	Reason   string     `json:"reason"`
	Queued   int64      `json:"queued"`
	InFlight int        `json:"in_flight"`
	NextTry  *time.Time `json:"next_try"`
	Oldest   *time.Time `json:"oldest"`
	Since    *time.Time `json:"since"` // of the state
}

// Destinations lists those that have items or are in trouble; with a tenant,
// those that have his items, and their figures count only his.
func (q *Queue) Destinations(ctx context.Context, tenant string) ([]Destination, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	list := []Destination{}
	for _, d := range q.dests {
		if (tenant != "" && d.lanes[tenant] == nil) || (d.state == up && len(d.lanes) == 0) {
			continue
		}
		list = append(list, d.show(tenant))
	}
	slices.SortFunc(list, func(a, b Destination) int { return strings.Compare(a.Key, b.Key) })
	return list, nil
}

func (d *destination) show(tenant string) Destination {
	x := Destination{Key: d.key, State: d.state, Reason: d.reason}
	if d.state != up {
		x.NextTry, x.Since = pointer(d.nextTry), pointer(d.since)
	}
	var oldest int64
	for name, l := range d.lanes {
		if tenant != "" && name != tenant {
			continue
		}
		x.Queued += l.waiting()
		x.InFlight += l.internal
		if o := l.eldest(); o != 0 && (oldest == 0 || o < oldest) {
			oldest = o
		}
	}
	if oldest != 0 {
		x.Oldest = pointer(fromMicros(oldest))
	}
	return x
}

// eldest is when the lane's oldest ready item came, as far as memory knows.
func (l *lane) eldest() int64 {
	if h := l.fresh.head(); h != nil {
		return h.due
	}
	if l.n[storedReady] > 0 {
		return l.oldest
	}
	return 0
}

func pointer(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

// Resume ends a destination's stop or back-off at once.
func (q *Queue) Resume(ctx context.Context, actor, destination string) error {
	q.mu.Lock()
	d := q.dests[destination]
	if d == nil {
		q.mu.Unlock()
		return fault.New(fault.Missing, "queue.Resume", "no mail for destination "+destination).
			WithHint("List the destinations to see their names.")
	}
	q.recover(d, "resumed by "+actor)
	q.mu.Unlock()
	err := q.road.Change(ctx, func(tx store.RoadTx) error { return q.save(tx, d) })
	return fault.Wrap(fault.KindOf(err), "queue.Resume", err)
}

// lost is our own words for a reply that did not come.
func lost(stage string) mail.Reply {
	return mail.Reply{Enhanced: "4.4.2", Text: "the connection was lost (" + stage + ")"}
}
