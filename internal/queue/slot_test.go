package queue

import (
	"context"
	"maps"
	"strconv"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sallyport-mail/sallyport/internal/mail"
	"github.com/sallyport-mail/sallyport/internal/store"
	"github.com/sallyport-mail/sallyport/internal/testpeer"
)

// running starts the queue's workers; the test ends them.
func (b *bench) running() {
	b.Helper()
	before := goleak.IgnoreCurrent()
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	all.Go(func() { b.q.Run(ctx) })
	b.Cleanup(func() {
		cancel()
		all.Wait()
		goleak.VerifyNone(b.T, before, goleak.IgnoreAnyFunction("database/sql.(*DB).connectionOpener"),
			goleak.IgnoreAnyFunction("github.com/jackc/pgx/v5/pgxpool.(*Pool).backgroundHealthCheck"))
	})
}

// TestRace has many deliverers race for the same items while more are put:
// each is delivered once, and no destination gets more connections than its
// limit.
func TestRace(t *testing.T) {
	testpeer.EachStore(t, func(t *testing.T, s *store.Store) {
		const items, limit = 300, 3
		var mu sync.Mutex
		b := newBench(t, s, func(c *Config) {
			c.Now = time.Now
			c.Window = 16
			c.Limit = func(string) int { return limit }
		})
		b.running()
		ctx, cancel := context.WithCancel(t.Context())
		got := map[string]int{}
		open := map[string]int{}
		var deliverers, writers sync.WaitGroup
		deliver := func() {
			for {
				slot, err := b.q.Slot(ctx)
				if err != nil {
					return
				}
				mu.Lock()
				if open[slot.Destination]++; open[slot.Destination] > limit {
					t.Errorf("%d slots for %s", open[slot.Destination], slot.Destination)
				}
				mu.Unlock()
				for it, ok := slot.Next(ctx, 0); ok; it, ok = slot.Next(ctx, 0) {
					mu.Lock()
					got[it.ID]++
					if len(got) == items {
						cancel()
					}
					mu.Unlock()
					if err := b.q.Report(ctx, it, Attempt{Stage: "sent", Replies: []mail.Reply{ok250}}); err != nil {
						t.Error(err)
					}
				}
				mu.Lock()
				open[slot.Destination]--
				slot.Release()
				mu.Unlock()
			}
		}
		for range 16 {
			deliverers.Go(deliver)
		}
		for w := range 4 {
			writers.Go(func() {
				for i := range items / 4 {
					tenant := "t" + strconv.Itoa(i%3)
					ms := []Message{b.message(tenant, "mx:"+strconv.Itoa(w%2), "x@far.test", "b@far.test")}
					ms[0].Items[0].Region = "region of " + tenant
					if err := b.q.Put(context.WithoutCancel(ctx), ms); err != nil {
						t.Error(err)
					}
				}
			})
		}
		writers.Wait()
		deliverers.Wait()
		if len(got) != items {
			t.Errorf("%d items of %d", len(got), items)
		}
		for id, n := range got {
			if n != 1 {
				t.Errorf("%s was leased %d times", id, n)
			}
		}
		if x := b.q.Stats(); x.Queued != 0 || x.InFlight != 0 || x.Delivered != items {
			t.Errorf("%+v", x)
		}
		want := map[string]uint64{"region of t0": items / 3, "region of t1": items / 3, "region of t2": items / 3}
		if got := b.q.Stats().Regions; !maps.Equal(got, want) {
			t.Errorf("delivered by region %v, not %v", got, want)
		}
		if b.q.used != 0 || b.q.cached != 0 || b.q.entries != 0 {
			t.Errorf("left: %d slots, %d bytes, %d entries", b.q.used, b.q.cached, b.q.entries)
		}
	})
}

