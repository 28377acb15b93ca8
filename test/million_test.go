package test

import (
	"context"
	"database/sql"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sallyport-mail/sallyport/internal/mail"
	"github.com/sallyport-mail/sallyport/internal/smtp"
)

// TestMillion queues very many messages for mailboxes that are away. What it
// costs others is measured while they are retried, dropped and expire; then
// the gateway is killed, and all that is left must arrive.
func TestMillion(t *testing.T) {
	for _, c := range []struct {
		name                             string
		messages, chaos, destinations, n int // destinations of each of the three tenants
	}{
		{"one destination", 50_000, 1_000_000, 1, 1},
		{"many destinations", 10_000, 1_000_000, 500, 10_000 / 3},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := &bulk{messages: c.messages, destinations: c.destinations, window: 500 * time.Millisecond}
			if chaos() {
				b.messages, b.destinations, b.window = c.chaos, c.n, 15*time.Second
			}
			b.run(t)
		})
	}
}

// bulk is a gateway with a long queue.
type bulk struct {
	p                      *process
	messages, destinations int           // destinations of each tenant
	window                 time.Duration // of a measurement
	mailbox                string        // where the queue's mail goes
	other                  *foreignSink  // the mailbox of somebody else
	rounds                 int
	// control is another gateway, with an empty queue: what the machine gives
	// at the moment. It idles while the other is measured.
	control      *process
	controlOther *foreignSink
}

// pace is what somebody else gets from the gateway.
type pace struct {
	rate float64 // messages accepted in a second
	p99  time.Duration
}

func (b *bulk) run(t *testing.T) {
	b.p = newProcess(t, "")
	b.mailbox, b.other = freeAddresses(t, 1)[0], startForeignSink(t)
	b.p.start()
	b.p.addTenant("other", "other.test", b.other.addr)
	for _, name := range []string{"drop", "keep", "expire"} {
		b.tenant(t, name)
	}
	b.startControl(t)
	begun := time.Now()
	kept := b.fill(t)
	t.Logf("%d messages queued in %v: %d MiB at most", b.messages, time.Since(begun).Round(time.Second), b.peak(t))
	b.during(t, "retried", "/v1/queue/retry", map[string]any{"all": true})
	if n := b.during(t, "dropped", "/v1/queue/drop", map[string]any{"tenant": "drop", "reason": "no use"}); n < b.messages/3-200 {
		t.Errorf("only %d were dropped", n)
	}
	b.expire(t)
	b.memory(t)
	b.killed(t, kept)
}

func (b *bulk) startControl(t *testing.T) {
	t.Helper()
	b.control, b.controlOther = newProcess(t, ""), startForeignSink(t)
	b.control.start()
	b.control.addTenant("other", "other.test", b.controlOther.addr)
	b.measure(t, b.p, b.other) // first steps count for nobody
	b.measure(t, b.control, b.controlOther)
	b.judge(t, "empty", b.measure(t, b.control, b.controlOther), b.measure(t, b.p, b.other))
}

// tenant makes a tenant with as many domains and connections as there are
// destinations.
func (b *bulk) tenant(t *testing.T, name string) {
	t.Helper()
	host, port, err := net.SplitHostPort(b.mailbox)
	if err != nil {
		t.Fatal(err)
	}
	number, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	b.p.mustCall("POST", "/v1/tenants", map[string]any{"name": name, "region": "us"}, nil)
	failed := b.parallel(b.destinations, func(i int) error {
		err := b.p.call("POST", "/v1/tenants/"+name+"/domains", map[string]any{"name": domainOf(name, i)}, nil)
		if err != nil {
			return err
		}
		return b.p.call("POST", "/v1/tenants/"+name+"/connections", map[string]any{"name": fmt.Sprint("c", i), "kind": "smtp", "tls": "none",
			"hosts": []map[string]any{{"host": host, "port": number}}, "domains": []string{domainOf(name, i)}}, nil)
	})
	if failed != nil {
		t.Fatal(failed)
	}
}

func domainOf(tenant string, i int) string { return fmt.Sprintf("d%d.%s.test", i, tenant) }

