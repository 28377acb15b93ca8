package queue

import (
	"context"
	"slices"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/mail"
	"github.com/sallyport-mail/sallyport/internal/store"
	"github.com/sallyport-mail/sallyport/internal/trace"
)

// Attempt is what an attempt on a leased item brought.
type Attempt struct {
	At      time.Time
	Peer    string // host and address that was talked to
	TLS     *trace.TLS
	Stage   string       // "resolve", "connect", "greeting", "hello", "tls", "auth", "mail", "rcpt", "data", "sent" (dot sent, no answer)
	Whole   *mail.Reply  // a reply that is everybody's: a failed connection, a refused MAIL, DATA or dot; a Code of 0 has our own words in Text
	Replies []mail.Reply // per recipient still queued, in order, when Whole is nil
	Skipped bool         // nothing was tried: give the item back as it was
	DSN     bool         // the next hop offers DSN: it tells of success itself (RFC 3461 4.2)
}

// Report ends a lease with what the attempt brought: classifies, transitions,
// writes item, event and notifications in one commit. It returns when that is
// durable. The destination's own state follows from it.
//
// When Report fails the outcome is not on disk yet. The item then stays leased
// and the queue goes on trying to write it, so it must not be reported again;
// the connection must not be given another final dot.
func (q *Queue) Report(ctx context.Context, it *Item, a Attempt) error {
	q.mu.Lock()
	h := q.busy[it.ID]
	if h == nil || h.slot == nil || h.item != it {
		q.mu.Unlock()
		return fault.New(fault.Conflict, "queue.Report", "item "+it.ID+" is not leased")
	}
	h.item = nil // one report a lease
	if a.Skipped {
		h.slot.spent = true
		h.lane.dest.skip(q.now())
		q.mu.Unlock()
		it.State = h.entry.state.state()
		q.unhand(h, true)
		return nil
	}
	q.mu.Unlock()
	if a.At.IsZero() {
		a.At = q.now()
	}
	r, err := q.resolve(ctx, h, it, a)
	if err == nil {
		err = q.write(ctx, []*record{r})
	}
	if err != nil {
		q.keepTrying(h, it, a, r)
		return fault.Wrap(fault.KindOf(err), "queue.Report", err)
	}
	return nil
}

// skip gives a destination no new slot for a while, because one could not be
// used: longer each time in a row, since those who wait for the same host may
// be thousands. The slots of one destination that find the same at the same
// time count once.
func (d *destination) skip(now time.Time) {
	const first, doublings = 250 * time.Millisecond, 5
	if now.UnixMicro() < d.pause {
		return
	}
	d.pause = now.Add(jitter(first << min(d.skips, doublings))).UnixMicro()
	d.skips++
}

// record is a change of one item, ready to be written.
type record struct {
	hand   *hand
	before stored
	tries  int   // attempts before
	item   *Item // as it will be; nil: the row stays as it is
	gone   bool  // the row goes
	text   string
	event  trace.Encoded
	notes  []*staged // notifications that go with it
	dest   *destination
	tally  tally

	seqs    []int64
	events  []trace.Event
	skipped bool // the row was not what it should have been: written before
}

// tally is what a record adds to the figures.
type tally struct{ delivered, deferrals, failures uint64 }

// resolve works out what an attempt changes.
func (q *Queue) resolve(ctx context.Context, h *hand, it *Item, a Attempt) (*record, error) {
	v := judge(a, it.waiting())
	dirty := q.learn(h, it, a, &v)
	r := &record{hand: h, before: h.entry.state, tries: it.Attempts}
	if dirty {
		r.dest = h.lane.dest
	}
	if v.count(stays) == len(v.effects) {
		r.event.Event = trace.Event{Tenant: it.Tenant, ID: it.Message, Steps: a.steps("attempt", it, v)}
		r.encode()
		return r, nil
	}
	n := *it
	n.Recipients = slices.Clone(it.Recipients)
	n.Attempts++
	n.Last, n.LastAt = v.last(), a.At
	r.item = &n
	failed := n.apply(v)
	steps := a.steps("", it, v)
	if err := q.conclude(ctx, r, v, failed, a, &steps); err != nil {
		return nil, err
	}
	r.event.Event.Tenant, r.event.Event.ID, r.event.Event.Steps = it.Tenant, it.Message, steps
	r.encode()
	return r, nil
}

// waiting is how many recipients of a leased item wait.
func (it *Item) waiting() int {
	n := 0
	for i := range it.Recipients {
		if it.Recipients[i].State == rcptQueued {
			n++
		}
	}
	return n
}

// last is the reply that the item shows.
func (v *verdict) last() mail.Reply {
	if v.worst.Code == 0 && v.worst.Text == "" && len(v.replies) > 0 {
		return v.replies[0]
	}
	return v.worst
}

