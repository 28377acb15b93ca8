package trace

import (
	"context"
	"encoding/json"
	"log/slog"
	"sync"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/store"
)

const (
	pace       = 200 * time.Millisecond // how long a batch may grow
	fullBatch  = 1000                   // events moved in one commit
	mostHanded = 20000                  // events in memory before the mover counts as behind
)

// mover carries events from the road to the trace file.
//
// Its two commits are in two files. The first applies a batch and remembers
// its numbers in trace_moved, the second deletes the events from the road; the
// next batch then replaces that memory. A mover that comes up after a kill
// between the two finds the numbers and only deletes.
type mover struct {
	log         *slog.Logger
	road, trace store.RoadDoor
	turn        chan struct{} // holds the right to move
	kick, full  chan struct{}

	mu     sync.Mutex
	handed []handed
	behind bool // events on the road are in nobody's memory

	// Of whoever has the turn.
	recall bool               // what the last process or a failed commit applied is not known
	moved  map[int64]struct{} // applied, still on the road
	seen   map[int64]struct{} // read from the road while they might also be handed over
}

// handed is an event with its number.
type handed struct {
	seq int64
	Event
}

func (m *mover) init(c Config) {
	m.log = c.Log
	m.road, m.trace = c.Road.Road(), c.Trace.Road()
	m.turn, m.kick, m.full = make(chan struct{}, 1), make(chan struct{}, 1), make(chan struct{}, 1)
	m.behind, m.recall = true, true
	m.nudge()
}

func (m *mover) nudge() { signal(m.kick) }

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// hand takes events over. While the mover is behind they are left to be read
// from the road, and so they are when there are too many.
func (m *mover) hand(seqs []int64, events []Event) {
	m.mu.Lock()
	switch {
	case m.behind:
	case len(m.handed)+len(seqs) > mostHanded:
		m.behind, m.handed = true, nil
	default:
		for i, seq := range seqs {
			m.handed = append(m.handed, handed{seq, events[i]})
		}
	}
	n := len(m.handed)
	m.mu.Unlock()
	m.nudge()
	if n >= fullBatch {
		signal(m.full)
	}
}

// move moves everything that was committed before it was called.
func (m *mover) move(ctx context.Context) error {
	select {
	case m.turn <- struct{}{}:
		defer func() { <-m.turn }()
	case <-ctx.Done():
		return fault.Wrap(fault.Later, "trace.move", ctx.Err())
	}
	err := m.all(ctx)
	if err != nil {
		// Whether the failed commit took is not known: read both sides anew.
		m.recall = true
		m.setBehind(true)
	}
	return err
}

func (m *mover) all(ctx context.Context) error {
	if err := m.remember(ctx); err != nil {
		return err
	}
	for {
		if m.isBehind() {
			if err := m.catchUp(ctx); err != nil {
				return err
			}
		}
		batch, last := m.take()
		if err := m.apply(ctx, batch); err != nil {
			return err
		}
		if last && !m.isBehind() {
			return nil
		}
	}
}

// remember reads what was applied and may not have left the road.
func (m *mover) remember(ctx context.Context) error {
	if !m.recall {
		return nil
	}
	rows, err := m.trace.Query(ctx, selectMoved)
	if err != nil {
		return fault.Wrap(fault.KindOf(err), "trace.move", err)
	}
	defer rows.Close()
	m.moved = map[int64]struct{}{}
	for rows.Next() {
		var text string
		var seqs []int64
		if err := rows.Scan(&text); err != nil {
			return fault.Wrap(fault.Later, "trace.move", err)
		}
		if err := json.Unmarshal([]byte(text), &seqs); err != nil {
			return fault.Wrap(fault.Internal, "trace.move", err)
		}
		for _, s := range seqs {
			m.moved[s] = struct{}{}
		}
	}
	m.recall = rows.Err() != nil
	return fault.Wrap(fault.Later, "trace.move", rows.Err())
}

// catchUp empties the road by reading it, then goes over to what is handed
// over in memory: from the moment that hand keeps events again until the last
// read, an event may come both ways, so those that were read are remembered.
func (m *mover) catchUp(ctx context.Context) error {
	if err := m.drain(ctx); err != nil {
		return err
	}
	m.seen = map[int64]struct{}{}
	m.setBehind(false)
	return m.drain(ctx)
}

