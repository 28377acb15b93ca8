package queue

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/sallyport-mail/sallyport/internal/mail"
	"github.com/sallyport-mail/sallyport/internal/store"
	"github.com/sallyport-mail/sallyport/internal/trace"
)

// many is how many messages the test queues, and over how many destinations: a
// million over ten thousand under make chaos.
func many() (messages, destinations int) {
	if os.Getenv("SALLYPORT_CHAOS") != "" {
		return 1_000_000, 10_000
	}
	return 2_000, 200
}

// TestMillion queues very many messages, starts anew, and looks at the time to
// the first delivery, at memory, and at how accepting fares while all of them
// are held, released, and dropped; over one destination and over many.
func TestMillion(t *testing.T) {
	n, most := many()
	for _, destinations := range []int{1, most} {
		t.Run(fmt.Sprintf("%d destinations", destinations), func(t *testing.T) { million(t, n, destinations) })
	}
}

func million(t *testing.T, n, destinations int) {
	s, err := store.Open(t.Context(), store.Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	q, stop := openRunning(t, s)
	began := time.Now()
	flood(t, s, q, n, destinations)
	t.Logf("%d messages put in %v", n, time.Since(began))
	before := acceptTimes(t, s, q)
	if q.entries > 250_000 || q.cached > q.c.WindowBytes {
		t.Errorf("%d entries and %d bytes in memory", q.entries, q.cached)
	}
	stop()
	runtime.GC()
	base := heapInUse()
	began = time.Now()
	q, stop = openRunning(t, s)
	defer func() { stop() }()
	slot, err := q.Slot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	it, ok := slot.Next(t.Context(), time.Minute)
	if !ok {
		t.Fatal("no item")
	}
	if took := time.Since(began); took > 15*time.Second {
		t.Errorf("the first delivery after %v", took)
	} else {
		t.Logf("the first delivery after %v", took)
	}
	if err := q.Report(t.Context(), it, Attempt{Stage: "sent", Replies: []mail.Reply{ok250}}); err != nil {
		t.Error(err)
	}
	slot.Release()
	waitFilled(q)
	t.Logf("heap for the queue: %d MiB, %d entries", (heapInUse()-base)>>20, q.entries)
	if got := (heapInUse() - base) >> 20; got > 150 {
		t.Errorf("the queue takes %d MiB", got)
	}
	for _, act := range []struct {
		name string
		do   func(context.Context) (int, error)
	}{
		{"hold", func(ctx context.Context) (int, error) { return q.Hold(ctx, "op", Filter{Tenant: "flood"}, "x") }},
		{"release", func(ctx context.Context) (int, error) { return q.Unhold(ctx, "op", Filter{Tenant: "flood"}) }},
		{"drop", func(ctx context.Context) (int, error) { return q.Drop(ctx, "op", Filter{Tenant: "flood"}, "x") }},
	} {
		whileBulk(t, s, q, act.name, act.do, before)
	}
}

// whileBulk measures accepting while a bulk act runs over everything.
func whileBulk(t *testing.T, s *store.Store, q *Queue, name string, do func(context.Context) (int, error), before []time.Duration) {
	t.Helper()
	var changed int
	done := make(chan error, 1)
	began := time.Now()
	go func() {
		n, err := do(t.Context())
		changed = n
		done <- err
	}()
	during := acceptTimes(t, s, q)
	if err := <-done; err != nil {
		t.Error(err)
	}
	took := time.Since(began)
	t.Logf("%s: %d items in %v (%.0f/s); accept median %v, was %v; p99 %v, was %v", name, changed, took,
		float64(changed)/took.Seconds(), at(during, 50), at(before, 50), at(during, 99), at(before, 99))
	if os.Getenv("SALLYPORT_CHAOS") != "" && at(during, 50) > 2*at(before, 50)+5*time.Millisecond {
		t.Errorf("accepting suffers from %s", name)
	}
}

func at(times []time.Duration, percent int) time.Duration {
	return times[(len(times)-1)*percent/100]
}

func heapInUse() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

func openRunning(t *testing.T, s *store.Store) (*Queue, func()) {
	t.Helper()
	log, err := trace.New(trace.Config{Road: s.Road, Trace: s.Trace})
	if err != nil {
		t.Fatal(err)
	}
	q, err := New(t.Context(), Config{Store: s, Trace: log})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	all.Go(func() { q.Run(ctx) })
	all.Go(func() { log.Run(ctx) })
	return q, func() { cancel(); all.Wait() }
}

func waitFilled(q *Queue) {
	for {
		q.mu.Lock()
		n := q.refills.len()
		for _, d := range q.dests {
			for _, l := range d.lanes {
				if l.fresh.loading || l.putOff.loading {
					n++
				}
			}
		}
		q.mu.Unlock()
		if n == 0 {
			return
		}
		runtime.Gosched()
		time.Sleep(5 * time.Millisecond)
	}
}

// flood puts n messages of 2 KB, many in one commit.
func flood(t *testing.T, s *store.Store, q *Queue, n, destinations int) {
	t.Helper()
	text := bytes.Repeat([]byte("0123456789012345678901234567890123456789012345678901234567890123456789012345678\r\n"), 25)
	const each = 250
	var workers sync.WaitGroup
	next := make(chan int)
	for range 4 {
		workers.Go(func() {
			for from := range next {
				ms := make([]Message, 0, each)
				for i := from; i < min(from+each, n); i++ {
					ms = append(ms, bare(t, s, "flood", "mx:"+strconv.Itoa(i%destinations), text))
				}
				if err := q.Put(t.Context(), ms); err != nil {
					t.Error(err)
				}
				for _, m := range ms {
					m.Body.Discard()
				}
			}
		})
	}
	for from := 0; from < n; from += each {
		next <- from
	}
	close(next)
	workers.Wait()
}

func bare(t *testing.T, s *store.Store, tenant, destination string, text []byte) Message {
	body := s.Bodies.New()
	if _, err := body.Write(text); err != nil {
		t.Fatal(err)
	}
	refs, err := body.Finish(t.Context(), tenant)
	if err != nil {
		t.Fatal(err)
	}
	return Message{
		Summary: trace.Message{Tenant: tenant, MessageID: "<a@b>", From: "a@far.test", To: []string{"b@far.test"}},
		Body:    body, Ref: refs[0],
		Items: []Item{{Destination: destination, Direction: "outbound", From: mail.Address{Local: "a", Domain: "far.test"},
			Recipients: []Recipient{{Recipient: mail.Recipient{Address: mail.Address{Local: "b", Domain: "far.test"}}}}}},
	}
}

// acceptTimes puts messages of another tenant, one by one from four senders,
// and returns how long each took, sorted.
func acceptTimes(t *testing.T, s *store.Store, q *Queue) []time.Duration {
	t.Helper()
	text := bytes.Repeat([]byte("0123456789012345678901234567890123456789012345678901234567890123456789012345678\r\n"), 125)
	var mu sync.Mutex
	var times []time.Duration
	var senders sync.WaitGroup
	for range 4 {
		senders.Go(func() {
			for range 100 {
				m := bare(t, s, "quiet", "quiet/mailbox", text)
				began := time.Now()
				err := q.Put(t.Context(), []Message{m})
				took := time.Since(began)
				m.Body.Discard()
				if err != nil {
					t.Error(err)
				}
				mu.Lock()
				times = append(times, took)
				mu.Unlock()
			}
		})
	}
	senders.Wait()
	slices.Sort(times)
	return times
}
