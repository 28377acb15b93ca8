package store_test

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/store"
	"github.com/sallyport-mail/sallyport/internal/testpeer"
)

const (
	addEvent    store.RoadSQL = `INSERT INTO body (tenant, id, size, sum, file) VALUES ($1, $2, 0, 0, 0)`
	addOther    store.RoadSQL = `INSERT INTO body (tenant, id, size, sum, file) VALUES ($1, $2, 0, 0, 0) RETURNING id`
	countBodies store.RoadSQL = `SELECT COUNT(*) FROM body`
)

func count(t *testing.T, s *store.Store) int {
	t.Helper()
	var n int
	if err := s.Road.Road().QueryRow(t.Context(), countBodies).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// blockWriters keeps every writer of the road busy until release is called.
func blockWriters(t *testing.T, s *store.Store) (release func()) {
	t.Helper()
	gate := make(chan struct{})
	var wg sync.WaitGroup
	writers := 1
	if s.Road.SkipLocked() != "" {
		writers = 2
	}
	for range writers {
		in := make(chan struct{})
		wg.Go(func() {
			err := s.Road.Road().Change(t.Context(), func(store.RoadTx) error {
				close(in)
				<-gate
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		})
		<-in
	}
	return func() { close(gate); wg.Wait() }
}

func TestCancelledChange(t *testing.T) {
	testpeer.EachStore(t, func(t *testing.T, s *store.Store) {
		release := blockWriters(t, s)
		ctx, cancel := context.WithCancel(t.Context())
		result := make(chan error)
		go func() {
			result <- s.Road.Road().Change(ctx, func(store.RoadTx) error { t.Error("it ran"); return nil })
		}()
		cancel()
		err := <-result
		release()
		if !fault.Is(err, fault.Later) || !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		if err := s.Road.Road().Change(ctx, func(store.RoadTx) error { return nil }); !fault.Is(err, fault.Later) {
			t.Error(err)
		}
	})
}

// A change that began is awaited, whatever its context says.
func TestCancelledWhileRunning(t *testing.T) {
	testpeer.EachStore(t, func(t *testing.T, s *store.Store) {
		ctx, cancel := context.WithCancel(t.Context())
		err := s.Road.Road().Change(ctx, func(tx store.RoadTx) error {
			cancel()
			_, err := tx.Exec(addEvent, "acme", "1")
			return err
		})
		if err != nil || count(t, s) != 1 {
			t.Error(err)
		}
	})
}

func TestBackgroundGivesWay(t *testing.T) {
	testpeer.EachStore(t, func(t *testing.T, s *store.Store) {
		if s.Road.SkipLocked() != "" {
			t.Skip("two writers: what one does says nothing about the order of both")
		}
		var order []string // written by the one writer
		var wg sync.WaitGroup
		release := blockWriters(t, s)
		background := make(chan struct{}, 3)
		for range 3 {
			wg.Go(func() {
				background <- struct{}{}
				s.Road.Road().Background(t.Context(), func(store.RoadTx) error { order = append(order, "low"); return nil })
			})
		}
		for range 3 {
			<-background
		}
		for range 3 {
			wg.Go(func() {
				s.Road.Road().Change(t.Context(), func(store.RoadTx) error { order = append(order, "high"); return nil })
			})
		}
		for s.Stats().Waiting < 6 {
			runtime.Gosched()
		}
		release()
		wg.Wait()
		if !slices.Equal(order, []string{"high", "high", "high", "low", "low", "low"}) {
			t.Error(order)
		}
	})
}

// A batch with more bytes than one commit takes goes in several.
func TestBigBatch(t *testing.T) {
	testpeer.EachStore(t, func(t *testing.T, s *store.Store) {
		release := blockWriters(t, s)
		var wg sync.WaitGroup
		for range 30 {
			wg.Go(func() {
				b := s.Bodies.New()
				defer b.Discard()
				b.Write(make([]byte, 1<<20))
				refs, err := b.Finish(t.Context(), "acme")
				if err == nil {
					err = s.Road.Road().Change(t.Context(), func(tx store.RoadTx) error { return tx.PutBody(b, refs[0]) })
				}
				if err != nil {
					t.Error(err)
				}
			})
		}
		for s.Stats().Waiting < 30 {
			runtime.Gosched()
		}
		before := s.Stats().Commits
		release()
		wg.Wait()
		if n := count(t, s); n != 30 {
			t.Error(n)
		}
		if commits := s.Stats().Commits - before; commits < 4 || commits > 12 {
			t.Errorf("%d commits", commits)
		}
	}, func(c *store.Config) { c.RowLimit = 2 << 20 })
}

// PostgreSQL rolls back in silence what goes on after a failed statement: such
// a change must not be reported as done, on either store.
func TestIgnoredFailure(t *testing.T) {
	testpeer.EachStore(t, func(t *testing.T, s *store.Store) {
		road := s.Road.Road()
		must(t, road.Change(t.Context(), func(tx store.RoadTx) error { _, err := tx.Exec(addEvent, "acme", "1"); return err }))
		for _, again := range []func(tx store.RoadTx){
			func(tx store.RoadTx) { tx.Exec(addEvent, "acme", "1") },
			func(tx store.RoadTx) {
				if rows, err := tx.Query(addOther, "acme", "1"); err == nil {
					rows.Next()
					rows.Close()
				}
			},
		} {
			err := road.Change(t.Context(), func(tx store.RoadTx) error {
				_, err := tx.Exec(addEvent, "acme", "2")
				if err == nil {
					again(tx)
				}
				return err
			})
			if !fault.Is(err, fault.Internal) || !strings.Contains(err.Error(), "after a statement") {
				t.Error(err)
			}
		}
		if n := count(t, s); n != 1 {
			t.Errorf("%d rows", n)
		}
	})
}

func TestKinds(t *testing.T) {
	testpeer.EachStore(t, func(t *testing.T, s *store.Store) {
		road := s.Road.Road()
		add := func(tx store.RoadTx) error { _, err := tx.Exec(addEvent, "acme", "1"); return err }
		must(t, road.Change(t.Context(), add))
		if err := road.Change(t.Context(), add); !fault.Is(err, fault.Conflict) {
			t.Error(err)
		}
		err := road.Change(t.Context(), func(tx store.RoadTx) error { _, err := tx.Exec(addEvent, "acme", nil); return err })
		if !fault.Is(err, fault.Invalid) {
			t.Error(err)
		}
		own := fault.New(fault.Missing, "queue.Take", "gone")
		if err := road.Change(t.Context(), func(store.RoadTx) error { return own }); !errors.Is(err, own) {
			t.Error(err)
		}
		if _, err := road.Query(t.Context(), `SELECT nothing FROM nowhere`); !fault.Is(err, fault.Internal) {
			t.Error(err)
		}
	})
}

func TestClosedStore(t *testing.T) {
	testpeer.EachConfig(t, func(t *testing.T, c store.Config) {
		s, err := store.Open(t.Context(), c)
		must(t, err)
		must(t, s.Ping(t.Context()))
		must(t, s.Close())
		if err := s.Ping(t.Context()); !fault.Is(err, fault.Later) {
			t.Error(err)
		}
	})
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
