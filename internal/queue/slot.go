package queue

import (
	"context"
	"database/sql"
	"errors"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
)

// Slot is the right to use one connection to a destination.
type Slot struct {
	Destination string
	Probe       bool // the destination is down: this slot gets one item

	q      *Queue
	dest   *destination
	asking bool
	served int
	over   bool
	spent  bool // told to leave: nothing could be tried through it
	wake   chan struct{}
}

// hand is a lease: an item that somebody holds, or that is on its way to disk
// (slot nil).
type hand struct {
	lane  *lane
	entry entry
	slot  *Slot
	began time.Time
	item  *Item
}

// Slot waits for a destination that has items to deliver and room for one more
// connection; fair between destinations.
func (q *Queue) Slot(ctx context.Context) (*Slot, error) {
	c := make(chan *Slot, 1)
	q.mu.Lock()
	q.callers = append(q.callers, c)
	q.match()
	q.mu.Unlock()
	select {
	case s := <-c: // also when ctx has ended, if there is one at once
		return s, nil
	default:
	}
	select {
	case s := <-c:
		return s, nil
	case <-ctx.Done():
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if i := slices.Index(q.callers, c); i >= 0 {
		q.callers = slices.Delete(q.callers, i, i+1)
	} else {
		q.giveBack(<-c) // it was given in the same moment
	}
	return nil, fault.Wrap(fault.Later, "queue.Slot", ctx.Err())
}

// match gives slots to callers, one destination after the other.
func (q *Queue) match() {
	for len(q.callers) > 0 && q.used < q.c.Slots {
		d := q.run.pop()
		if d == nil {
			return
		}
		d.running = false
		if !q.wants(d) {
			q.forget(d)
			continue
		}
		s := &Slot{Destination: d.key, q: q, dest: d, asking: true, wake: make(chan struct{}, 1)}
		d.slots++
		d.asking++
		q.used++
		if d.state != up {
			s.Probe = true
			d.probe = s
		}
		q.callers[0] <- s
		q.callers = slices.Delete(q.callers, 0, 1)
		if q.wants(d) {
			d.running = true
			q.run.push(d)
		}
	}
}

// Release gives the slot back. Items that it still holds stay leased until
// they are reported.
func (s *Slot) Release() {
	s.q.mu.Lock()
	defer s.q.mu.Unlock()
	s.q.giveBack(s)
}

func (q *Queue) giveBack(s *Slot) {
	if s.over {
		return
	}
	s.over = true
	s.stopAsking()
	s.dest.slots--
	q.used--
	if s.dest.probe == s && s.served == 0 {
		s.dest.probe = nil
	}
	q.poke(s.dest)
	q.forget(s.dest)
}

func (s *Slot) stopAsking() {
	if s.asking {
		s.asking = false
		s.dest.asking--
	}
}

// leaves reports whether the slot is to be given back rather than used on.
func (s *Slot) leaves() bool {
	const fair = 20 // messages before somebody else has a turn
	d := s.dest
	switch {
	case s.over, s.spent:
		return true
	case s.Probe && d.probe == s && d.state != up:
		return s.served > 0
	case d.state != up, s.q.stops.outbound && isInternet(d.key):
		return true
	case d.slots > max(1, int(d.room)):
		return true
	}
	return s.served >= fair && s.q.used >= s.q.c.Slots && s.q.run.len() > 0
}

// Next leases the destination's next item, fair between tenants, oldest first
// within one. It waits up to idle for one to come; ok is false when none did,
// or when the destination has been stopped or is to be left.
func (s *Slot) Next(ctx context.Context, idle time.Duration) (it *Item, ok bool) {
	q := s.q
	var timer *time.Timer
	for {
		q.mu.Lock()
		if s.leaves() || ctx.Err() != nil {
			s.stopAsking()
			q.mu.Unlock()
			return nil, false
		}
		if !s.asking {
			s.asking = true
			s.dest.asking++
		}
		h := q.lease(s)
		if h == nil {
			s.dest.idle = append(s.dest.idle, s)
		}
		q.mu.Unlock()
		if h != nil {
			if it := q.prepare(ctx, h); it != nil {
				return it, true
			}
			continue
		}
		if timer == nil {
			timer = time.NewTimer(idle)
			defer timer.Stop()
		}
		select {
		case <-s.wake:
			continue
		case <-timer.C:
		case <-ctx.Done():
		}
		if !s.wakeless() {
			continue // it was woken in the same moment
		}
		return nil, false
	}
}

// wakeless ends the waiting of a slot that nobody woke.
func (s *Slot) wakeless() bool {
	s.q.mu.Lock()
	defer s.q.mu.Unlock()
	i := slices.Index(s.dest.idle, s)
	if i < 0 {
		<-s.wake
		return false
	}
	s.dest.idle = slices.Delete(s.dest.idle, i, i+1)
	s.stopAsking()
	return true
}

// lease takes the next due item out of the windows: one lane after the other.
func (q *Queue) lease(s *Slot) *hand {
	now := q.now().UnixMicro()
	d := s.dest
	for l := d.active.pop(); l != nil; l = d.active.pop() {
		w := l.first(now)
		if w == nil || q.stops.tenant(l.tenant) {
			l.active = false
			q.stir(l)
			continue
		}
		n := 0
		if s.Probe && d.cause == causeRefusals {
			// One refused message says nothing about the route: ask with another.
			n = rand.IntN(l.window(w.state).dueIn(now))
		}
		h := &hand{lane: l, entry: q.take(w, n), slot: s, began: q.now()}
		q.busy[h.entry.id] = h
		q.leased++
		l.internal++
		s.served++
		s.stopAsking()
		if l.first(now) != nil {
			d.active.push(l)
		} else {
			l.active = false
			q.stir(l)
		}
		if len(d.idle) > 0 || !d.running {
			q.poke(d)
		}
		return h
	}
	return nil
}

// dueIn is how many items at the head of the window are due.
func (w *window) dueIn(now int64) int {
	n := 0
	for n < len(w.list) && w.list[n].due <= now {
		n++
	}
	return max(1, n)
}

// prepare makes a leased item ready for its holder: its envelope is read when
// it is not in memory, and the stop switches are asked. nil means: take
// another.
func (q *Queue) prepare(ctx context.Context, h *hand) *Item {
	if h.entry.item == nil {
		it, err := scanItem(q.c.Store.Road.For(h.lane.tenant).Get(ctx, selectItem, h.entry.id))
		switch {
		case errors.Is(err, sql.ErrNoRows) || (err == nil && (it.State.stored() != h.entry.state || micros(it.Due) != h.entry.due)):
			q.unhand(h, false) // the window was behind the disk
			return nil
		case err != nil:
			if ctx.Err() == nil {
				q.log.Warn("an item cannot be read", "item", h.entry.id, "error", err)
			}
			q.mu.Lock()
			h.lane.dest.pause = q.now().Add(time.Second).UnixMicro()
			h.slot.spent = true
			q.mu.Unlock()
			q.unhand(h, true)
			return nil
		}
		h.item = it
	} else {
		h.item = h.entry.item
	}
	if reason, stop := q.stopFor(h.item); stop {
		q.holdLeased(ctx, h, reason)
		return nil
	}
	h.item.State = Leased
	return h.item
}

// unhand ends a lease without a word: the item goes back to where it was, or
// (back false) is not there any more.
func (q *Queue) unhand(h *hand, back bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.letGo(h)
	if back {
		q.admit(h.lane, h.entry)
	}
	q.leave(h.lane)
}

// letGo takes an item out of its holder's hands. The caller then admits it, or
// it is gone.
func (q *Queue) letGo(h *hand) {
	delete(q.busy, h.entry.id)
	h.lane.internal--
	if h.slot != nil {
		q.leased--
		if d := h.lane.dest; d.probe == h.slot {
			d.probe = nil
		}
	}
}
