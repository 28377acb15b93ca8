package ledger

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/store"
)

const (
	maxGroup = 4096    // entries in one commit
	maxBytes = 4 << 20 // of leaves in one commit
)

// appends are the calls of Append that wait. All that wait when a commit ends
// share the next one; there is no timer, and an idle log starts at once.
type appends struct {
	mu      sync.Mutex
	waiting []*request
	working bool

	// The worker's own: a batch of which nobody knows whether it was committed.
	doubt []line
	after *frontier // the tree if it was
	// landed are the entries of such a batch that was, by their text without the
	// index: whoever was told that it failed may bring the same again.
	landed map[string]int64
}

// request is one call of Append.
type request struct {
	entries []Entry
	tails   [][]byte
	bytes   int
	state   atomic.Int32
	done    chan struct{}

	indexes []int64
	err     error
}

const (
	waiting int32 = iota
	started
	left // its caller has gone before it was started
)

// Append writes entries at the end of the log, all of them or none, and returns
// the index of the first when they are on disk. An entry with a key that the
// log has is not written; its index is the old one's. An error of kind later
// leaves open whether the entries are there, as when the database is lost in a
// commit and does not come back. Whoever gives entries a time may append the
// same again after it: those that are there are not written twice.
func (l *Ledger) Append(ctx context.Context, entries ...Entry) (int64, error) {
	indexes, err := l.AppendEach(ctx, entries)
	if err != nil {
		return 0, err
	}
	return indexes[0], nil
}

// AppendEach is Append that returns the index of each entry.
func (l *Ledger) AppendEach(ctx context.Context, entries []Entry) ([]int64, error) {
	r, err := l.prepare(entries)
	if err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, fault.Wrap(fault.Later, "ledger.Append", err)
	}
	q := &l.queue
	q.mu.Lock()
	q.waiting = append(q.waiting, r)
	start := !q.working
	q.working = true
	q.mu.Unlock()
	if start {
		go l.work()
	}
	select {
	case <-r.done:
	case <-ctx.Done():
		if r.state.CompareAndSwap(waiting, left) {
			return nil, fault.Wrap(fault.Later, "ledger.Append", ctx.Err())
		}
		<-r.done
	}
	return r.indexes, r.err
}

// prepare does what can be done before the indexes are known.
func (l *Ledger) prepare(entries []Entry) (*request, error) {
	if len(entries) == 0 || len(entries) > maxGroup {
		return nil, invalid(fmt.Sprintf("%d entries at once", len(entries)), fmt.Sprintf("Append 1 to %d.", maxGroup))
	}
	r := &request{entries: append([]Entry(nil), entries...), tails: make([][]byte, len(entries)), done: make(chan struct{})}
	size := l.Size()
	for i := range r.entries {
		e := &r.entries[i]
		if err := e.check(); err != nil {
			return nil, err
		}
		if e.Of != nil && (*e.Of < 0 || *e.Of >= size) {
			return nil, invalid(fmt.Sprintf("an outcome of the entry %d of %d", *e.Of, size), "Append the outcome after its act.")
		}
		if e.Time.IsZero() {
			e.Time = l.c.Now()
		}
		e.Time = e.Time.UTC().Truncate(1000) // microseconds, as the column has
		r.tails[i] = e.tail()
		r.bytes += len(r.tails[i])
	}
	if r.bytes > maxBytes {
		return nil, invalid("too much text at once", fmt.Sprintf("Append at most %d bytes.", maxBytes))
	}
	return r, nil
}

// work commits what waits until nothing does.
func (l *Ledger) work() {
	for {
		group := l.queue.take()
		if group == nil {
			return
		}
		err := l.commit(group)
		for _, r := range group {
			if r.err = err; err != nil {
				r.indexes = nil
			}
			close(r.done)
		}
	}
}

// take is the next group; nil when nothing waits, and then the worker ends.
func (q *appends) take() []*request {
	q.mu.Lock()
	defer q.mu.Unlock()
	var group []*request
	entries, bytes, n := 0, 0, 0
	for _, r := range q.waiting {
		if entries+len(r.entries) > maxGroup || bytes+r.bytes > maxBytes {
			break
		}
		n++
		if r.state.CompareAndSwap(waiting, started) {
			group = append(group, r)
			entries += len(r.entries)
			bytes += r.bytes
		}
	}
	q.waiting = q.waiting[:copy(q.waiting, q.waiting[n:])]
	if len(group) == 0 {
		q.working = false
		return nil
	}
	return group
}

// line is an entry on its way into the table.
type line struct {
	index int64
	e     *Entry
	hash  tlog.Hash
	tail  []byte // the leaf without its index
	leaf  []byte
}

// commit writes a group. What a caller's context says does not matter here:
// the group is of many.
func (l *Ledger) commit(group []*request) error {
	ctx := context.Background()
	if err := l.settle(ctx); err != nil {
		return err
	}
	next := l.committed().clone()
	lines, full, err := l.lay(ctx, group, next)
	if err != nil || len(lines) == 0 {
		return err
	}
	end, err := l.signTail(ctx, next)
	if err != nil {
		return err
	}
	err = l.door.Change(ctx, func(tx store.KeeperTx) error {
		if err := write(tx, lines, full); err != nil {
			return err
		}
		_, err := tx.Exec(upsertTail, end)
		return err
	})
	if err == nil {
		l.publish(next)
		return nil
	}
	l.queue.after, l.queue.doubt = next, lines
	// The database may answer again at once, and then it is known.
	ctx, cancel := context.WithTimeout(ctx, settleTime)
	defer cancel()
	if l.settle(ctx) == nil && l.committed() == next {
		l.queue.landed = nil // their callers are told
		return nil
	}
	return fault.Wrap(fault.Later, "ledger.Append", err)
}