// apply gives each waiting recipient what the verdict says, and returns those
// that were refused.
func (it *Item) apply(v verdict) (failed []int) {
	at := 0
	for i := range it.Recipients {
		r := &it.Recipients[i]
		if r.State != rcptQueued {
			continue
		}
		switch v.effects[at] {
		case delivered:
			r.State = rcptDelivered
		case refused:
			r.State = rcptFailed
			failed = append(failed, i)
		}
		r.Last = v.replies[at]
		at++
	}
	return failed
}

// conclude works out where the item goes: on, to its end, or to be kept as
// failed; and whom to tell.
func (q *Queue) conclude(ctx context.Context, r *record, v verdict, failed []int, a Attempt, steps *[]trace.Step) error {
	it := r.item
	now := q.now()
	waiting := it.waiting()
	if waiting > 0 && v.count(stays) == 0 && !now.Before(it.ExpiresAt) {
		failed = append(failed, it.overdue()...)
		*steps = append(*steps, expiredStep(now))
		waiting = 0
	}
	change := trace.Counts{Queued: waiting - len(v.effects), Delivered: v.count(delivered), Failed: len(failed)}
	r.tally.delivered = uint64(change.Delivered)
	r.tally.failures = uint64(len(failed))
	if len(failed) > 0 && it.tellable() {
		told, err := q.tellFailure(ctx, it, failed, a.Peer, now)
		if err != nil {
			return err
		}
		r.note(told, steps, now)
	}
	if v.count(delivered) > 0 && it.tellable() && !a.DSN {
		told, err := q.tellRelayed(ctx, it, a, now)
		if err != nil {
			return err
		}
		r.note(told, steps, now)
	}
	r.event.Event.Change = change
	on := onDeliver
	switch {
	case waiting > 0 && v.count(stays)+v.count(atOnce) > 0:
		on = onAgain
		it.Due = now
	case waiting > 0:
		on = onDefer
		it.Due = retryAt(it, now)
		r.tally.deferrals = 1
	case it.kept():
		on = onFail
		it.Due, it.ExpiresAt, it.Reason = now, now.Add(q.keepFailed(it.Tenant)), it.Last.String()
	case len(failed) > 0:
		on = onBounce
	}
	return r.turn(Leased, on)
}

// turn moves the record's item through the table of states.
func (r *record) turn(from State, on event) error {
	to, ok := next(from, on)
	if !ok {
		return fault.New(fault.Internal, "queue.turn", "an item that is "+string(from)+" cannot "+string(on))
	}
	r.item.State = to
	r.gone = to == absent
	return nil
}

// kept reports whether some recipient failed and nobody was told.
func (it *Item) kept() bool {
	return slices.ContainsFunc(it.Recipients, func(r Recipient) bool { return r.State == rcptFailed })
}

// overdue fails the recipients that still wait.
func (it *Item) overdue() (failed []int) {
	for i := range it.Recipients {
		if r := &it.Recipients[i]; r.State == rcptQueued {
			r.State = rcptFailed
			r.Last = overdueReply(r.Last)
			failed = append(failed, i)
		}
	}
	return failed
}

// overdueReply is the last reply in the frame of "delivery time expired"
// (RFC 3463 X.4.7), which is final whatever its class was.
func overdueReply(last mail.Reply) mail.Reply {
	text := "delivery time expired"
	if last.Code != 0 || last.Text != "" {
		text += "; the last answer was: " + last.String()
	}
	return mail.Reply{Enhanced: "5.4.7", Text: text}
}

// retryAt is when an item with a deferral of its own is tried again: after 5
// minutes, then twice as long each time, up to two hours, and once more when
// its time ends.
func retryAt(it *Item, now time.Time) time.Time {
	wait := jitter(min(2*time.Hour, 5*time.Minute<<min(max(it.Attempts-1, 0), 10)))
	at := now.Add(wait)
	if at.After(it.ExpiresAt) && now.Before(it.ExpiresAt) {
		return it.ExpiresAt
	}
	return at
}

func (r *record) note(s *staged, steps *[]trace.Step, now time.Time) {
	if s == nil {
		return
	}
	r.notes = append(r.notes, s)
	text := "notification " + s.messages[0].Summary.ID
	to := s.messages[0].Summary.To[0]
	*steps = append(*steps, trace.Step{Time: now, Step: "notified", Recipient: &to, Text: &text})
}

// encode makes what is written ready before the transaction.
func (r *record) encode() {
	if r.item != nil && !r.gone {
		r.text = r.item.encode()
	}
	r.event = trace.Encode(r.event.Event)
}

// write commits records in one transaction and then settles them in memory.
func (q *Queue) write(ctx context.Context, records []*record) error {
	// What has happened has happened, also when the deliverer is stopping.
	if err := q.road.Change(context.WithoutCancel(ctx), q.puts(records)); err != nil {
		return err
	}
	q.settleAll(records)
	return nil
}

