package test

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	gosmtp "github.com/emersion/go-smtp"

	"github.com/sallyport-mail/sallyport/internal/exchange/sim"
)

// customer is a gateway whose tenant acme has its mailboxes at a simulated
// Microsoft 365.
type customer struct {
	*process
	arrivals func() []sim.Arrival
	one      sim.Listed
}

// identity is what the command line shows of one.
type identity struct {
	ID, Tenant, Connection, Purpose, Name, State, SHA256 string
	Epoch                                                int
	NotAfter                                             time.Time `json:"not_after"`
	Decoy                                                *bool
}

// replacement is what connection replace --json prints.
type replacement struct {
	OK    bool
	From  string
	To    string
	State string
	Steps []struct {
		State string
		At    time.Time
	}
	Refused    *int
	DelayedMax *int64 `json:"delayed_max_ms"`
	OldRefused bool   `json:"old_refused"`
	Identity   identity
	Next       *identity
}

func newCustomer(t *testing.T) *customer {
	t.Helper()
	s, err := sim.Open(sim.Config{Tenants: 1})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Serve(loopback(t), loopback(t)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = s.Close(ctx)
		if unknown := s.Unknown(); len(unknown) > 0 {
			t.Errorf("the simulator did not know %v", unknown)
		}
	})
	one := s.List()[0]
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, s.CA(), 0o600); err != nil {
		t.Fatal(err)
	}
	return customerOf(t, one, ca, func() []sim.Arrival { return s.Arrivals(one.EntraTenant) })
}

// customerOf starts a gateway with acme as a customer of a simulator that is
// there.
func customerOf(t *testing.T, one sim.Listed, ca string, arrivals func() []sim.Arrival) *customer {
	t.Helper()
	c := &customer{process: newProcess(t, ""), arrivals: arrivals, one: one}
	c.start()
	c.must("tenant", "add", "acme", "--region", "us")
	c.must("domain", "add", "acme", c.one.Domain, "--recipients", "none")
	token := writeToken(t, c.one.AdminToken+"\n")
	host, port, err := net.SplitHostPort(c.one.SMTP)
	if err != nil {
		t.Fatal(err)
	}
	out := c.must("connection", "add", "acme", "mailbox", "--kind", "m365", "--host", host, "--port", port, "--graph", c.one.Graph, "--ca", ca,
		"--entra-tenant", c.one.EntraTenant, "--admin-token-file", token, "--json")
	if strings.Contains(out, c.one.AdminToken) {
		t.Error("the administrator's token is shown")
	}
	return c
}

