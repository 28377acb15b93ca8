package deliver

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-mail/sallyport/internal/connection"
	"github.com/sallyport-mail/sallyport/internal/keeper/client"
	"github.com/sallyport-mail/sallyport/internal/mail"
	"github.com/sallyport-mail/sallyport/internal/mailauth/dns"
	"github.com/sallyport-mail/sallyport/internal/queue"
	"github.com/sallyport-mail/sallyport/internal/store"
	"github.com/sallyport-mail/sallyport/internal/tenant"
	"github.com/sallyport-mail/sallyport/internal/testpeer"
	"github.com/sallyport-mail/sallyport/internal/testpeer/custodian"
	"github.com/sallyport-mail/sallyport/internal/trace"
)

// house is a deliverer at work between real rooms: all but the way in.
type house struct {
	dir     string
	store   *store.Store
	tenants *tenant.Registry
	conns   *connection.Registry
	trace   *trace.Log
	queue   *queue.Queue
	custody *client.Files
	deliver *Deliverer
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// newHouse starts everything; it ends with the test. Every host is loopback.
func newHouse(t testing.TB, pools ...Pool) *house {
	t.Helper()
	h := &house{dir: t.TempDir()}
	log := slog.New(slog.DiscardHandler)
	ctx := t.Context()
	h.store = testpeer.OpenStore(t, store.Config{Dir: h.dir, Log: log, Now: time.Now})
	var err error
	h.tenants, err = tenant.New(ctx, tenant.Config{DB: h.store.Control, Regions: []string{"us"}, Log: log, Now: time.Now})
	must(t, err)
	h.custody = custodian.Files(t, h.dir)
	hosts := map[string][]netip.Addr{"mail.b.test": {netip.MustParseAddr("127.0.0.1")}}
	var d *Deliverer
	h.conns, err = connection.New(ctx, connection.Config{
		DB: h.store.Control, Tenants: h.tenants, Resolver: dns.Fake{Hosts: hosts}, Signers: h.custody,
		Credentials: h.custody, Log: log, Now: time.Now,
		Dress: func(c *connection.Candidate, tenant string) error { return d.Dress(c, tenant) },
	})
	must(t, err)
	h.trace, err = trace.New(trace.Config{Road: h.store.Road, Trace: h.store.Trace, Log: log, Now: time.Now})
	must(t, err)
	h.queue, err = queue.New(ctx, queue.Config{
		Store: h.store, Trace: h.trace, Log: log, Now: time.Now,
		Bounce:   func(string, mail.Address) (string, string, bool) { return "", "", false },
		Hostname: func(string) string { return "gw.test" },
	})
	must(t, err)
	d = New(Config{
		Queue: h.queue, Connections: h.conns, Tenants: h.tenants, Pools: pools, Log: log, Now: time.Now,
		Hostname: func(string) string { return "gw.test" },
	})
	h.deliver = d
	h.background(t, h.trace.Run)
	h.background(t, h.queue.Run)
	h.background(t, func(ctx context.Context) error { return d.Run(ctx, 5*time.Second) })
	return h
}

func (h *house) background(t testing.TB, run func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
}

// connect makes a tenant with the domain <name>.b.test, and its connection.
func (h *house) connect(t testing.TB, name, address string, c connection.Connection) {
	t.Helper()
	ctx := t.Context()
	_, err := h.tenants.Add(ctx, "system", tenant.Tenant{Name: name, Region: "us"})
	must(t, err)
	_, err = h.tenants.AddDomain(ctx, "system", tenant.Domain{Name: name + ".b.test", Tenant: name, Recipients: "none"})
	must(t, err)
	host, port, err := net.SplitHostPort(address)
	must(t, err)
	c.Tenant, c.Name, c.Kind = name, "mailbox", "smtp"
	if c.Host == "" {
		c.Host = host
	}
	c.Port, err = strconv.Atoi(port)
	must(t, err)
	_, err = h.conns.Add(ctx, "system", c)
	must(t, err)
}

// identity gives a tenant's connection a certificate of its own.
func (h *house) identity(t testing.TB, ca *testpeer.CA, name string) {
	t.Helper()
	dir := filepath.Join(h.dir, "identities", name)
	must(t, os.MkdirAll(dir, 0o700))
	ca.Issue(t, nil, "e1."+name+".us.sallyport.test").Write(t, dir, "mailbox")
}

// put queues a message for users of a tenant's domain.
func (h *house) put(t testing.TB, name, subject string, size int, users ...string) (id string) {
	t.Helper()
	body := h.store.Bodies.New()
	defer body.Discard()
	_, err := io.WriteString(body, "From: a@a.test\r\nTo: x@b.test\r\nMessage-ID: <"+subject+"@a.test>\r\nSubject: "+subject+"\r\n\r\n.dot\r\n"+
		strings.Repeat(strings.Repeat("x", 62)+"\r\n", size/64))
	must(t, err)
	refs, err := body.Finish(t.Context(), name)
	must(t, err)
	route, err := h.conns.Inbound(name, name+".b.test")
	must(t, err)
	it := queue.Item{
		Destination: route.Destination, Connection: "mailbox", Direction: "inbound", Region: "us", Domain: name + ".b.test",
		From: mail.Address{Local: "a", Domain: "a.test"}, Prefix: []byte("Received: from a.test by gw.test; now\r\n"), Size: body.Size() + 39,
	}
	var to []string
	for _, u := range users {
		a := mail.Address{Local: u, Domain: name + ".b.test"}
		it.Recipients = append(it.Recipients, queue.Recipient{Recipient: mail.Recipient{Address: a}})
		to = append(to, a.String())
	}
	ms := []queue.Message{{
		Summary: trace.Message{Tenant: name, Region: "us", Direction: "inbound", From: "a@a.test", To: to, Subject: subject, Size: it.Size},
		Body:    body, Ref: refs[0], Items: []queue.Item{it},
	}}
	must(t, h.queue.Put(t.Context(), ms))
	return ms[0].Summary.ID
}

// settled waits until a message's trace has a step of one of the kinds, and
// returns that step.
func (h *house) settled(t testing.TB, name, id string, kinds ...string) trace.Step {
	t.Helper()
	var steps []trace.Step
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		var err error
		_, steps, err = h.trace.Show(t.Context(), name, id)
		must(t, err)
		for _, s := range steps {
			for _, k := range kinds {
				if s.Step == k {
					return s
				}
			}
		}
	}
	t.Fatalf("no step of %v in the trace of %s: %s", kinds, id, showSteps(steps))
	return trace.Step{}
}

func showSteps(steps []trace.Step) string {
	var b strings.Builder
	for _, s := range steps {
		text := ""
		if s.Text != nil {
			text = *s.Text
		}
		fmt.Fprintf(&b, "\n%s: %s", s.Step, text)
	}
	return b.String()
}
