package queue

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/trace"
)

const (
	walkPage  = 500
	walkPause = 30 * time.Millisecond // between pages
	walkEvery = 15 * time.Second      // between rounds, at least
	walkBatch = 200                   // items in one commit, at most
	highest   = "ZZZZZZZZZZZZZZZZZZZZZZZZZZ"
)

// walk goes round all items at a slow pace, in the order of their ids, and
// does what time asks for: it ends what is overdue, tells senders of delay,
// and removes failed items past their retention. No index is kept for any of
// that: every message would have to pay for it.
func (q *Queue) walk(ctx context.Context) {
	for ctx.Err() == nil {
		began := time.Now()
		if err := q.round(ctx, walkPause); err != nil && ctx.Err() == nil {
			q.log.Warn("the round of overdue mail was not finished", "error", err)
		}
		q.forgetIdle()
		pause(ctx, max(walkEvery, 4*time.Since(began)))
	}
}

// round is one walk over all items. Those that were in somebody's hands are
// looked at once more at its end: the next round may be minutes away.
func (q *Queue) round(ctx context.Context, rest time.Duration) error {
	p := newPieces(walkBatch)
	var held []row
	for at := ""; ; {
		rows, err := q.readRows(ctx, rangeRows, at, highest, walkPage)
		if err != nil {
			return err
		}
		busy, err := q.visit(ctx, rows, p)
		if err != nil {
			return err
		}
		if len(held) < walkPage {
			held = append(held, busy...)
		}
		if len(rows) < walkPage {
			pause(ctx, rest)
			_, err := q.visit(ctx, held, p)
			return err
		}
		at = afterID(rows[len(rows)-1].id)
		pause(ctx, rest)
		if err := ctx.Err(); err != nil {
			return fault.Wrap(fault.Later, "queue.walk", err)
		}
	}
}

// forgetIdle drops what is remembered of destinations that are long idle.
func (q *Queue) forgetIdle() {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, d := range q.dests {
		q.forget(d)
	}
	q.probes.forget(q.now())
}

// visit does what the time asks for with those of a page that it asks, and
// returns those of them that are in somebody's hands.
func (q *Queue) visit(ctx context.Context, rows []row, p *pieces) (busy []row, err error) {
	now := q.now()
	var batch []*record
	began := time.Now()
	flush := func() error {
		if len(batch) == 0 {
			return nil
		}
		worked := time.Since(began) // without the wait for the writer
		took, err := q.writeBehind(ctx, batch)
		if err != nil {
			q.drop(batch)
		}
		p.learn(len(batch), took)
		batch = batch[:0:0]
		q.giveWay(ctx, worked+took)
		began = time.Now()
		return err
	}
	for i := range rows {
		if !q.calls(&rows[i], now) {
			continue
		}
		if q.inHands(rows[i].id) {
			busy = append(busy, rows[i])
			continue
		}
		r, err := q.timely(ctx, &rows[i], now)
		if err != nil {
			return busy, errors.Join(err, flush())
		}
		if r == nil {
			continue
		}
		if batch = append(batch, r); len(batch) >= p.most {
			if err := flush(); err != nil {
				return busy, err
			}
		}
	}
	return busy, flush()
}

func (q *Queue) inHands(id string) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	_, busy := q.busy[id]
	return busy
}

// drop gives back items that could not be written.
func (q *Queue) drop(batch []*record) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, r := range batch {
		for _, s := range r.notes {
			s.discard()
		}
		q.letGo(r.hand)
		q.recount(r.hand.lane)
	}
}

// calls reports whether the time asks for something.
func (q *Queue) calls(r *row, now time.Time) bool {
	switch {
	case r.state == storedFailed:
		return r.expires <= now.UnixMicro()
	case !r.state.waits():
		return false
	case r.expires <= now.UnixMicro():
		return true
	}
	return q.delayCalls(r, now)
}

func (q *Queue) delayCalls(r *row, now time.Time) bool {
	if r.flags&flagOwn == 0 || r.flags&flagTold != 0 {
		return false
	}
	notice := q.delayNotice(r.tenant)
	return notice > 0 && r.received <= now.Add(-notice).UnixMicro()
}

// timely claims an item and works out what the time does to it; nil when it is
// in somebody's hands or gone.
func (q *Queue) timely(ctx context.Context, at *row, now time.Time) (*record, error) {
	q.mu.Lock()
	if _, busy := q.busy[at.id]; busy {
		q.mu.Unlock()
		return nil, nil
	}
	h := q.seize(at.tenant, at.destination, entry{id: at.id, due: at.due, state: at.state})
	q.mu.Unlock()
	it, err := scanItem(q.c.Store.Road.For(at.tenant).Get(ctx, selectItem, at.id))
	if err != nil || it.State.stored() != at.state || micros(it.Due) != at.due {
		q.unhand(h, err != nil && !errors.Is(err, sql.ErrNoRows))
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return nil, fault.Wrap(fault.KindOf(err), "queue.walk", err)
		}
		return nil, nil
	}
	r := &record{hand: h, before: at.state, tries: it.Attempts, item: it}
	switch {
	case at.state == storedFailed:
		err = q.endKept(r, now)
	case at.expires <= now.UnixMicro():
		err = q.expire(ctx, r, now)
	default:
		err = q.delay(ctx, r, now)
	}
	if err != nil {
		q.unhand(h, true)
		return nil, err
	}
	r.encode()
	return r, nil
}

// expire ends an item whose time is over: what still waits has failed.
func (q *Queue) expire(ctx context.Context, r *record, now time.Time) error {
	it := r.item
	if d := r.hand.lane.dest; it.Last.Code == 0 && it.Last.Text == "" {
		q.mu.Lock()
		it.Last.Text = d.reason
		q.mu.Unlock()
	}
	for i := range it.Recipients {
		if r := &it.Recipients[i]; r.State == rcptQueued && r.Last.Code == 0 && r.Last.Text == "" {
			r.Last = it.Last
		}
	}
	failed := it.overdue()
	steps := []trace.Step{expiredStep(now)}
	if it.tellable() {
		told, err := q.tellFailure(ctx, it, failed, "", now)
		if err != nil {
			return err
		}
		r.note(told, &steps, now)
	}
	on := onBounce
	if it.kept() {
		on = onExpire
		it.Reason = "delivery time expired"
		it.ExpiresAt = now.Add(q.keepFailed(it.Tenant))
	}
	r.tally.failures = uint64(len(failed))
	r.event.Event = trace.Event{
		Tenant: it.Tenant, ID: it.Message, Steps: steps,
		Change: trace.Counts{Queued: -len(failed), Failed: len(failed)},
	}
	it.Due = now
	return r.turn(r.before.state(), on)
}

// endKept removes a failed item; its message stays failed.
func (q *Queue) endKept(r *record, now time.Time) error {
	text := "the kept copy was removed at the end of its retention"
	r.event.Event = trace.Event{
		Tenant: r.item.Tenant, ID: r.item.Message,
		Steps: []trace.Step{{Time: now, Step: "dropped", Text: &text}},
	}
	return r.turn(Failed, onEnd)
}

// delay tells the sender that his message waits; the item stays where it is.
func (q *Queue) delay(ctx context.Context, r *record, now time.Time) error {
	it := r.item
	var steps []trace.Step
	told, err := q.tellDelay(ctx, it, now)
	if err != nil {
		return err
	}
	r.note(told, &steps, now)
	it.told = true
	r.event.Event = trace.Event{Tenant: it.Tenant, ID: it.Message, Steps: steps}
	return nil
}