// parallel calls f for each number, and returns one of its errors.
func (b *bulk) parallel(n int, f func(i int) error) error {
	var next atomic.Int64
	var failed atomic.Pointer[error]
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < n && failed.Load() == nil; i = int(next.Add(1)) - 1 {
				if err := f(i); err != nil {
					failed.Store(&err)
				}
			}
		})
	}
	wg.Wait()
	if err := failed.Load(); err != nil {
		return *err
	}
	return nil
}

// fill queues messages for the three tenants, a third each, and returns the
// numbers of those that are to be kept.
func (b *bulk) fill(t *testing.T) []string {
	t.Helper()
	tenants := []string{"drop", "keep", "expire"}
	const batch = 200
	failed := b.parallel(b.messages/batch, func(i int) error { return b.batch(t.Context(), tenants[i%3], i*batch, batch) })
	if failed != nil {
		t.Fatal(failed)
	}
	var kept []string
	for i := range b.messages / batch {
		for n := range batch {
			if tenants[i%3] == "keep" {
				kept = append(kept, fmt.Sprint("bulk-", i*batch+n))
			}
		}
	}
	return kept
}

// batch sends messages of 2 KB on one connection.
func (b *bulk) batch(ctx context.Context, tenant string, from, n int) error {
	c, err := smtp.Dial(ctx, smtp.Target{Address: b.p.smtp, Hello: "bulk.example.org"})
	if err != nil {
		return err
	}
	defer c.Close()
	for i := from; i < from+n; i++ {
		body := loadMessage(fmt.Sprint("bulk-", i), 2000)
		env := mail.Envelope{From: mail.Address{Local: "bulk", Domain: "example.org"},
			To: []mail.Recipient{{Address: mail.Address{Local: "user", Domain: domainOf(tenant, i%b.destinations)}}}}
		res, err := c.Send(ctx, env, smtp.Content{Bytes: body, Size: int64(len(body))}, nil)
		if err != nil || len(res.Data) != 1 || res.Data[0].Code != 250 {
			return fmt.Errorf("message %d: %+v, %w", i, res, err)
		}
	}
	return nil
}

// measure is what somebody else gets now.
func (b *bulk) measure(t *testing.T, p *process, sink *foreignSink) pace {
	t.Helper()
	b.rounds++
	l := &load{addr: p.smtp, size: 2000, name: fmt.Sprintf("other-%d-", b.rounds), to: "other.test"}
	ctx, cancel := context.WithTimeout(t.Context(), b.window)
	defer cancel()
	l.run(ctx, 10)
	acked := l.numbers()
	onlyReplies(t, l, 250)
	waitFor(t, "somebody else's mail has arrived", func() bool { return len(sink.missing(acked)) == 0 })
	var delays []time.Duration
	sink.mu.Lock()
	for _, seq := range acked {
		delays = append(delays, max(0, sink.at[seq].Sub(l.at[seq])))
	}
	sink.mu.Unlock()
	if len(delays) == 0 {
		t.Fatalf("nothing of somebody else was accepted: %s", p.log)
	}
	slices.Sort(delays)
	return pace{float64(len(acked)) / b.window.Seconds(), delays[len(delays)*99/100]}
}

// during measures while a bulk act runs, and returns how many items it changed.
// A retry changes none that are ready: it has the destinations tried.
func (b *bulk) during(t *testing.T, what, path string, in map[string]any) int {
	t.Helper()
	done := make(chan error, 1)
	var changed struct{ Changed int }
	empty := b.measure(t, b.control, b.controlOther)
	begun := time.Now()
	var took time.Duration
	go func() {
		err := b.p.call("POST", path, in, &changed)
		took = time.Since(begun)
		done <- err
	}()
	now := b.measure(t, b.p, b.other)
	if err := <-done; err != nil {
		t.Errorf("%s: %v", what, err)
	}
	t.Logf("%d are %s in %v", changed.Changed, what, took.Round(time.Millisecond))
	b.judge(t, what, empty, now)
	return changed.Changed
}

