package queue

import (
	"context"
	"io"
	"sync"
	"testing"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/mail"
	"github.com/sallyport-mail/sallyport/internal/store"
	"github.com/sallyport-mail/sallyport/internal/testpeer"
	"github.com/sallyport-mail/sallyport/internal/trace"
)

// clock is a clock that is set by hand.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func newClock() *clock { return &clock{at: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)} }

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) step(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

// bench is a queue under test with everything around it. Nothing runs by
// itself: tests call settle and round.
type bench struct {
	*testing.T
	q     *Queue
	log   *trace.Log
	store *store.Store
	clock *clock
	cfg   Config
}

func newBench(t *testing.T, s *store.Store, change ...func(*Config)) *bench {
	t.Helper()
	b := &bench{T: t, store: s, clock: newClock()}
	b.cfg = Config{Store: s, Now: b.clock.now, Hostname: func(string) string { return "gw.test" },
		Bounce: func(tenant string, to mail.Address) (string, string, bool) {
			return tenant + "/mailbox", "mailbox", to.Domain == tenant+".test"
		}}
	for _, f := range change {
		f(&b.cfg)
	}
	b.open()
	return b
}

// open opens the queue, again after a "restart".
func (b *bench) open() {
	b.Helper()
	log, err := trace.New(trace.Config{Road: b.store.Road, Trace: b.store.Trace, Now: b.clock.now})
	if err != nil {
		b.Fatal(err)
	}
	b.cfg.Trace = log
	q, err := New(b.Context(), b.cfg)
	if err != nil {
		b.Fatal(err)
	}
	b.q, b.log = q, log
	b.fill()
}

// fill does what the workers of Run do until there is nothing left to do.
func (b *bench) fill() {
	b.Helper()
	q := b.q
	for {
		q.ring()
		q.mu.Lock()
		l, w := q.recounts.pop(), (*window)(nil)
		if l == nil {
			w = q.refills.pop()
		}
		q.mu.Unlock()
		var err error
		switch {
		case l != nil:
			err = q.countAgain(b.Context(), l)
		case w != nil:
			err = q.refill(b.Context(), w)
		default:
			if err := q.retryRefused(b.Context()); err != nil {
				b.Fatal(err)
			}
			return
		}
		if err != nil {
			b.Fatal(err)
		}
	}
}

func address(s string) mail.Address {
	for i := len(s) - 1; i >= 0; i-- {
		if s[i] == '@' {
			return mail.Address{Local: s[:i], Domain: s[i+1:]}
		}
	}
	return mail.Address{}
}

// message makes a message with one item.
func (b *bench) message(tenant, destination, from string, to ...string) Message {
	b.Helper()
	body := b.store.Bodies.New()
	b.Cleanup(body.Discard)
	if _, err := io.WriteString(body, "Message-ID: <1@test>\r\nSubject: hello\r\n\r\nbody\r\n"); err != nil {
		b.Fatal(err)
	}
	refs, err := body.Finish(b.Context(), tenant)
	if err != nil {
		b.Fatal(err)
	}
	it := Item{Destination: destination, Direction: "inbound", From: address(from), Domain: "x.test", MessageID: "<1@test>"}
	for _, a := range to {
		it.Recipients = append(it.Recipients, Recipient{Recipient: mail.Recipient{Address: address(a)}})
	}
	return Message{
		Summary: trace.Message{Tenant: tenant, MessageID: "<1@test>", Direction: "inbound", From: from, To: to, Size: 50},
		Body:    body, Ref: refs[0], Items: []Item{it},
	}
}

func (b *bench) put(m Message) Message {
	b.Helper()
	ms := []Message{m}
	if err := b.q.Put(b.Context(), ms); err != nil {
		b.Fatal(err)
	}
	return ms[0]
}

func (b *bench) must(err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}

// slot asks for a slot and gives up at once.
func (b *bench) slot() *Slot {
	ctx, cancel := context.WithCancel(b.Context())
	cancel()
	s, err := b.q.Slot(ctx)
	if err != nil {
		return nil
	}
	return s
}

func (b *bench) next() (*Slot, *Item) {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.Context(), 5*time.Second)
	defer cancel()
	s, err := b.q.Slot(ctx)
	if err != nil {
		b.Fatalf("no slot: %v", err)
	}
	it, ok := s.Next(ctx, 0)
	if !ok {
		b.Fatal("a slot without an item")
	}
	return s, it
}

func (b *bench) report(s *Slot, it *Item, replies ...mail.Reply) {
	b.Helper()
	if err := b.q.Report(b.Context(), it, Attempt{Stage: "sent", Peer: "mx", Replies: replies}); err != nil {
		b.Fatal(err)
	}
	s.Release()
}

func (b *bench) show(id string) Item {
	b.Helper()
	it, err := b.q.Show(b.Context(), "acme", id)
	if err != nil {
		b.Fatal(err)
	}
	return it
}

func (b *bench) trace(id string) (trace.Message, []trace.Step) {
	b.Helper()
	m, steps, err := b.log.Show(b.Context(), "acme", id)
	if err != nil {
		b.Fatal(err)
	}
	return m, steps
}

func (b *bench) bodies() (n int) {
	b.Helper()
	if err := b.store.Road.Operator("test").QueryRow(b.Context(), `SELECT COUNT(*) FROM body`).Scan(&n); err != nil {
		b.Fatal(err)
	}
	return n
}

var ok250 = mail.Reply{Code: 250, Enhanced: "2.0.0", Text: "ok"}

func TestDelivered(t *testing.T) {
	testpeer.EachStore(t, func(t *testing.T, s *store.Store) {
		b := newBench(t, s)
		m := b.put(b.message("acme", "acme/mailbox", "a@x.test", "b@acme.test", "c@acme.test"))
		slot, it := b.next()
		if got := string(b.q.Bytes(it)); len(got) == 0 {
			t.Error("the body is not in memory")
		}
		if b.show(it.ID).State != Leased {
			t.Error("not leased")
		}
		b.report(slot, it, ok250, ok250)
		sum, steps := b.trace(m.Summary.ID)
		if sum.State != "delivered" || len(steps) != 2 {
			t.Errorf("trace: %+v %d steps", sum, len(steps))
		}
		if _, err := b.q.Show(t.Context(), "acme", it.ID); !fault.Is(err, fault.Missing) {
			t.Errorf("the item is still there: %v", err)
		}
		if n := b.bodies(); n != 0 {
			t.Errorf("%d bodies left", n)
		}
		if err := b.q.InUse("acme"); err != nil {
			t.Error(err)
		}
	})
}

func TestDeferredThenDelivered(t *testing.T) {
	testpeer.EachStore(t, func(t *testing.T, s *store.Store) {
		b := newBench(t, s)
		m := b.put(b.message("acme", "acme/mailbox", "a@x.test", "b@acme.test"))
		slot, it := b.next()
		b.report(slot, it, mail.Reply{Code: 451, Enhanced: "4.7.1", Text: "greylisted"})
		if b.slot() != nil {
			t.Fatal("a slot for a deferred item")
		}
		got := b.show(it.ID)
		if got.State != Deferred || got.Attempts != 1 || got.Last.Code != 451 {
			t.Fatalf("%+v", got)
		}
		b.clock.step(6 * time.Minute)
		b.open()
		slot, it = b.next()
		if it.Attempts != 1 {
			t.Errorf("%d attempts", it.Attempts)
		}
		b.report(slot, it, ok250)
		if sum, _ := b.trace(m.Summary.ID); sum.State != "delivered" {
			t.Errorf("trace: %+v", sum)
		}
	})
}