// TestNextWaits: a slot that has nothing to do is woken by the next message,
// and by being sent away.
func TestNextWaits(t *testing.T) {
	b := newBench(t, testpeer.OpenStore(t, store.Config{Dir: t.TempDir()}))
	b.put(b.message("acme", "acme/mailbox", "x@far.test", "b@acme.test"))
	slot, it := b.next()
	if err := b.q.Report(t.Context(), it, Attempt{Stage: "sent", Replies: []mail.Reply{ok250}}); err != nil {
		t.Fatal(err)
	}
	type answer struct {
		it *Item
		ok bool
	}
	answers := make(chan answer)
	ask := func() {
		it, ok := slot.Next(t.Context(), time.Hour)
		answers <- answer{it, ok}
	}
	waiting := func() {
		for {
			b.q.mu.Lock()
			n := len(slot.dest.idle)
			b.q.mu.Unlock()
			if n == 1 {
				return
			}
			time.Sleep(time.Millisecond)
		}
	}
	go ask()
	waiting()
	m := b.put(b.message("acme", "acme/mailbox", "x@far.test", "b@acme.test"))
	if a := <-answers; !a.ok || a.it.ID != m.Items[0].ID {
		t.Fatalf("%+v", a)
	} else if err := b.q.Report(t.Context(), a.it, Attempt{Skipped: true}); err != nil {
		t.Fatal(err)
	}
	if _, ok := slot.Next(t.Context(), time.Hour); ok {
		t.Error("a slot that could not be used goes on")
	}
	slot.Release()
	if b.q.used != 0 || slot.dest.slots != 0 || slot.dest.asking != 0 {
		t.Errorf("%d slots, %d of the destination, %d asking", b.q.used, slot.dest.slots, slot.dest.asking)
	}
	b.clock.step(time.Second)
	b.fill()
	slot, it = b.next()
	if err := b.q.Report(t.Context(), it, Attempt{Stage: "sent", Replies: []mail.Reply{ok250}}); err != nil {
		t.Fatal(err)
	}
	go ask()
	waiting()
	b.q.mu.Lock()
	b.q.trip(slot.dest, down, causeHost, "test")
	b.q.mu.Unlock()
	if a := <-answers; a.ok {
		t.Error("an item from a destination that is down")
	}
	slot.Release()
}

// TestFairTenants: at an MX set one tenant's thousand do not keep another's
// few waiting.
func TestFairTenants(t *testing.T) {
	b := newBench(t, testpeer.OpenStore(t, store.Config{Dir: t.TempDir()}))
	for range 50 {
		b.put(b.message("loud", "mx:far", "x@far.test", "b@far.test"))
	}
	b.put(b.message("quiet", "mx:far", "x@far.test", "b@far.test"))
	b.put(b.message("quiet", "mx:far", "x@far.test", "b@far.test"))
	slot, it := b.next()
	quiet := 0
	for range 4 {
		if it.Tenant == "quiet" {
			quiet++
		}
		if err := b.q.Report(t.Context(), it, Attempt{Stage: "sent", Replies: []mail.Reply{ok250}}); err != nil {
			t.Fatal(err)
		}
		var ok bool
		if it, ok = slot.Next(t.Context(), 0); !ok {
			t.Fatal("no item")
		}
	}
	if quiet != 2 {
		t.Errorf("%d of the first four are of the quiet tenant", quiet)
	}
}

// TestFairDestinations: when slots are few, a busy destination gives its slot
// up to the others.
func TestFairDestinations(t *testing.T) {
	b := newBench(t, testpeer.OpenStore(t, store.Config{Dir: t.TempDir()}), func(c *Config) { c.Slots = 1 })
	for range 60 {
		b.put(b.message("acme", "acme/busy", "x@far.test", "b@acme.test"))
	}
	b.put(b.message("acme", "acme/other", "x@far.test", "b@acme.test"))
	slot, it := b.next()
	n := 1
	for ok := true; ok; n++ {
		if err := b.q.Report(t.Context(), it, Attempt{Stage: "sent", Replies: []mail.Reply{ok250}}); err != nil {
			t.Fatal(err)
		}
		it, ok = slot.Next(t.Context(), 0)
	}
	if n > 30 {
		t.Errorf("the busy destination had %d messages before the other's turn", n)
	}
	if b.slot() != nil {
		t.Error("more slots than there are")
	}
	slot.Release()
	if s, _ := b.next(); s.Destination != "acme/other" {
		t.Errorf("then came %s", s.Destination)
	}
}

// TestBusyHost: 421 while other connections get through asks for fewer of
// them, and does not stop the destination.
func TestBusyHost(t *testing.T) {
	b := newBench(t, testpeer.OpenStore(t, store.Config{Dir: t.TempDir()}))
	for range 20 {
		b.put(b.message("acme", "acme/mailbox", "x@far.test", "b@acme.test"))
	}
	var slots []*Slot
	var items []*Item
	for range 8 {
		s, it := b.next()
		slots, items = append(slots, s), append(items, it)
	}
	b.clock.step(time.Second)
	b.report(slots[0], items[0], ok250)
	b.report(slots[1], items[1], mail.Reply{Code: 421, Text: "too many connections"})
	d := slots[0].dest
	if d.state != up || int(d.room) >= 8 {
		t.Errorf("%s, room for %v", d.state, d.room)
	}
	for i := 2; i < 8; i++ {
		b.report(slots[i], items[i], ok250)
	}
	b.clock.step(3 * time.Second)
	b.fill()
	for s := b.slot(); s != nil; s = b.slot() {
		for it, ok := s.Next(t.Context(), 0); ok; it, ok = s.Next(t.Context(), 0) {
			if err := b.q.Report(t.Context(), it, Attempt{Stage: "sent", Replies: []mail.Reply{ok250}}); err != nil {
				t.Fatal(err)
			}
		}
		s.Release()
	}
	if x := b.q.Stats(); x.Queued != 0 || x.Delivered != 20 {
		t.Errorf("%+v", x)
	}
	if int(d.room) <= 4 {
		t.Errorf("the room does not grow again: %v", d.room)
	}
}

