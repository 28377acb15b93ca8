package queue

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
)

// load reads what a start needs: switches, troubles, and how many items each
// lane has in which state. Lanes are found by skipping along the index.
func (q *Queue) load(ctx context.Context) error {
	if err := q.loadStops(ctx); err != nil {
		return err
	}
	if err := q.loadTroubles(ctx); err != nil {
		return err
	}
	var tenant, destination string
	for {
		err := q.road.QueryRow(ctx, nextLane, tenant, destination).Scan(&tenant, &destination)
		if errors.Is(err, sql.ErrNoRows) {
			return nil
		}
		if err != nil {
			return fault.Wrap(fault.KindOf(err), "queue.load", err)
		}
		if err := q.count(ctx, tenant, destination); err != nil {
			return err
		}
	}
}

// count sets a lane's figures from disk and has its windows filled.
func (q *Queue) count(ctx context.Context, tenant, destination string) error {
	rows, err := q.road.Query(ctx, countLane, tenant, destination)
	if err != nil {
		return fault.Wrap(fault.KindOf(err), "queue.load", err)
	}
	defer rows.Close()
	var n [5]int64
	var oldest int64
	for rows.Next() {
		var s stored
		var count, due int64
		if err := rows.Scan(&s, &count, &due); err != nil {
			return fault.Wrap(fault.Later, "queue.load", err)
		}
		if int(s) < len(n) {
			n[s] = count
		}
		if s == storedReady {
			oldest = due
		}
	}
	if err := rows.Err(); err != nil {
		return fault.Wrap(fault.Later, "queue.load", err)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	l := q.lane(tenant, destination)
	l.n, l.oldest = n, oldest
	for _, w := range []*window{&l.fresh, &l.putOff} {
		if n[w.state] > 0 && !w.more {
			q.distrust(w)
		}
	}
	return nil
}

// recount has a lane's figures and windows read anew.
func (q *Queue) recount(l *lane) {
	q.recounts.push(l)
	signal(q.refillKick)
}

func (q *Queue) loadTroubles(ctx context.Context) error {
	rows, err := q.road.Query(ctx, selectDestinations)
	if err != nil {
		return fault.Wrap(fault.KindOf(err), "queue.load", err)
	}
	defer rows.Close()
	q.mu.Lock()
	defer q.mu.Unlock()
	for rows.Next() {
		var k string
		var t trouble
		var nextTry, since int64
		if err := rows.Scan(&k, &t.state, &t.cause, &t.reason, &t.failures, &nextTry, &since); err != nil {
			return fault.Wrap(fault.Later, "queue.load", err)
		}
		t.nextTry, t.since = fromMicros(nextTry), fromMicros(since)
		if now := q.now(); t.nextTry.Before(now) {
			t.nextTry = q.probes.next(now)
		}
		q.destination(k).trouble = t
	}
	return fault.Wrap(fault.Later, "queue.load", rows.Err())
}

// fill is a worker that reads windows from disk.
func (q *Queue) fill(ctx context.Context) {
	for {
		q.mu.Lock()
		l, w := q.recounts.pop(), (*window)(nil)
		if l == nil {
			w = q.refills.pop()
		}
		more := q.refills.len()+q.recounts.len() > 0
		q.mu.Unlock()
		if more {
			signal(q.refillKick)
		}
		var err error
		switch {
		case l != nil:
			err = q.countAgain(ctx, l)
		case w != nil:
			err = q.refill(ctx, w)
		default:
			select {
			case <-ctx.Done():
				return
			case <-q.refillKick:
			}
			continue
		}
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			q.log.Warn("the queue cannot be read", "error", err)
			pause(ctx, time.Second)
		}
	}
}

func (q *Queue) countAgain(ctx context.Context, l *lane) error {
	err := q.count(ctx, l.tenant, l.dest.key)
	q.mu.Lock()
	defer q.mu.Unlock()
	l = q.lane(l.tenant, l.dest.key) // the lane may have been forgotten meanwhile
	if err != nil {
		q.recount(l)
		return err
	}
	q.distrust(&l.fresh)
	q.distrust(&l.putOff)
	return nil
}

// refill reads a window's next items.
func (q *Queue) refill(ctx context.Context, w *window) error {
	q.mu.Lock()
	l, edge := w.lane, w.edge
	want := max(1, q.share(l.dest)-len(w.list))
	q.mu.Unlock()
	rows, err := q.readKeys(ctx, l, w.state, edge, want)
	q.mu.Lock()
	defer q.mu.Unlock()
	if err != nil {
		w.loading = false
		q.askRefill(w)
		return err
	}
	q.filled(w, rows, len(rows) < want)
	q.stir(l)
	q.leave(l)
	return nil
}

func (q *Queue) readKeys(ctx context.Context, l *lane, s stored, edge key, want int) ([]entry, error) {
	rows, err := q.road.Query(ctx, refillRow, l.tenant, l.dest.key, int(s), edge.due, edge.id, want)
	if err != nil {
		return nil, fault.Wrap(fault.KindOf(err), "queue.refill", err)
	}
	defer rows.Close()
	list := make([]entry, 0, want)
	for rows.Next() {
		e := entry{state: s}
		if err := rows.Scan(&e.id, &e.due); err != nil {
			return nil, fault.Wrap(fault.Later, "queue.refill", err)
		}
		list = append(list, e)
	}
	return list, fault.Wrap(fault.Later, "queue.refill", rows.Err())
}