func (b *bulk) judge(t *testing.T, what string, empty, now pace) {
	t.Helper()
	t.Logf("while the queue is %s: %.0f messages a second (%.0f %% of %.0f), p99 %v (was %v)", what, now.rate, 100*now.rate/empty.rate, empty.rate, now.p99, empty.p99)
	if !chaos() {
		return // two busy cores say nothing about time
	}
	if now.rate < 0.8*empty.rate {
		t.Errorf("%s: accept keeps %.0f %% of its rate", what, 100*now.rate/empty.rate)
	}
	if now.p99 > 2*empty.p99 {
		t.Errorf("%s: p99 of somebody else is %v, was %v", what, now.p99, empty.p99)
	}
}

// expire lets the time of one tenant's messages be over.
func (b *bulk) expire(t *testing.T) {
	t.Helper()
	b.p.stop()
	db, err := sql.Open("sqlite", "file:"+filepath.Join(b.p.dir, "db", "road.db"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = db.Exec(`UPDATE item SET expires = received + 1 WHERE tenant = 'expire'`)
	if closed := db.Close(); err != nil || closed != nil {
		t.Fatal(err, closed)
	}
	empty := b.measure(t, b.control, b.controlOther)
	begun := time.Now()
	b.p.start()
	b.judge(t, "expired", empty, b.measure(t, b.p, b.other))
	patience := time.Minute + time.Duration(b.messages)*time.Millisecond
	for b.waiting(t, "expire") && time.Since(begun) < patience {
		time.Sleep(100 * time.Millisecond)
	}
	if b.waiting(t, "expire") {
		t.Errorf("not all have expired within %v", patience)
	}
	t.Logf("all have expired after %v", time.Since(begun).Round(time.Millisecond))
}

// waiting reports whether a tenant has mail that is still to be delivered.
func (b *bulk) waiting(t *testing.T, tenant string) bool {
	t.Helper()
	for _, state := range []string{"ready", "deferred"} {
		var page struct{ Items []any }
		b.p.mustCall("GET", "/v1/queue", nil, &page, "tenant", tenant, "state", state, "limit", "1")
		if len(page.Items) > 0 {
			return true
		}
	}
	return false
}

// peak is the most memory that the process has had, in MiB.
func (b *bulk) peak(t *testing.T) int { return b.p.status(t, "VmHWM:") }

func (b *bulk) memory(t *testing.T) {
	t.Helper()
	most := b.peak(t)
	t.Logf("%d MiB at most", most)
	if most > 400 {
		t.Errorf("the gateway needed %d MiB", most)
	}
}

// killed kills the gateway, has the mailboxes back, and waits for all mail
// that is left.
func (b *bulk) killed(t *testing.T, kept []string) {
	t.Helper()
	b.p.kill()
	sink := startForeignSinkAt(t, b.mailbox)
	begun := time.Now()
	b.p.start()
	started := time.Since(begun)
	if err := b.parallel(b.destinations, func(i int) error {
		return b.p.call("POST", "/v1/destinations/resume", map[string]any{"destination": fmt.Sprintf("t:keep:c%d", i)}, nil)
	}); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the first delivery", func() bool { n, _ := sink.counts(); return n > 0 })
	first := sink.first().Sub(begun)
	t.Logf("after kill -9: started in %v, first delivery after %v", started.Round(time.Millisecond), first.Round(time.Millisecond))
	if chaos() && first > 15*time.Second {
		t.Errorf("the first delivery took %v", first)
	}
	patience := time.Minute + time.Duration(len(kept))*time.Millisecond*4
	for deadline := time.Now().Add(patience); len(sink.missing(kept)) > 0 && time.Now().Before(deadline); {
		time.Sleep(500 * time.Millisecond)
	}
	if missing := sink.missing(kept); len(missing) > 0 {
		t.Errorf("%d of %d did not arrive within %v, the first is %s\n%.2000s", len(missing), len(kept), patience, missing[0],
			b.p.must("queue", "destinations", "--tenant", "keep"))
	}
	distinct, extra := sink.counts()
	t.Logf("%d arrived %v after the start, %d copies too many", distinct, time.Since(begun).Round(time.Second), extra)
	if distinct != len(kept) {
		t.Errorf("%d messages arrived, %d were to be kept: what was dropped or had expired came too", distinct, len(kept))
	}
	b.memory(t)
}
