package api_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/sallyport-mail/sallyport/internal/api"
	"github.com/sallyport-mail/sallyport/internal/connection"
	"github.com/sallyport-mail/sallyport/internal/directory"
	"github.com/sallyport-mail/sallyport/internal/mail"
	"github.com/sallyport-mail/sallyport/internal/mailauth/dns"
	"github.com/sallyport-mail/sallyport/internal/queue"
	"github.com/sallyport-mail/sallyport/internal/store"
	"github.com/sallyport-mail/sallyport/internal/tenant"
	"github.com/sallyport-mail/sallyport/internal/testpeer/custodian"
	"github.com/sallyport-mail/sallyport/internal/trace"
)

// rig is the API over real rooms on SQLite.
type rig struct {
	keeper      *custodian.Keeper
	t           testing.TB
	cfg         api.Config
	store       *store.Store
	tenants     *tenant.Registry
	connections *connection.Registry
	queue       *queue.Queue
	trace       *trace.Log
	handler     http.Handler
	url         string
	operator    string // a token's secret
	log         *logBuffer
}

// logBuffer is a log that tests read while the server writes.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// fakeDNS has acme.test pointing here and nothing else.
func fakeDNS() *dns.Fake {
	return &dns.Fake{
		MXs:  map[string][]dns.MX{"acme.test": {{Host: "mx.us.example.net.", Preference: 10}}},
		TXTs: map[string][]string{"acme.test": {"v=spf1 include:_spf.example.net -all"}},
		Fail: map[string]bool{},
	}
}

func newRig(t testing.TB, options ...func(*api.Config)) *rig {
	t.Helper()
	ctx := t.Context()
	r := &rig{t: t, log: &logBuffer{}}
	log := slog.New(slog.NewTextHandler(r.log, nil))
	dir := t.TempDir()
	var err error
	r.store, err = store.Open(ctx, store.Config{Dir: dir, Log: log, Now: time.Now})
	must(t, err)
	t.Cleanup(func() { r.store.Close() })
	r.tenants, err = tenant.New(ctx, tenant.Config{DB: r.store.Control, Regions: []string{"us", "uk"}, Log: log, Now: time.Now})
	must(t, err)
	r.keeper = custodian.New(t)
	secrets := custodian.Files(t, t.TempDir())
	resolver := fakeDNS()
	r.connections, err = connection.New(ctx, connection.Config{
		DB: r.store.Control, Tenants: r.tenants, Resolver: resolver, Signers: secrets, Credentials: secrets, Log: log, Now: time.Now,
		Keepers: func(string) (connection.Keeper, error) { return r.keeper, nil },
	})
	must(t, err)
	recipients, err := directory.New(ctx, directory.Config{DB: r.store.Control, Tenants: r.tenants, Connections: r.connections, Log: log, Now: time.Now})
	must(t, err)
	r.trace, err = trace.New(trace.Config{Road: r.store.Road, Trace: r.store.Trace, Log: log, Now: time.Now})
	must(t, err)
	r.queue, err = queue.New(ctx, queueConfig(r, log))
	must(t, err)
	r.cfg = api.Config{
		Tenants: r.tenants, Connections: r.connections, Directory: recipients, Queue: r.queue, Trace: r.trace, Resolver: resolver,
		Hostname:      func(region string) string { return "mx." + region + ".example.net" },
		SPF:           "include:_spf.example.net",
		SetCredential: r.connections.SetCredential,
		Store:         r.storeStats,
		Backup:        r.store.Backup,
		Scratch:       t.TempDir(),
		Version:       "test",
		Log:           log,
		Now:           time.Now,
	}
	for _, o := range options {
		o(&r.cfg)
	}
	r.handler = api.New(r.cfg)
	server := httptest.NewServer(r.handler)
	t.Cleanup(server.Close)
	r.url = server.URL
	r.operator = r.token(tenant.Operator, "")
	return r
}

func (r *rig) storeStats() api.StoreStats {
	s := r.store.Stats()
	return api.StoreStats{Commits: s.Commits, Changes: s.Changes, WALBytes: s.WALBytes, FreeBytes: s.FreeBytes}
}

func (r *rig) token(role tenant.Role, of string) string {
	r.t.Helper()
	_, secret, err := r.tenants.AddToken(r.t.Context(), "system", tenant.Token{Role: role, Tenant: of})
	must(r.t, err)
	return secret
}