// TestOneProbe: ten connections that fail at once are one failure, and the
// probe is one.
func TestOneProbe(t *testing.T) {
	b := newBench(t, testpeer.OpenStore(t, store.Config{Dir: t.TempDir()}))
	for range 20 {
		b.put(b.message("acme", "acme/mailbox", "x@far.test", "b@acme.test"))
	}
	var slots []*Slot
	var items []*Item
	for range 10 {
		s, it := b.next()
		slots, items = append(slots, s), append(items, it)
	}
	for i := range slots {
		if err := b.q.Report(t.Context(), items[i], Attempt{Stage: "connect", Whole: &mail.Reply{Text: "refused"}}); err != nil {
			t.Fatal(err)
		}
		slots[i].Release()
	}
	d := slots[0].dest
	if d.failures != 1 || d.state != down {
		t.Fatalf("%s after %d failures", d.state, d.failures)
	}
	b.clock.step(2 * time.Minute)
	b.fill()
	probe, it := b.next()
	if !probe.Probe || b.slot() != nil {
		t.Error("not one probe")
	}
	if _, ok := probe.Next(t.Context(), 0); ok {
		t.Error("a probe of two items")
	}
	b.report(probe, it, ok250)
	if d.state != up || b.slot() == nil {
		t.Error("not up again")
	}
}

// A destination that is away keeps no envelope in memory, not even that of the
// item by which it was found to be.
func TestAwayKeepsNothing(t *testing.T) {
	testpeer.EachStore(t, func(t *testing.T, s *store.Store) {
		b := newBench(t, s)
		for range 2 {
			b.put(b.message("acme", "acme/mailbox", "a@far.test", "b@acme.test"))
		}
		if b.q.cached == 0 {
			t.Fatal("what was just accepted is not in memory")
		}
		slot, it := b.next()
		b.must(b.q.Report(t.Context(), it, Attempt{Stage: "connect", Peer: "mx", Whole: &mail.Reply{Text: "connection refused"}}))
		slot.Release()
		if d, err := b.q.Destinations(t.Context(), "acme"); err != nil || len(d) != 1 || d[0].State != string(down) {
			t.Fatalf("%+v, %v", d, err)
		}
		if b.q.cached != 0 {
			t.Errorf("%d bytes are in memory", b.q.cached)
		}
	})
}

// An item that is in somebody's hands when the round of overdue mail comes by
// is looked at again at the end of that round.
func TestOverdueInHands(t *testing.T) {
	testpeer.EachStore(t, func(t *testing.T, s *store.Store) {
		b := newBench(t, s)
		b.put(b.message("acme", "acme/mailbox", "a@far.test", "b@acme.test"))
		slot, it := b.next()
		b.clock.step(6 * 24 * time.Hour)
		back := make(chan error, 1)
		time.AfterFunc(20*time.Millisecond, func() {
			back <- b.q.Report(context.Background(), it, Attempt{Skipped: true})
			slot.Release()
		})
		b.must(b.q.round(t.Context(), 500*time.Millisecond))
		b.must(<-back)
		if got := b.show(it.ID).State; got != Failed {
			t.Errorf("the item is %s", got)
		}
	})
}

// The slots of a destination that find its host full at the same time make it
// wait once, not once each and longer each time.
func TestSkipTogether(t *testing.T) {
	d, now := &destination{}, time.Now()
	for range 20 {
		d.skip(now)
	}
	wait := time.UnixMicro(d.pause).Sub(now)
	if d.skips != 1 || wait < 200*time.Millisecond || wait > 300*time.Millisecond {
		t.Errorf("%d skips, a wait of %s", d.skips, wait)
	}
	d.skip(now.Add(time.Second))
	if wait := time.UnixMicro(d.pause).Sub(now); d.skips != 2 || wait < 1400*time.Millisecond {
		t.Errorf("%d skips, a wait until %s", d.skips, wait)
	}
}
