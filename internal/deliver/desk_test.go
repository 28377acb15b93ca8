package deliver

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sallyport-mail/sallyport/internal/connection"
	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/mail"
	"github.com/sallyport-mail/sallyport/internal/queue"
	"github.com/sallyport-mail/sallyport/internal/smtp"
	"github.com/sallyport-mail/sallyport/internal/testpeer"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// desk stands in for the queue: it hands out items in memory and keeps what is
// reported. An item that was skipped is handed out again, others are not.
type desk struct {
	width  int // slots of a destination
	report func(*queue.Item, queue.Attempt) error
	bodies map[string]func() (io.ReadCloser, error) // by item; in memory when there is none

	mu       sync.Mutex
	changed  chan struct{}
	items    map[string][]*queue.Item
	open     map[string]int
	outcomes []reported
	skips    int
}

type reported struct {
	*queue.Item
	queue.Attempt
}

func newDesk(items ...*queue.Item) *desk {
	d := &desk{width: 4, changed: make(chan struct{}), items: make(map[string][]*queue.Item), open: make(map[string]int)}
	d.add(items...)
	return d
}

func (d *desk) add(items ...*queue.Item) {
	d.change(func() {
		for _, it := range items {
			d.items[it.Destination] = append(d.items[it.Destination], it)
		}
	})
}

func (d *desk) change(f func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f()
	close(d.changed)
	d.changed = make(chan struct{})
}

// await waits until f, called with the lock held, is content.
func (d *desk) await(ctx context.Context, f func() bool) bool {
	for {
		d.mu.Lock()
		ok, changed := f(), d.changed
		d.mu.Unlock()
		if ok {
			return true
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return false
		}
	}
}

func (d *desk) Slot(ctx context.Context) (slot, error) {
	var s *deskSlot
	d.await(ctx, func() bool {
		for destination, items := range d.items {
			if len(items) > 0 && d.open[destination] < d.width {
				d.open[destination]++
				s = &deskSlot{d, destination}
				return true
			}
		}
		return false
	})
	if s == nil {
		return nil, ctx.Err()
	}
	return s, nil
}

type deskSlot struct {
	*desk
	destination string
}

func (s *deskSlot) Next(ctx context.Context, idle time.Duration) (*queue.Item, bool) {
	ctx, cancel := context.WithTimeout(ctx, idle)
	defer cancel()
	var it *queue.Item
	s.await(ctx, func() bool {
		if items := s.items[s.destination]; len(items) > 0 {
			it, s.items[s.destination] = items[0], items[1:]
		}
		return it != nil
	})
	return it, it != nil
}

func (s *deskSlot) Release() { s.change(func() { s.open[s.destination]-- }) }

func (d *desk) Open(_ context.Context, it *queue.Item) (io.ReadCloser, error) {
	if open := d.bodies[it.ID]; open != nil {
		return open()
	}
	return nil, fault.New(fault.Missing, "desk.Open", "no such body")
}

func (d *desk) Bytes(it *queue.Item) []byte {
	if d.bodies[it.ID] != nil {
		return nil
	}
	return []byte("Subject: " + it.ID + "\r\n\r\nHello.\r\n.dot\r\n")
}

func (d *desk) Report(_ context.Context, it *queue.Item, a queue.Attempt) error {
	if d.report != nil {
		if err := d.report(it, a); err != nil {
			return err
		}
	}
	d.change(func() {
		if a.Skipped {
			d.skips++
			d.items[it.Destination] = append([]*queue.Item{it}, d.items[it.Destination]...)
			return
		}
		d.outcomes = append(d.outcomes, reported{it, a})
	})
	return nil
}

// wait waits for n outcomes.
func (d *desk) wait(t *testing.T, n int) []reported {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if !d.await(ctx, func() bool { return len(d.outcomes) >= n }) {
		t.Fatalf("%d outcomes, %d expected: %+v", len(d.outcomes), n, d.outcomes)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.outcomes)
}

// book stands in for the registry of connections: destinations with their
// candidates, in order.
type book struct {
	mu         sync.Mutex
	candidates map[string][]connection.Candidate
	fail       error
	health     []connection.Health
	sizes      []int64
}

func newBook() *book { return &book{candidates: make(map[string][]connection.Candidate)} }

