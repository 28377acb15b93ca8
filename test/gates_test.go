package test

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sallyport-mail/sallyport/internal/exchange/sim"
	"github.com/sallyport-mail/sallyport/internal/mail"
	"github.com/sallyport-mail/sallyport/internal/smtp"
)

// cloud is a simulated Microsoft 365 and the gateway's tenants in it: tenant n
// of the simulator is tenant "t<n>" of the gateway, from 1.
type cloud struct {
	*sim.Sim
	list []sim.Listed
}

func startCloud(t testing.TB, tenants int) *cloud {
	t.Helper()
	s, err := sim.Open(sim.Config{Dir: filepath.Join(t.TempDir(), "m365"), Tenants: tenants})
	if err != nil {
		t.Fatal(err)
	}
	front, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	web, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Serve(front, web); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		s.Close(ctx)
		if u := s.Unknown(); len(u) > 0 {
			t.Errorf("the simulator does not know: %v", u)
		}
	})
	return &cloud{s, s.List()}
}

// connect makes the gateway's tenants, each with its connection.
func (c *cloud) connect(p *process, region func(n int) string) {
	p.t.Helper()
	for i, m := range c.list {
		name := fmt.Sprintf("t%d", i+1)
		host, port, _ := net.SplitHostPort(m.SMTP)
		p.must("tenant", "add", name, "--region", region(i+1))
		p.must("domain", "add", name, m.Domain, "--recipients", "none")
		p.must("connection", "add", name, "mailbox", "--kind", "m365", "--host", host, "--port", port, "--graph", m.Graph,
			"--ca", m.CAFile, "--entra-tenant", m.EntraTenant, "--admin-token-file", writeToken(p.t, m.AdminToken))
	}
}