func (m *mover) drain(ctx context.Context) error {
	for {
		batch, err := m.read(ctx)
		if err != nil {
			return err
		}
		if err := m.apply(ctx, batch); err != nil {
			return err
		}
		if len(batch) < fullBatch {
			return nil
		}
	}
}

func (m *mover) read(ctx context.Context) ([]handed, error) {
	rows, err := m.road.Query(ctx, selectEvents, fullBatch)
	if err != nil {
		return nil, fault.Wrap(fault.KindOf(err), "trace.move", err)
	}
	defer rows.Close()
	var batch []handed
	for rows.Next() {
		var seq int64
		var tenant, message, text string
		if err := rows.Scan(&seq, &tenant, &message, &text); err != nil {
			return nil, fault.Wrap(fault.Later, "trace.move", err)
		}
		e, err := decode(tenant, message, text)
		if err != nil {
			// A damaged row must not stop the others: it counts as moved.
			m.log.Error("trace: an event cannot be read", "message", message, "error", err)
			e = Event{Tenant: tenant, ID: message}
		}
		batch = append(batch, handed{seq, e})
		if m.seen != nil {
			m.seen[seq] = struct{}{}
		}
	}
	return batch, fault.Wrap(fault.Later, "trace.move", rows.Err())
}

// take returns what was handed over, without what has been read meanwhile.
func (m *mover) take() (batch []handed, last bool) {
	m.mu.Lock()
	n := min(len(m.handed), fullBatch)
	batch = m.handed[:n:n]
	m.handed = m.handed[n:]
	last = len(m.handed) == 0
	m.mu.Unlock()
	if len(m.seen) > 0 {
		fresh := make([]handed, 0, n)
		for _, h := range batch {
			if _, twice := m.seen[h.seq]; !twice {
				fresh = append(fresh, h)
			}
		}
		batch = fresh
	}
	return batch, last
}

func (m *mover) isBehind() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.behind
}

func (m *mover) setBehind(b bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.behind, m.handed = b, nil
}

// apply brings one batch into the trace file and then off the road.
func (m *mover) apply(ctx context.Context, batch []handed) error {
	if len(batch) == 0 {
		return nil
	}
	seqs := make([]int64, len(batch))
	fresh := make([]handed, 0, len(batch))
	for i, h := range batch {
		seqs[i] = h.seq
		if _, done := m.moved[h.seq]; !done {
			fresh = append(fresh, h)
		}
	}
	if len(fresh) > 0 {
		if err := m.record(ctx, fresh, seqs); err != nil {
			return err
		}
	}
	if err := m.forget(ctx, seqs); err != nil {
		return err
	}
	for _, s := range seqs {
		delete(m.moved, s)
	}
	return nil
}

// record is the commit in the trace file. It replaces the memory of earlier
// batches, which have left the road, but for those that were found at the
// start and have not been met yet.
func (m *mover) record(ctx context.Context, batch []handed, seqs []int64) error {
	rows := join(batch)
	for s := range m.moved {
		seqs = append(seqs, s)
	}
	memory, err := json.Marshal(seqs)
	if err != nil {
		return fault.Wrap(fault.Internal, "trace.move", err)
	}
	err = m.trace.Change(ctx, func(tx store.RoadTx) error {
		if _, err := tx.Exec(clearMoved); err != nil {
			return err
		}
		if _, err := tx.Exec(insertMoved, seqs[0], string(memory)); err != nil {
			return err
		}
		for _, r := range rows {
			if err := r.write(tx); err != nil {
				return err
			}
		}
		return nil
	})
	return fault.Wrap(fault.KindOf(err), "trace.move", err)
}

// forget is the commit on the road.
func (m *mover) forget(ctx context.Context, seqs []int64) error {
	err := m.road.Background(ctx, func(tx store.RoadTx) error {
		for at := 0; at < len(seqs); at += deleteBatch {
			if _, err := tx.Exec(deleteEvents, named(seqs[at:])...); err != nil {
				return err
			}
		}
		return nil
	})
	return fault.Wrap(fault.KindOf(err), "trace.move", err)
}

// named is the arguments of deleteEvents.
func named(seqs []int64) []any {
	args := make([]any, deleteBatch)
	for i := range args {
		args[i] = seqs[min(i, len(seqs)-1)]
	}
	return args
}