// hasty are timeouts that make a hang at one stage a matter of a moment; the
// others are ample, for a machine that is busy.
func hasty(stage string) smtp.Timeouts {
	const ample, short = 20 * time.Second, 200 * time.Millisecond
	t := smtp.Timeouts{
		Dial: ample, Greeting: ample, Hello: ample, Mail: ample, Rcpt: ample,
		DataInit: ample, DataBlock: ample, DataDone: ample,
	}
	if of := map[string]*time.Duration{
		testpeer.AtGreeting: &t.Greeting, testpeer.AtHello: &t.Hello, testpeer.AtMail: &t.Mail, testpeer.AtRcpt: &t.Rcpt,
		testpeer.AtData: &t.DataInit, testpeer.AtBody: &t.DataBlock, testpeer.AtDot: &t.DataDone,
	}[stage]; of != nil {
		*of = short
	}
	return t
}

// hasten makes all hosts of the book hasty.
func (b *book) hasten(stage string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, list := range b.candidates {
		for i := range list {
			list[i].Target.Timeouts = hasty(stage)
		}
	}
}

// set names the hosts of a destination.
func (b *book) set(destination string, addresses ...string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.candidates[destination] = nil
	for i, a := range addresses {
		b.candidates[destination] = append(b.candidates[destination], connection.Candidate{
			Host: fmt.Sprintf("mx%d.test", i+1), Rule: connection.TLSNone,
			Target: smtp.Target{Address: a, Timeouts: hasty("")},
		})
	}
}

// breaks has every look-up fail from now on.
func (b *book) breaks(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.fail = err
}

func (b *book) Candidates(_ context.Context, tenant, destination, _, hello string, local netip.Addr) ([]connection.Candidate, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.fail != nil {
		return nil, b.fail
	}
	all := slices.Clone(b.candidates[destination])
	for i := range all {
		all[i].Tenant, all[i].Connection = tenant, "mailbox"
		all[i].Target.Hello, all[i].Target.Local = hello, local
	}
	return all, nil
}

func (b *book) Dial(ctx context.Context, c connection.Candidate, _ string) (*smtp.Client, error) {
	return smtp.Dial(ctx, c.Target)
}

func (b *book) Offered(_ string, maxSize int64, _ bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.sizes = append(b.sizes, maxSize)
}

func (b *book) NoteHealth(_, _ string, h connection.Health) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.health = append(b.health, h)
}

// item is mail of one tenant for a destination, "t:<tenant>" of its own when
// none is named.
func item(id, tenant, destination string, to ...string) *queue.Item {
	if len(to) == 0 {
		to = []string{"x"}
	}
	it := &queue.Item{
		ID: id, Message: "m-" + id, Tenant: tenant, Destination: destination, Connection: "mailbox", Domain: "b.test",
		From: mail.Address{Local: tenant, Domain: "a.test"}, Prefix: []byte("Received: by us\r\n"), Size: 100,
	}
	for _, local := range to {
		it.Recipients = append(it.Recipients, queue.Recipient{
			Recipient: mail.Recipient{Address: mail.Address{Local: local, Domain: "b.test"}}, State: "queued",
		})
	}
	return it
}

// running is a deliverer at work.
type running struct {
	*Deliverer
	stop context.CancelFunc
	done chan error
}

func quietConfig() Config {
	return Config{
		Hostname: func(string) string { return "out.test" }, Idle: 10 * time.Second,
		Log: slog.New(slog.DiscardHandler), Now: time.Now,
	}
}

// run starts a deliverer that is stopped with the test.
func run(t *testing.T, q *desk, b *book, change func(*Config)) *running {
	t.Helper()
	c := quietConfig()
	c.Log = slog.New(slog.NewTextHandler(testLog{t}, nil))
	grace := 5 * time.Second
	if change != nil {
		change(&c)
	}
	r := &running{Deliverer: build(c, q, b, fewTenants{}), done: make(chan error, 1)}
	ctx, stop := context.WithCancel(context.Background())
	r.stop = stop
	go func() { r.done <- r.Run(ctx, grace); close(r.done) }()
	t.Cleanup(func() {
		stop()
		if err := <-r.done; err != nil {
			t.Error(err)
		}
	})
	return r
}

// testLog writes a log into the test's.
type testLog struct{ t *testing.T }

func (l testLog) Write(p []byte) (int, error) {
	l.t.Logf("%s", bytes.TrimRight(p, "\n"))
	return len(p), nil
}
