package edge

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/sallyport-mail/sallyport/internal/connection"
	"github.com/sallyport-mail/sallyport/internal/directory"
	"github.com/sallyport-mail/sallyport/internal/mail"
	"github.com/sallyport-mail/sallyport/internal/mailauth/dns"
	"github.com/sallyport-mail/sallyport/internal/queue"
	"github.com/sallyport-mail/sallyport/internal/smtp"
	"github.com/sallyport-mail/sallyport/internal/store"
	"github.com/sallyport-mail/sallyport/internal/tenant"
	"github.com/sallyport-mail/sallyport/internal/trace"
)

// house is the edge with real rooms around it: a store on disk, the
// registries, the queue and our own SMTP server on loopback.
type house struct {
	t           testing.TB
	store       *store.Store
	tenants     *tenant.Registry
	connections *connection.Registry
	directory   *directory.Directory
	trace       *trace.Log
	queue       *queue.Queue
	edge        *Edge
	dns         dns.Fake
	limits      Limits
	postmaster  mail.Address
	maxSize     int64
	hands       *hands // certificates
	passwords   map[string]string
}

func newHouse(t testing.TB) *house {
	t.Helper()
	h := &house{t: t, passwords: map[string]string{}, dns: dns.Fake{
		MXs:   map[string][]dns.MX{},
		Hosts: map[string][]netip.Addr{},
		Fail:  map[string]bool{},
	}}
	log := slog.New(slog.DiscardHandler)
	if testing.Verbose() {
		log = slog.New(slog.NewTextHandler(testWriter{t}, nil))
	}
	ctx := t.Context()
	var err error
	h.store = openStore(t)
	h.tenants, err = tenant.New(ctx, tenant.Config{DB: h.store.Control, Regions: []string{"us", "de"}, Log: log, Now: time.Now})
	h.must(err)
	t.Cleanup(func() { h.tenants.Close(context.Background()) })
	h.connections, err = connection.New(ctx, connection.Config{DB: h.store.Control, Tenants: h.tenants, Resolver: h.dns, Log: log, Now: time.Now})
	h.must(err)
	h.directory, err = directory.New(ctx, directory.Config{DB: h.store.Control, Tenants: h.tenants, Connections: h.connections, Hello: "mx.gate.test", Log: log, Now: time.Now})
	h.must(err)
	h.trace, err = trace.New(trace.Config{Road: h.store.Road, Trace: h.store.Trace, Log: log, Now: time.Now})
	h.must(err)
	h.queue, err = queue.New(ctx, queue.Config{
		Store: h.store, Trace: h.trace, Log: log, Now: time.Now,
		Limit:    func(string) int { return 20 },
		Times:    func(string) (time.Duration, time.Duration) { return 120 * time.Hour, 4 * time.Hour },
		Bounce:   func(string, mail.Address) (string, string, bool) { return "", "", false },
		Hostname: func(string) string { return "mx.gate.test" },
	})
	h.must(err)
	h.hands = newHands(t)
	return h
}

type testWriter struct{ t testing.TB }

func (w testWriter) Write(p []byte) (int, error) {
	if w.t.Context().Err() == nil {
		w.t.Logf("%s", p)
	}
	return len(p), nil
}

func (h *house) must(err error) {
	h.t.Helper()
	if err != nil {
		h.t.Fatal(err)
	}
}

// open makes the edge, when everything is set up.
func (h *house) open() {
	h.edge = New(Config{
		Store: h.store, Tenants: h.tenants, Connections: h.connections, Directory: h.directory,
		Queue: h.queue, Trace: h.trace, Limits: h.limits, Postmaster: h.postmaster,
		Hostname: func(region string) string {
			if region != "" {
				return "mx." + region + ".gate.test"
			}
			return "mx.gate.test"
		},
		PlatformRoots: h.hands.roots(),
		Log:           slog.New(slog.DiscardHandler),
	})
}

// listen serves a listener of that kind and returns its address.
func (h *house) listen(kind Kind, region string) string {
	h.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	h.must(err)
	server := &smtp.Server{Backend: h.edge.Backend(kind, region), Log: slog.New(slog.DiscardHandler), Now: time.Now}
	done := make(chan error, 1)
	rules := smtp.Listener{
		Name: string(kind), Hostname: func(*smtp.Conn) string { return h.edge.c.Hostname(region) },
		TLS:  &tls.Config{Certificates: []tls.Certificate{h.hands.server}, ClientAuth: tls.RequestClientCert},
		Auth: kind == Submission, InsecureAuth: kind == Submission,
		MaxSize: max(h.maxSize, 1<<20), MaxRcpt: 200, MaxErrors: 100, MaxConns: 100,
	}
	go func() { done <- server.Serve(l, rules) }()
	h.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := server.Shutdown(ctx); err != nil {
			h.t.Error(err)
		}
		if err := <-done; err != nil {
			h.t.Error(err)
		}
	})
	return l.Addr().String()
}

func (h *house) addTenant(name, region string, s tenant.Settings) {
	h.t.Helper()
	_, err := h.tenants.Add(h.t.Context(), "system", tenant.Tenant{Name: name, Region: region, Settings: s})
	h.must(err)
}

func (h *house) addDomain(owner, domain, how string) {
	h.t.Helper()
	_, err := h.tenants.AddDomain(h.t.Context(), "system", tenant.Domain{Name: domain, Tenant: owner, Recipients: how})
	h.must(err)
}

func (h *house) addMailbox(owner string) {
	h.addConnection(connection.Connection{Tenant: owner, Name: "mailbox", Kind: "smtp", Direction: "inbound", Host: "127.0.0.1", Port: 2601, TLS: "none"})
}

func (h *house) addConnection(c connection.Connection) {
	h.t.Helper()
	_, err := h.connections.Add(h.t.Context(), "system", c)
	h.must(err)
}

func (h *house) addUser(owner, user string) {
	h.t.Helper()
	_, password, err := h.tenants.AddSubmitter(h.t.Context(), "system", owner, user)
	h.must(err)
	h.passwords[user] = password
}

// plain is the initial response of AUTH PLAIN for a user (RFC 4616).
func (h *house) plain(user string) string {
	return base64.StdEncoding.EncodeToString([]byte("\x00" + user + "\x00" + h.passwords[user]))
}

// items are all items in the queue, in full.
func (h *house) items() []queue.Item {
	h.t.Helper()
	page, _, err := h.queue.List(h.t.Context(), queue.Filter{Limit: 1000})
	h.must(err)
	out := make([]queue.Item, len(page))
	for i, listed := range page {
		out[i], err = h.queue.Show(h.t.Context(), listed.Tenant, listed.ID)
		h.must(err)
	}
	return out
}

// body is what is sent behind the prefix.
func (h *house) body(it queue.Item) string {
	h.t.Helper()
	r, err := h.queue.Open(h.t.Context(), &it)
	h.must(err)
	defer r.Close()
	data, err := io.ReadAll(r)
	h.must(err)
	return string(data)
}