// tenant adds a tenant with one of everything, all named after it.
func (r *rig) tenant(name string) {
	r.t.Helper()
	ctx := r.t.Context()
	_, err := r.tenants.Add(ctx, "system", tenant.Tenant{Name: name, Region: "us"})
	must(r.t, err)
	_, err = r.tenants.AddDomain(ctx, "system", tenant.Domain{Name: name + ".test", Tenant: name, Recipients: "list"})
	must(r.t, err)
	_, err = r.connections.Add(ctx, "system", connection.Connection{
		Tenant: name, Name: name + "-mailbox", Kind: "smtp", Direction: "inbound", Host: "127.0.0.1", Port: 1, TLS: "none", Auth: "plain", User: name + "-relay",
	})
	must(r.t, err)
	_, err = r.cfg.Directory.Add(ctx, "system", name, mail.Address{Local: "ann", Domain: name + ".test"})
	must(r.t, err)
}

// put queues a message of a tenant and returns its id and its item's.
func (r *rig) put(of string, state queue.State) (message, item string) {
	r.t.Helper()
	ctx := r.t.Context()
	body := r.store.Bodies.New()
	defer body.Discard()
	text := fmt.Sprintf("From: <bob@example.org>\r\nSubject: for %s\r\n\r\nHello.\r\n", of)
	_, err := body.Write([]byte(text))
	must(r.t, err)
	refs, err := body.Finish(ctx, of)
	must(r.t, err)
	now := time.Now()
	message = ulid.Make().String()
	to := mail.Address{Local: "ann", Domain: of + ".test"}
	from := mail.Address{Local: "bob", Domain: "example.org"}
	must(r.t, r.queue.Put(ctx, []queue.Message{{
		Summary: trace.Message{
			ID: message, MessageID: "<" + message + "/x@" + of + ".test>", Tenant: of, Region: "us", Direction: "inbound",
			From: from.String(), To: []string{to.String()}, Subject: "for " + of, Size: int64(len(text)), ReceivedAt: now, State: "queued",
		},
		Body: body, Ref: refs[0],
		Items: []queue.Item{{
			Region: "us", Direction: "inbound", Destination: "t:" + of + ":" + of + "-mailbox", Connection: of + "-mailbox", Domain: of + ".test",
			From: from, Recipients: []queue.Recipient{{Recipient: mail.Recipient{Address: to}, State: "queued"}},
			MessageID: "<" + message + "/x@" + of + ".test>", Subject: "for " + of, State: state, Reason: "looked odd",
		}},
	}}))
	page, _, err := r.queue.List(ctx, queue.Filter{Tenant: of, Message: message})
	must(r.t, err)
	if len(page) != 1 {
		r.t.Fatalf("%d items of message %s", len(page), message)
	}
	return message, page[0].ID
}

// answer is what came back.
type answer struct {
	status int
	header http.Header
	body   []byte
}

func (a answer) into(t testing.TB, v any) {
	t.Helper()
	if err := json.Unmarshal(a.body, v); err != nil {
		t.Fatalf("%v in %s", err, a.body)
	}
}

// problem reads a problem document and checks what all have in common.
func (a answer) problem(t testing.TB) api.Problem {
	t.Helper()
	var p api.Problem
	if ct := a.header.Get("Content-Type"); ct != "application/problem+json" {
		t.Errorf("Content-Type %q of %d: %s", ct, a.status, a.body)
		return p
	}
	a.into(t, &p)
	if p.Status != a.status || p.Type == "" || p.Title == "" || p.Detail == "" {
		t.Errorf("a problem lacks a member or has the wrong status: %d %s", a.status, a.body)
	}
	return p
}

// call sends a request; a body that is a string is sent as it is.
func (r *rig) call(method, path, token string, body any, header ...string) answer {
	r.t.Helper()
	return send(r.t, r.url, method, path, token, body, header...)
}

func send(t testing.TB, base, method, path, token string, body any, header ...string) answer {
	t.Helper()
	var reader io.Reader
	switch b := body.(type) {
	case nil:
	case string:
		reader = bytes.NewReader([]byte(b))
	default:
		data, err := json.Marshal(b)
		must(t, err)
		reader = bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(context.WithoutCancel(t.Context()), method, base+path, reader)
	must(t, err)
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultTransport.RoundTrip(req) // follows no redirect
	must(t, err)
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	must(t, err)
	return answer{resp.StatusCode, resp.Header, data}
}

// ok sends a request that must succeed.
func (r *rig) ok(method, path, token string, body any, header ...string) answer {
	r.t.Helper()
	a := r.call(method, path, token, body, header...)
	if a.status < 200 || a.status > 299 {
		r.t.Fatalf("%s %s: %d %s", method, path, a.status, a.body)
	}
	return a
}

func queueConfig(r *rig, log *slog.Logger) queue.Config {
	return queue.Config{
		Store: r.store, Trace: r.trace, Log: log, Now: time.Now,
		Limit:    func(string) int { return 20 },
		Times:    func(string) (expiry, delayNotice time.Duration) { return 120 * time.Hour, 0 },
		Bounce:   func(string, mail.Address) (string, string, bool) { return "", "", false },
		Hostname: func(string) string { return "mx.example.net" },
	}
}