// writeBehind is write for what nobody waits for.
func (q *Queue) writeBehind(ctx context.Context, records []*record) (took time.Duration, err error) {
	if took, err = q.piece(context.WithoutCancel(ctx), q.puts(records)); err == nil {
		q.settleAll(records)
	}
	return took, err
}

func (q *Queue) puts(records []*record) func(store.RoadTx) error {
	return func(tx store.RoadTx) error {
		for _, r := range records {
			if err := q.put(tx, r); err != nil {
				return err
			}
		}
		return nil
	}
}

func (q *Queue) settleAll(records []*record) {
	for _, r := range records {
		q.settle(r)
	}
}

func (q *Queue) put(tx store.RoadTx, r *record) error {
	r.seqs, r.events, r.skipped = r.seqs[:0], r.events[:0], false
	if r.item != nil {
		n, err := r.change(tx)
		if err != nil {
			return err
		}
		if r.skipped = n == 0; r.skipped {
			return nil
		}
	}
	for _, s := range r.notes {
		if err := s.insert(tx); err != nil {
			return err
		}
	}
	seq, err := r.event.Write(tx)
	if err != nil {
		return err
	}
	r.seqs, r.events = append(r.seqs, seq), append(r.events, r.event.Event)
	if r.dest != nil {
		return q.save(tx, r.dest)
	}
	return nil
}

func (r *record) change(tx store.RoadTx) (int64, error) {
	it := r.item
	if !r.gone {
		return tx.Exec(updateItem, it.ID, int(r.before), r.tries, int(it.State.stored()), micros(it.Due), micros(it.ExpiresAt),
			it.Attempts, it.open(), clean(it.Reason), it.flags(), r.text)
	}
	n, err := tx.Exec(deleteItem, it.ID, int(r.before), r.tries)
	if err != nil || n == 0 {
		return n, err
	}
	return n, dropBody(tx, it.Body, it.shared)
}

// dropBody lets go of an item's body: the last that shares it removes it.
func dropBody(tx store.RoadTx, ref store.BodyRef, shared bool) error {
	if ref.ID == "" {
		return nil
	}
	if shared {
		if _, err := tx.Exec(useShare, ref.Tenant, ref.ID); err != nil {
			return err
		}
		n, err := tx.Exec(endShare, ref.Tenant, ref.ID)
		if err != nil || n == 0 {
			return err
		}
	}
	return tx.DropBody(ref)
}

// settle brings a written record into memory and ends its lease.
func (q *Queue) settle(r *record) {
	q.c.Trace.Committed(r.seqs, r.events)
	for _, s := range r.notes {
		s.done(q)
	}
	h := r.hand
	q.mu.Lock()
	defer q.mu.Unlock()
	if n := r.tally.delivered; n > 0 {
		q.figures.delivered += n
		q.regions[r.item.Region] += n
	}
	q.figures.deferrals += r.tally.deferrals
	q.figures.failures += r.tally.failures
	q.letGo(h)
	switch {
	case r.skipped:
		q.c.Trace.Missed()
		q.recount(h.lane)
		q.distrust(h.lane.window(r.before))
	case r.item == nil:
		q.admit(h.lane, h.entry)
	case r.gone:
		q.uncache(&h.entry)
		h.lane.n[r.before]--
	default:
		q.uncache(&h.entry)
		to := r.item.State.stored()
		h.lane.n[r.before]--
		h.lane.n[to]++
		e := entry{id: r.item.ID, due: micros(r.item.Due), state: to}
		if to == storedReady {
			r.item.bytes = nil
			q.cache(&e, r.item)
		}
		q.admit(h.lane, e)
	}
	q.poke(h.lane.dest)
	q.leave(h.lane)
}

// unwritten is a report that is not on disk yet.
type unwritten struct {
	hand   *hand
	item   *Item
	at     Attempt
	record *record // nil when it could not even be worked out
}

func (q *Queue) keepTrying(h *hand, it *Item, a Attempt, r *record) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.late = append(q.late, unwritten{h, it, a, r})
	signal(q.lateKick)
}

// writeLate tries again to write what could not be written.
func (q *Queue) writeLate(ctx context.Context) error {
	q.mu.Lock()
	list := q.late
	q.late = nil
	q.mu.Unlock()
	for i, u := range list {
		var err error
		if u.record == nil {
			u.record, err = q.resolve(ctx, u.hand, u.item, u.at)
		}
		if err == nil {
			err = q.write(ctx, []*record{u.record})
		}
		if err != nil {
			q.mu.Lock()
			q.late = append(append([]unwritten{u}, list[i+1:]...), q.late...)
			q.mu.Unlock()
			return err
		}
	}
	return nil
}
