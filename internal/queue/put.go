package queue

import (
	"context"
	"errors"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/store"
	"github.com/sallyport-mail/sallyport/internal/trace"
)

// Put commits messages, with their bodies and first steps, in one durable
// write. Nothing of them is kept when it fails. Items may start Held, Failed
// or Deferred.
func (q *Queue) Put(ctx context.Context, ms []Message) error {
	q.clients.come()
	defer q.clients.leave()
	s, err := q.stage(ms)
	if err != nil {
		return err
	}
	q.mu.Lock()
	for _, it := range s.items {
		q.busy[it.ID] = &hand{entry: entry{id: it.ID}}
	}
	q.mu.Unlock()
	if err := q.road.Change(ctx, s.insert); err != nil {
		q.unput(s, err)
		return fault.Wrap(fault.KindOf(err), "queue.Put", err)
	}
	s.done(q)
	return nil
}

// staged is messages made ready to be written with a transaction.
type staged struct {
	messages []Message
	items    []*Item
	texts    []string
	events   []trace.Encoded
	shares   map[store.BodyRef]int // bodies with their number of items
	own      *store.Body           // a body of ours, to be discarded when all is over

	seqs []int64
}

// stage fills in what Put promises to fill in, and encodes.
func (q *Queue) stage(ms []Message) (*staged, error) {
	s := &staged{messages: ms}
	now := q.now()
	for i := range ms {
		m := &ms[i]
		if m.Summary.ID == "" {
			m.Summary.ID = q.ids.next(now)
		}
		if m.Summary.Tenant == "" || len(m.Items) > mostItems {
			return nil, fault.New(fault.Invalid, "queue.Put", "a message has no tenant, or too many items")
		}
		if m.Summary.ReceivedAt.IsZero() {
			m.Summary.ReceivedAt = now
		}
		if err := q.stageItems(s, m, now); err != nil {
			return nil, err
		}
		s.stageEvent(m)
	}
	for _, it := range s.items {
		it.shared = s.shares != nil && s.shares[it.Body] > 1
	}
	for _, it := range s.items {
		s.texts = append(s.texts, it.encode())
	}
	return s, nil
}

func (q *Queue) stageItems(s *staged, m *Message, now time.Time) error {
	for n := range m.Items {
		it := &m.Items[n]
		id, err := itemID(m.Summary.ID, n)
		if err != nil {
			return err
		}
		if len(it.Recipients) == 0 || it.Destination == "" {
			return fault.New(fault.Invalid, "queue.Put", "an item has no recipient or no destination")
		}
		it.ID, it.Message, it.Tenant, it.Body = id, m.Summary.ID, m.Summary.Tenant, m.Ref
		it.ReceivedAt = m.Summary.ReceivedAt
		it.Size = it.size()
		q.startState(it, now)
		if m.Body != nil {
			it.bytes = it.rest(m.Body.Bytes())
		}
		s.items = append(s.items, it)
	}
	if m.Ref.ID != "" && len(m.Items) > 0 {
		if s.shares == nil {
			s.shares = make(map[store.BodyRef]int, 1)
		}
		s.shares[m.Ref] += len(m.Items)
	}
	return nil
}

// startState is the state, the due time and the end of an item that begins.
func (q *Queue) startState(it *Item, now time.Time) {
	var want = rcptQueued
	switch it.State {
	case Held:
		it.Due = now
	case Failed:
		want = rcptFailed
		it.Due = now
		it.ExpiresAt = now.Add(q.keepFailed(it.Tenant))
	default:
		it.State = Ready
		if it.Due.After(now) {
			it.State = Deferred
		} else {
			it.Due = now
		}
	}
	if it.ExpiresAt.IsZero() {
		it.ExpiresAt = it.ReceivedAt.Add(q.expiry(it.Tenant))
	}
	for i := range it.Recipients {
		if it.Recipients[i].State == "" || it.State == Failed {
			it.Recipients[i].State = want
		}
	}
}

func (s *staged) stageEvent(m *Message) {
	var sum trace.Counts
	for i := range m.Items {
		c := counts(m.Items[i].State.stored(), m.Items[i].open())
		sum.Queued += c.Queued
		sum.Held += c.Held
		sum.Failed += c.Failed
	}
	summary := m.Summary
	s.events = append(s.events, trace.Encode(trace.Event{
		Tenant: summary.Tenant, ID: summary.ID, Message: &summary, Change: sum, Steps: m.Steps,
	}))
}

// insert writes everything in a transaction, which may be run twice.
func (s *staged) insert(tx store.RoadTx) error {
	if err := s.insertBodies(tx); err != nil {
		return err
	}
	for i, it := range s.items {
		if err := it.insert(tx, s.texts[i]); err != nil {
			return err
		}
	}
	s.seqs = s.seqs[:0]
	for _, e := range s.events {
		seq, err := e.Write(tx)
		if err != nil {
			return err
		}
		s.seqs = append(s.seqs, seq)
	}
	return nil
}

func (s *staged) insertBodies(tx store.RoadTx) error {
	written := 0
	for i := range s.messages {
		m := &s.messages[i]
		n := s.shares[m.Ref]
		if n == 0 || m.Body == nil || (written > 0 && s.before(i)) {
			continue
		}
		if err := tx.PutBody(m.Body, m.Ref); err != nil {
			return err
		}
		written++
		if n > 1 {
			if _, err := tx.Exec(insertShare, m.Ref.Tenant, m.Ref.ID, n); err != nil {
				return err
			}
		}
	}
	return nil
}

// before reports whether an earlier message has the same body reference.
func (s *staged) before(i int) bool {
	for j := range i {
		if s.messages[j].Ref == s.messages[i].Ref {
			return true
		}
	}
	return false
}

// done hands over to memory what has been committed.
func (s *staged) done(q *Queue) {
	events := make([]trace.Event, len(s.events))
	for i := range s.events {
		events[i] = s.events[i].Event
	}
	q.c.Trace.Committed(s.seqs, events)
	q.mu.Lock()
	for _, it := range s.items {
		delete(q.busy, it.ID)
		l := q.lane(it.Tenant, it.Destination)
		st := it.State.stored()
		l.n[st]++
		e := entry{id: it.ID, due: micros(it.Due), state: st}
		if st == storedReady && l.dest.state == up {
			own := *it // the caller's message is the caller's
			q.cache(&e, &own)
		}
		q.admit(l, e)
	}
	q.figures.accepted += uint64(len(s.messages))
	q.mu.Unlock()
	s.discard()
}

func (s *staged) discard() {
	if s.own != nil {
		s.own.Discard()
	}
}

// unput ends a Put that failed. When nobody knows whether the commit took, the
// rows may be there: they are then found by reading.
func (q *Queue) unput(s *staged, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, it := range s.items {
		delete(q.busy, it.ID)
	}
	if k := fault.KindOf(err); (k != fault.Later && k != fault.Internal) || errors.Is(err, context.Canceled) {
		return
	}
	q.c.Trace.Missed()
	for _, it := range s.items {
		q.recount(q.lane(it.Tenant, it.Destination))
	}
}