func writeToken(t testing.TB, token string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(path, []byte(token), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// pacedLoad sends small messages to the cloud's tenants at a rate.
type pacedLoad struct {
	cloud   *cloud
	smtp    string
	refused atomic.Int64

	mu    sync.Mutex
	acked map[string]time.Time // by Message-ID
}

// run sends until ctx ends: senders at a time, each with a connection that it
// keeps.
func (l *pacedLoad) run(ctx context.Context, rate, senders int) {
	l.acked = map[string]time.Time{}
	var all sync.WaitGroup
	for s := range senders {
		all.Go(func() {
			var client *smtp.Client
			tick := time.NewTicker(time.Duration(senders) * time.Second / time.Duration(rate))
			defer tick.Stop()
			for n := 0; ; n++ {
				select {
				case <-ctx.Done():
					if client != nil {
						client.Quit()
					}
					return
				case <-tick.C:
				}
				client = l.send(client, s, n)
			}
		})
	}
	all.Wait()
}

// send sends one message; what it sends by is nil when it broke.
func (l *pacedLoad) send(client *smtp.Client, sender, n int) *smtp.Client {
	ctx := context.Background()
	if client == nil {
		var err error
		if client, err = smtp.Dial(ctx, smtp.Target{Address: l.smtp, Hello: "sender.example.org"}); err != nil {
			l.refused.Add(1)
			return nil
		}
	}
	domain := l.cloud.list[(sender+n)%len(l.cloud.list)].Domain
	id := fmt.Sprintf("<%d.%d@example.org>", sender, n)
	body := []byte("From: <a@example.org>\r\nTo: <user@" + domain + ">\r\nMessage-ID: " + id + "\r\nSubject: paced\r\n\r\nhello\r\n")
	res, err := client.Send(ctx, mail.Envelope{From: mail.Address{Local: "a", Domain: "example.org"},
		To: []mail.Recipient{{Address: mail.Address{Local: "user", Domain: domain}}}}, smtp.Content{Bytes: body, Size: int64(len(body))}, nil)
	if err != nil || len(res.Data) != 1 || res.Data[0].Code != 250 {
		l.refused.Add(1)
		client.Close()
		return nil
	}
	l.mu.Lock()
	l.acked[id] = time.Now()
	l.mu.Unlock()
	return client
}

// counted is what the mailboxes hold of a load.
type counted struct {
	sent, lost, twice int
	delays            []time.Duration // in order
}

func (l *pacedLoad) count() counted {
	at := map[string][]time.Time{}
	for _, m := range l.cloud.list {
		for _, a := range l.cloud.Arrivals(m.EntraTenant) {
			at[a.MessageID] = append(at[a.MessageID], a.Time)
		}
	}
	c := counted{sent: len(l.acked)}
	for id, acked := range l.acked {
		got := at[id]
		if len(got) == 0 {
			c.lost++
			continue
		}
		c.twice += len(got) - 1
		c.delays = append(c.delays, max(0, got[0].Sub(acked)))
	}
	slices.Sort(c.delays)
	return c
}

// campaign lets so many credentials be opened a minute, as two operators allow
// before they replace many identities at once: without their order the breaker
// takes that for a thief's work.
func (p *process) campaign(region string, rate int) {
	p.t.Helper()
	keys := p.operators(region, "anna", "bert")
	order := filepath.Join(p.t.TempDir(), "campaign.json")
	p.must("order", "make", "open-campaign", "--region", region, "--subject", "new identities for everybody", "--set", fmt.Sprintf("rate=%d", rate),
		"--set", "until="+time.Now().Add(time.Hour).UTC().Format(time.RFC3339), "--key", keys[0], "--out", order)
	p.must("order", "sign", order, "--key", keys[1], "--yes")
	p.must("order", "submit", order)
}

// operators are made known to the keeper that serve runs for a region; their
// keys' files are returned.
func (p *process) operators(region string, names ...string) (keys []string) {
	p.t.Helper()
	settings := filepath.Join(p.dir, "keeper", region, "keeper.toml")
	raw, err := os.ReadFile(settings)
	if err != nil {
		p.t.Fatal(err)
	}
	for _, name := range names {
		file, line := operatorKey(p.t, name)
		keys = append(keys, file)
		raw = append(raw, []byte("\n[[operator]]\nname = '"+name+"'\nkey = '"+line+"'\n")...)
	}
	if err := os.WriteFile(settings, raw, 0o600); err != nil {
		p.t.Fatal(err)
	}
	p.stop() // its keeper ends with it, and reads the settings anew
	p.start()
	return keys
}

// TestReplaceMany replaces identities while mail flows: nothing is lost,
// refused or duplicated by it. With SALLYPORT_BENCH it is the size that the
// benchmark asks for, and prints how long messages waited.
func TestReplaceMany(t *testing.T) {
	tenants, rate := 3, 60
	full := os.Getenv("SALLYPORT_BENCH") != ""
	if full {
		tenants, rate = 50, 500
	}
	c := startCloud(t, tenants)
	p := newProcess(t, "")
	p.start()
	c.connect(p, func(int) string { return "us" })
	p.campaign("us", 1000)
	l := &pacedLoad{cloud: c, smtp: p.smtp}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	loaded := make(chan struct{})
	go func() { defer close(loaded); l.run(ctx, rate, 10) }()
	time.Sleep(time.Second) // some of it before the first change, and some after the last

	began := time.Now()
	jobs := make(chan int)
	var all sync.WaitGroup
	var mu sync.Mutex
	var took []time.Duration
	for range 4 {
		all.Go(func() {
			for n := range jobs {
				start := time.Now()
				out, errs, code := p.cli("connection", "replace", fmt.Sprintf("t%d", n), "mailbox", "--wait", "--json")
				var r replacement
				if err := json.Unmarshal([]byte(out), &r); code != 0 || err != nil || !r.OK || r.From == r.To || r.Refused == nil || *r.Refused != 0 || r.DelayedMax == nil {
					t.Errorf("exit %d, %v: %s%s", code, err, out, errs)
				}
				mu.Lock()
				took = append(took, time.Since(start))
				mu.Unlock()
			}
		})
	}
	for n := range tenants {
		jobs <- n + 1
	}
	close(jobs)
	all.Wait()
	changed := time.Since(began)
	time.Sleep(time.Second)
	stop()
	<-loaded

	var got counted
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if got = l.count(); got.lost == 0 {
			break
		}
	}
	if got.lost > 0 || got.twice > 0 || l.refused.Load() > 0 || got.sent < rate {
		t.Errorf("of %d: %d lost, %d twice, %d refused\n%s", got.sent, got.lost, got.twice, l.refused.Load(), p.log)
	}
	for i, m := range c.list {
		arrived := c.Arrivals(m.EntraTenant)
		names := map[string]bool{}
		for _, a := range arrived {
			names[a.Certificate] = true
		}
		if len(names) != 2 {
			t.Errorf("t%d: its mail came as %v", i+1, names)
		}
	}
	if n := len(got.delays); n > 0 {
		fmt.Printf("%d replacements in %.1f s (slowest %.1f s) under %d messages/s: %d sent, %d lost, %d refused, %d duplicated; delay p50 %d ms, p99 %d ms, most %d ms\n",
			tenants, changed.Seconds(), slices.MaxFunc(took, cmp.Compare[time.Duration]).Seconds(), rate, got.sent, got.lost, l.refused.Load(), got.twice,
			got.delays[n/2].Milliseconds(), got.delays[n*99/100].Milliseconds(), got.delays[n-1].Milliseconds())
		if full && got.delays[n-1] > 2*time.Second {
			t.Errorf("a message waited %s", got.delays[n-1])
		}
	}
}
