package acme

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/letsencrypt/pebble/v2/ca"
	"github.com/letsencrypt/pebble/v2/db"
	"github.com/letsencrypt/pebble/v2/va"
	"github.com/letsencrypt/pebble/v2/wfe"
	"github.com/miekg/dns"
)

// rig is the test CA pebble with an issuer at it. The CA validates for real: it
// looks names up at zone, and gets challenges from a listener that asks the
// issuer.
type rig struct {
	*Issuer
	config Config
	db     *db.MemoryStore
	server *httptest.Server
	zone   *zone
	asked  atomic.Int64 // requests that the CA saw
	// front answers in place of the CA, where it returns true.
	front atomic.Pointer[func(http.ResponseWriter, *http.Request) bool]
	clock atomic.Int64 // ahead of the true time
	got   atomic.Int64 // challenges that were fetched

	others       int
	authorityNow http.Handler // the CA itself
}

// newRig starts a CA; set may change the issuer's settings.
func newRig(t *testing.T, set ...func(*Config)) *rig {
	t.Helper()
	t.Setenv("PEBBLE_VA_NOSLEEP", "1")
	t.Setenv("PEBBLE_AUTHZREUSE", "0")
	r := &rig{db: db.NewMemoryStore(), zone: newZone(t)}
	responder := httptest.NewServer(http.HandlerFunc(r.respond))
	t.Cleanup(responder.Close)
	r.server = httptest.NewTLSServer(r.authority(port(t, responder.Listener.Addr()), false))
	t.Cleanup(r.server.Close)
	r.config = Config{
		Directory: r.server.URL + wfe.DirectoryPath,
		Roots:     pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: r.server.Certificate().Raw}),
		Contact:   "postmaster@gate.example", Account: newKey(t), Poll: 10 * time.Millisecond, Timeout: 20 * time.Second,
		Now: func() time.Time { return time.Now().Add(time.Duration(r.clock.Load())) },
	}
	for _, f := range set {
		f(&r.config)
	}
	r.Issuer = r.issuer(t)
	return r
}

func (r *rig) issuer(t *testing.T) *Issuer {
	t.Helper()
	i, err := New(r.config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(i.base.(*http.Transport).CloseIdleConnections)
	return i
}

// another is an issuer that has not seen the directory: the library keeps one by
// its URL for the whole process.
func (r *rig) another(t *testing.T) *Issuer {
	t.Helper()
	r.others++
	c := r.config
	c.Directory += "?" + strconv.Itoa(r.others)
	i, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(i.base.(*http.Transport).CloseIdleConnections)
	r.Issuer = i
	return i
}

// authority is pebble behind what front answers.
func (r *rig) authority(httpPort int, external bool) http.Handler {
	quiet := log.New(io.Discard, "", 0)
	authority := ca.New(quiet, r.db, "", "ecdsa", 0, 1, map[string]ca.Profile{
		"default": {Description: "usual"}, "short": {Description: "six days", ValidityPeriod: 6 * 24 * 3600},
	})
	validator := va.New(quiet, httpPort, 0, true, r.zone.addr, r.db)
	front := wfe.New(quiet, r.db, validator, authority, nil, true, external, 0, 0)
	handler := front.Handler()
	r.authorityNow = handler
	return http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		r.asked.Add(1)
		if f := r.front.Load(); f != nil && (*f)(w, q) {
			return
		}
		handler.ServeHTTP(w, q)
	})
}

// respond is what a gateway does on port 80.
func (r *rig) respond(w http.ResponseWriter, q *http.Request) {
	token, ok := strings.CutPrefix(q.URL.Path, "/.well-known/acme-challenge/")
	answer, known := "", false
	if ok && r.Issuer != nil {
		answer, known = r.Challenge(token)
	}
	if !known {
		http.NotFound(w, q)
		return
	}
	r.got.Add(1)
	io.WriteString(w, answer)
}

// instead lets something else answer where the path has a part.
func (r *rig) instead(part string, answer http.HandlerFunc) {
	f := func(w http.ResponseWriter, q *http.Request) bool {
		if !strings.Contains(q.URL.Path, part) {
			return false
		}
		answer(w, q)
		return true
	}
	r.front.Store(&f)
}

// orders tells what the orders from now on say that they replace. One that
// replaces the certificate of that id is told that it has been already: pebble
// says so too, but its threads race for that.
func (r *rig) orders(t *testing.T, already string) <-chan string {
	replaces := make(chan string, 100)
	f := func(w http.ResponseWriter, q *http.Request) bool {
		if !strings.Contains(q.URL.Path, "/order-plz") {
			return false
		}
		var jws struct{ Payload string }
		var order struct{ Replaces string }
		body, err := io.ReadAll(q.Body)
		q.Body = io.NopCloser(bytes.NewReader(body))
		if err == nil {
			err = json.Unmarshal(body, &jws)
		}
		payload, e := base64.RawURLEncoding.DecodeString(jws.Payload)
		if err = errors.Join(err, e, json.Unmarshal(payload, &order)); err != nil {
			t.Error(err)
		}
		replaces <- order.Replaces
		if already == "" || order.Replaces != already {
			return false
		}
		problem(w, 409, "alreadyReplaced", "it was replaced", "")
		return true
	}
	r.front.Store(&f)
	return replaces
}

func newKey(t testing.TB) crypto.Signer {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func port(t *testing.T, a net.Addr) int {
	t.Helper()
	_, text, err := net.SplitHostPort(a.String())
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func parsed(t *testing.T, der []byte) *x509.Certificate {
	t.Helper()
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// zone is a DNS server that says 127.0.0.1 of every name, and the TXT records
// that were published. It fulfils DNS.
type zone struct {
	addr  string
	mu    sync.Mutex
	texts map[string][]string
	most  int   // records at a time
	fail  error // of Publish
}

func newZone(t *testing.T) *zone {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	z := &zone{addr: l.Addr().String(), texts: map[string][]string{}}
	s := &dns.Server{Listener: l, Handler: z}
	started := make(chan struct{})
	s.NotifyStartedFunc = func() { close(started) }
	done := make(chan error, 1)
	go func() { done <- s.ActivateAndServe() }()
	<-started
	t.Cleanup(func() {
		if err := s.Shutdown(); err != nil {
			t.Error(err)
		}
		<-done
	})
	return z
}

// ServeDNS is of dns.Handler.
func (z *zone) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	m := new(dns.Msg)
	m.SetReply(q)
	head := dns.RR_Header{Name: q.Question[0].Name, Rrtype: q.Question[0].Qtype, Class: dns.ClassINET}
	switch q.Question[0].Qtype {
	case dns.TypeA:
		m.Answer = append(m.Answer, &dns.A{Hdr: head, A: net.IPv4(127, 0, 0, 1)})
	case dns.TypeTXT:
		z.mu.Lock()
		for _, text := range z.texts[strings.TrimSuffix(head.Name, ".")] {
			m.Answer = append(m.Answer, &dns.TXT{Hdr: head, Txt: []string{text}})
		}
		z.mu.Unlock()
	}
	w.WriteMsg(m)
}

// Publish is of DNS.
func (z *zone) Publish(_ context.Context, fqdn, value string) error {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.texts[fqdn] = append(z.texts[fqdn], value)
	z.most = max(z.most, len(z.texts))
	return z.fail
}

// Withdraw is of DNS.
func (z *zone) Withdraw(_ context.Context, fqdn, _ string) error {
	z.mu.Lock()
	defer z.mu.Unlock()
	delete(z.texts, fqdn)
	return nil
}