// settleTime is how long a commit that failed is asked after.
const settleTime = 5 * time.Second

// lay gives each entry its index, and appends its hash to the tree.
func (l *Ledger) lay(ctx context.Context, group []*request, next *frontier) ([]line, []tile, error) {
	var lines []line
	var full []tile
	keys := map[string]int64{}
	for _, r := range group {
		r.indexes = make([]int64, len(r.entries))
		for i := range r.entries {
			e := &r.entries[i]
			index, have, err := l.byKey(ctx, keys, e.Key)
			if err != nil {
				return nil, nil, err
			}
			if have {
				r.indexes[i] = index
				continue
			}
			if index, have := l.queue.landed[string(r.tails[i])]; have {
				delete(l.queue.landed, string(r.tails[i]))
				r.indexes[i] = index
				continue
			}
			n := line{index: next.size, e: e, tail: r.tails[i], leaf: leaf(next.size, r.tails[i])}
			n.hash = tlog.RecordHash(n.leaf)
			r.indexes[i] = n.index
			if e.Key != "" {
				keys[e.Key] = n.index
			}
			lines = append(lines, n)
			full = append(full, next.push(n.hash)...)
		}
	}
	return lines, full, nil
}

// byKey finds the entry with a key, in this group or in the log. Nobody else
// writes, so that what is read before the commit is still so in it.
func (l *Ledger) byKey(ctx context.Context, group map[string]int64, key string) (int64, bool, error) {
	if key == "" {
		return 0, false, nil
	}
	if index, ok := group[key]; ok {
		return index, true, nil
	}
	var index int64
	err := store.Fault("ledger.Append", l.door.QueryRow(ctx, selectByKey, key).Scan(&index))
	if fault.Is(err, fault.Missing) {
		return 0, false, nil
	}
	return index, err == nil, err
}

// write inserts a group's rows. It may run twice.
func write(tx store.KeeperTx, lines []line, full []tile) error {
	const many = 8
	args := make([]any, 0, many*10)
	for len(lines) > 0 {
		n, q := 1, insertEntry
		if len(lines) >= many {
			n, q = many, insertEight
		}
		args = args[:0]
		for _, x := range lines[:n] {
			args = append(args, x.index, x.e.Time.UnixMicro(), x.e.Actor, x.e.Act, x.e.Tenant, x.e.Connection, x.e.Trace, x.e.Key, x.hash[:], x.leaf)
		}
		if _, err := tx.Exec(q, args...); err != nil {
			return err
		}
		lines = lines[n:]
	}
	for _, t := range full {
		if _, err := tx.Exec(insertTile, t.level, t.n, t.hashes); err != nil {
			return err
		}
	}
	return nil
}

// settle finds out what became of a commit that failed: it may have taken all
// the same. Rows that are neither it nor nothing are another writer's, and then
// this log appends no more: two trees would grow from one root.
func (l *Ledger) settle(ctx context.Context) error {
	if err := l.brokenErr(); err != nil || l.queue.doubt == nil {
		return err
	}
	found, err := l.beyond(ctx, l.committed().size, len(l.queue.doubt))
	if err != nil {
		return err
	}
	switch {
	case len(found) == 0:
	case same(found, l.queue.doubt):
		l.queue.land()
		l.publish(l.queue.after)
	default:
		err = fault.New(fault.Conflict, "ledger.Append", "somebody else writes to this ledger").
			WithHint("Run one keeper a region: stop the other one, then start this one anew.")
		l.mu.Lock()
		l.broken = err
		l.mu.Unlock()
		return err
	}
	l.queue.doubt, l.queue.after = nil, nil
	return nil
}

func (l *Ledger) brokenErr() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.broken
}

// beyond are the hashes of the entries from an index on, at most one more than
// there should be.
func (l *Ledger) beyond(ctx context.Context, from int64, n int) ([]tlog.Hash, error) {
	rows, err := l.door.Query(ctx, selectHashes, from, n+1)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var found []tlog.Hash
	for rows.Next() {
		var index int64
		var hash []byte
		if err := rows.Scan(&index, &hash); err != nil {
			return nil, store.Fault("ledger.Append", err)
		}
		var h tlog.Hash
		copy(h[:], hash)
		found = append(found, h)
	}
	return found, store.Fault("ledger.Append", rows.Err())
}

// land remembers a batch that is there though its callers were told that it
// failed.
func (q *appends) land() {
	q.landed = make(map[string]int64, len(q.doubt))
	for _, n := range q.doubt {
		q.landed[string(n.tail)] = n.index
	}
}

func same(found []tlog.Hash, lines []line) bool {
	if len(found) != len(lines) {
		return false
	}
	for i := range found {
		if found[i] != lines[i].hash {
			return false
		}
	}
	return true
}
