package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
)

const (
	maxBatch      = 256     // changes in one commit
	maxBatchBytes = 8 << 20 // body bytes in one commit
	// starved is how long background work waits at most while ordinary
	// changes keep coming: with pieces of 10 ms it then has at most a
	// twentieth of the writer.
	starved = 200 * time.Millisecond
	// quiet is how long nothing ordinary has come when the writer counts as
	// idle. Clients that wait for their replies leave gaps of a millisecond or
	// two, and background work that took each of them for itself would halve
	// their rate. In a gap it only has a tenth of the writer's time.
	quiet = 10 * time.Millisecond
	share = 9 // how many times longer than a piece the gap after it is
	turns = 3 // attempts at a transaction that lost a deadlock
)

// change is one caller's function on its way through the committer.
type change struct {
	f     func(*session) error
	since time.Time
	state atomic.Int32 // waiting, started or left
	done  chan struct{}

	err   error
	how   outcome
	after []func(outcome)
}

// background is true of a change that gives way to ordinary ones; only it has
// a time since which it has waited.
func (ch *change) background() bool { return !ch.since.IsZero() }

const (
	waiting int32 = iota
	started
	left // its caller has given up before it was started
)

// committer groups changes into transactions: all that wait when the writer
// becomes idle share the next commit. There is no timer: an idle writer starts
// at once.
type committer struct {
	db     *DB
	log    *slog.Logger
	mu     sync.Mutex
	wake   sync.Cond
	queue  []*change
	low    []*change // background
	closed bool
	busy   time.Time // when the last ordinary changes were committed
	lowAt  time.Time // when background work may use a gap between such
	ended  sync.WaitGroup

	commits, changes, retried atomic.Uint64
}

func newCommitter(db *DB, log *slog.Logger, workers int) *committer {
	c := &committer{db: db, log: log}
	c.wake.L = &c.mu
	for range workers {
		c.ended.Go(c.work)
	}
	return c
}

// do runs f in a commit and waits for its result.
func (c *committer) do(ctx context.Context, background bool, f func(*session) error) error {
	ch := &change{f: f, done: make(chan struct{})}
	if err := c.put(ctx, ch, background); err != nil {
		return err
	}
	select {
	case <-ch.done:
	case <-ctx.Done():
		if ch.state.CompareAndSwap(waiting, left) {
			return fault.Wrap(fault.Later, "store.Change", ctx.Err())
		}
		<-ch.done
	}
	for _, f := range ch.after {
		f(ch.how)
	}
	return ch.err
}

func (c *committer) put(ctx context.Context, ch *change, background bool) error {
	if err := ctx.Err(); err != nil {
		return fault.Wrap(fault.Later, "store.Change", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return fault.New(fault.Later, "store.Change", "the store is closed")
	}
	if background {
		ch.since = time.Now()
		c.low = append(c.low, ch)
	} else {
		c.queue = append(c.queue, ch)
	}
	c.wake.Signal()
	return nil
}

// waits is how many changes wait.
func (c *committer) waits() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.queue) + len(c.low)
}

// close lets what waits be committed, and returns when all workers ended.
func (c *committer) close() {
	c.mu.Lock()
	c.closed = true
	c.wake.Broadcast()
	c.mu.Unlock()
	c.ended.Wait()
}

// take waits for work: everything ordinary that waits, or else one background
// change. A background change that has waited too long goes with them.
func (c *committer) take() []*change {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.queue) == 0 {
		if len(c.low) > 0 {
			wait := c.gap()
			if wait <= 0 || c.closed {
				break
			}
			time.AfterFunc(wait, c.rouse)
		} else if c.closed {
			return nil
		}
		c.wake.Wait()
	}
	n := min(len(c.queue), maxBatch)
	batch := append(make([]*change, 0, n+1), c.queue[:n]...)
	c.queue = c.queue[:copy(c.queue, c.queue[n:])]
	if len(c.low) > 0 && (n == 0 || time.Since(c.low[0].since) > starved) {
		batch = append(batch, c.low[0])
		c.low = c.low[:copy(c.low, c.low[1:])]
	}
	return batch
}

// rouse wakes the workers. The lock makes it wait until whoever set the timer
// waits to be woken.
func (c *committer) rouse() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wake.Broadcast()
}

// gap is how long background work leaves the writer idle, since more that is
// ordinary may come any moment.
func (c *committer) gap() time.Duration {
	now := time.Now()
	until := c.busy.Add(quiet)
	for _, sooner := range []time.Time{c.lowAt, c.low[0].since.Add(starved)} {
		if sooner.Before(until) {
			until = sooner
		}
	}
	return until.Sub(now)
}

// took notes how the writer's time was spent.
func (c *committer) took(began time.Time, ordinary bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	if ordinary {
		c.busy = now
		return
	}
	c.lowAt = now.Add(share * now.Sub(began))
}

// putBack returns what did not fit into a commit to the head of the queue.
func (c *committer) putBack(rest []*change) {
	if len(rest) == 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.queue = append(append(make([]*change, 0, len(rest)+len(c.queue)), rest...), c.queue...)
	c.wake.Signal()
}