func loopback(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// active is acme's active identity for a purpose.
func (c *customer) active(purpose string) identity {
	c.t.Helper()
	for _, i := range object[[]identity](c.process, "identity", "list", "--tenant", "acme") {
		if i.Purpose == purpose && i.State == "active" {
			return i
		}
	}
	c.t.Fatalf("no active identity for %s", purpose)
	return identity{}
}

// load sends messages until stop is closed, and counts those that were
// accepted.
func (c *customer) load(stop <-chan struct{}, every time.Duration) (sent int) {
	var client *gosmtp.Client
	for {
		select {
		case <-stop:
			return sent
		case <-time.After(every):
		}
		var err error
		if client == nil {
			if client, err = gosmtp.Dial(c.smtp); err != nil {
				client = nil
				continue
			}
		}
		if err = c.letter(client, sent); err != nil { // the gateway was killed: not accepted
			client.Close()
			client = nil
			continue
		}
		sent++
	}
}

func (c *customer) letter(client *gosmtp.Client, n int) error {
	if err := client.Mail("bob@example.org", nil); err != nil {
		return err
	}
	if err := client.Rcpt("ann@"+c.one.Domain, nil); err != nil {
		return err
	}
	w, err := client.Data()
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintf(w, "Message-ID: <%d-%d@example.org>\r\nSubject: load\r\n\r\nx\r\n", n, time.Now().UnixNano()); err != nil && err != io.EOF {
		return err
	}
	return w.Close()
}

// arrived counts what has come, each Message-ID once.
func (c *customer) arrived() (distinct, all int) {
	seen := map[string]bool{}
	for _, a := range c.arrivals() {
		if strings.HasSuffix(a.MessageID, "@example.org>") {
			seen[a.MessageID] = true
			all++
		}
	}
	return len(seen), all
}

func (c *customer) await(want int) (all int) {
	c.t.Helper()
	for end := time.Now().Add(60 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		distinct, all := c.arrived()
		if distinct >= want {
			return all
		}
		if time.Now().After(end) {
			c.t.Fatalf("%d of %d messages have arrived\n%s\n%s", distinct, want, c.must("queue", "list"), c.log)
		}
	}
}

// TestReplaceUnderLoad replaces identities and moves from a compromised one
// while mail flows: nothing is refused, lost or doubled, and little is late.
func TestReplaceUnderLoad(t *testing.T) {
	c := newCustomer(t)
	stop, sent := make(chan struct{}), 0
	var load sync.WaitGroup
	load.Go(func() { sent = c.load(stop, 5*time.Millisecond) })
	c.await(20)
	worst := int64(0)
	for range 5 {
		before := c.active("smtp-client")
		r := object[replacement](c.process, "connection", "replace", "acme", "mailbox", "--wait")
		if !r.OK || r.From != before.Name || r.To == r.From || r.Refused == nil || *r.Refused != 0 || r.DelayedMax == nil {
			t.Fatalf("%+v", r)
		}
		worst = max(worst, *r.DelayedMax)
	}
	stolen := c.active("smtp-client")
	r := object[replacement](c.process, "identity", "compromise", stolen.ID)
	if !r.OK || !r.OldRefused || r.Identity.State != "compromised" || r.Next == nil || r.Next.Epoch != stolen.Epoch+1 {
		t.Fatalf("%+v", r)
	}
	r = object[replacement](c.process, "connection", "replace", "acme", "mailbox", "--wait")
	if !r.OK || r.Refused == nil || *r.Refused != 0 {
		t.Errorf("%+v", r)
	}
	close(stop)
	load.Wait()
	all := c.await(sent)
	t.Logf("%d messages over 6 replacements and a compromise: %d arrivals, late by %d ms at most in a replacement", sent, all, worst)
	if all != sent || worst > 5000 {
		t.Errorf("%d sent, %d arrived, %d ms late", sent, all, worst)
	}
	var queue struct{ Items []any }
	c.mustCall("GET", "/v1/queue", nil, &queue)
	if len(queue.Items) != 0 {
		t.Errorf("left in the queue: %v", queue.Items)
	}
	c.must("connection", "test", "acme", "mailbox")
}

// TestUndoUnderLoad leads replacements back at one moment and another while
// mail flows: nothing is refused, so that no route stops and no mail waits.
func TestUndoUnderLoad(t *testing.T) {
	c := newCustomer(t)
	stop, sent := make(chan struct{}), 0
	var load sync.WaitGroup
	load.Go(func() { sent = c.load(stop, 2*time.Millisecond) })
	c.await(20)
	before, undone := c.active("smtp-client").Name, 0
	for i := range 8 {
		c.must("connection", "replace", "acme", "mailbox")
		time.Sleep(time.Duration(i*15) * time.Millisecond) // another step each time
		out, _, code := c.cli("connection", "replace", "acme", "mailbox", "--undo", "--wait", "--json")
		if code == 0 && strings.Contains(out, `"state": "undone"`) {
			undone++
			if now := c.active("smtp-client").Name; now != before {
				t.Errorf("undone, and active is %s, not %s", now, before)
			}
		}
		before = c.active("smtp-client").Name
	}
	close(stop)
	load.Wait()
	if all := c.await(sent); all != sent || undone == 0 {
		t.Errorf("%d sent, %d arrived, %d undone", sent, all, undone)
	}
	if refused := c.must("message", "list", "--state", "failed", "--json"); strings.TrimSpace(refused) != "[]" {
		t.Errorf("refused: %s", refused)
	}
	t.Logf("%d messages over %d undone replacements", sent, undone)
}

// TestReplaceKilled kills the gateway, with its keeper, in the middle of
// replacements: each comes to its end after the next start, and no accepted
// message is lost.
func TestReplaceKilled(t *testing.T) {
	c := newCustomer(t)
	stop, sent := make(chan struct{}), 0
	var load sync.WaitGroup
	load.Go(func() { sent = c.load(stop, 10*time.Millisecond) })
	for i := range 5 {
		before := c.active("smtp-client")
		c.must("connection", "replace", "acme", "mailbox")
		time.Sleep(time.Duration(i*40) * time.Millisecond) // another step each time
		c.kill()
		c.start()
		// Asked for again it is the same one, or, where that was over, another.
		r := object[replacement](c.process, "connection", "replace", "acme", "mailbox", "--wait")
		now := c.active("smtp-client")
		if !r.OK || now.Name != r.To || now.Epoch <= before.Epoch {
			t.Fatalf("killed: %+v, active is %+v", r, now)
		}
		if admin := c.connectors(); len(admin) != 1 || admin[0] != r.To {
			t.Errorf("the connectors name %v, not %s", admin, r.To)
		}
	}
	close(stop)
	load.Wait()
	all := c.await(sent)
	t.Logf("%d messages, %d arrivals over 5 kills", sent, all)
	c.must("connection", "test", "acme", "mailbox")
}

// connectors are the certificate names that the customer's connectors let in.
func (c *customer) connectors() []string {
	var list struct {
		Steps []struct{ Name, Detail string }
	}
	c.mustCall("POST", "/v1/tenants/acme/connections/mailbox/setup", map[string]any{}, &list)
	for _, s := range list.Steps {
		if s.Name == "connector" {
			_, name, _ := strings.Cut(s.Detail, " names ")
			return []string{name}
		}
	}
	return nil
}