// work is one writer: one connection, one transaction after the other.
func (c *committer) work() {
	s := &session{db: c.db, ctx: context.Background()}
	defer s.drop()
	for {
		batch := c.take()
		if batch == nil {
			return
		}
		began := time.Now()
		c.commit(s, batch)
		c.took(began, !batch[0].background())
		c.db.tend(s, len(batch))
	}
}

// commit brings every change of the batch to its end. The first attempt is
// bare. When a change fails after it wrote something, all is rolled back and
// done again with a savepoint before each change, so that only those fail that
// fail. When the commit itself fails for want of space, each is tried alone.
func (c *committer) commit(s *session, batch []*change) {
	var live []*change
	for _, ch := range batch {
		if ch.state.CompareAndSwap(waiting, started) {
			live = append(live, ch)
		}
	}
	again, err := c.attempt(s, live, false)
	for turn := 1; again != nil && turn < turns; turn++ {
		c.retried.Add(1)
		again, err = c.attempt(s, again, true)
	}
	if again == nil {
		return
	}
	if len(again) == 1 {
		finish(again[0], err, rolledBack)
		return
	}
	for _, ch := range again {
		if rest, err := c.attempt(s, []*change{ch}, true); rest != nil {
			finish(ch, err, rolledBack)
		}
	}
}

// attempt runs changes in one transaction and commits. It returns those whose
// fate is still open (the transaction was rolled back), with the reason.
func (c *committer) attempt(s *session, batch []*change, guarded bool) ([]*change, error) {
	if len(batch) == 0 {
		return nil, nil
	}
	if err := s.begin(); err != nil {
		return c.abandon(s, batch, err)
	}
	done := make([]*change, 0, len(batch))
	for i, ch := range batch {
		if s.bytes > maxBatchBytes && i > 0 {
			c.returnToQueue(batch[i:])
			break
		}
		err := c.run(s, ch, guarded)
		if err == nil {
			done = append(done, ch)
			continue
		}
		s.full = s.full || isFull(err)
		gone := s.gone()
		if (guarded && !isTurn(err)) || (s.clean() && !gone) {
			finish(ch, err, rolledBack)
			if !gone {
				continue
			}
			i++
		}
		s.rollback()
		return join(done, batch[i:]), err
	}
	return c.end(s, done)
}

// join appends what is to be tried again; nil when there is nothing.
func join(done, rest []*change) []*change {
	if len(done)+len(rest) == 0 {
		return nil
	}
	return append(done, rest...)
}

// end commits and tells everybody.
func (c *committer) end(s *session, done []*change) ([]*change, error) {
	if len(done) == 0 {
		s.rollback()
		return nil, nil
	}
	_, err := s.execRaw("COMMIT")
	if err == nil {
		c.commits.Add(1)
		c.changes.Add(uint64(len(done)))
		for _, ch := range done {
			finish(ch, nil, committed)
		}
		return nil, nil
	}
	s.full = s.full || isFull(err)
	if isFull(err) || isTurn(err) {
		s.rollback()
		return done, Fault("store.Change", err)
	}
	// Nobody knows whether it took: the callers hear later, and files that
	// rows may name stay until the sweep.
	s.drop()
	for _, ch := range done {
		finish(ch, later(err), unknown)
	}
	return nil, nil
}

// abandon ends a batch whose connection is gone: nothing of it was committed.
func (c *committer) abandon(s *session, batch []*change, err error) ([]*change, error) {
	s.drop()
	c.log.Warn("no transaction", "db", c.db.name, "error", err)
	for _, ch := range batch {
		finish(ch, later(err), rolledBack)
	}
	return nil, nil
}

func (c *committer) returnToQueue(rest []*change) {
	for _, ch := range rest {
		ch.state.Store(waiting)
	}
	c.putBack(rest)
}

// run runs one change, between savepoints when guarded.
func (c *committer) run(s *session, ch *change, guarded bool) error {
	s.start()
	if guarded {
		if _, err := s.execRaw("SAVEPOINT change"); err != nil {
			return Fault("store.Change", err)
		}
	}
	err := call(s, ch.f)
	if err == nil && s.spoiled() {
		err = fault.New(fault.Internal, "store.Change", "a change went on after a statement of it had failed")
	}
	if guarded {
		err = s.leave(err)
	}
	ch.after = s.after
	if err != nil && kindOf(err) != fault.Internal {
		return Fault("store.Change", err)
	}
	return err
}

// call turns a panic in f into an error: it is the caller's mistake, and not
// his neighbours'.
func call(s *session, f func(*session) error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			s.wrote = true
			err = fault.New(fault.Internal, "store.Change", fmt.Sprintf("panic in a change: %v\n%s", p, debug.Stack()))
		}
	}()
	return f(s)
}

func finish(ch *change, err error, how outcome) {
	ch.err, ch.how = err, how
	close(ch.done)
}

// later makes sure that a lost database is never taken for an answer.
func later(err error) error {
	err = Fault("store.Change", err)
	if fault.Is(err, fault.Internal) {
		var f *fault.Error
		if errors.As(err, &f) {
			return fault.Wrap(fault.Later, "store.Change", f.Err)
		}
	}
	return err
}
