// Package pebble runs Let's Encrypt's test CA inside a suite: it looks names
// up at a zone of its own, where all are 127.0.0.1, or at a DNS server that the
// suite has, and validates for real.
//
// It is imported by tests alone.
package pebble

import (
	"encoding/pem"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"

	"github.com/letsencrypt/pebble/v2/ca"
	"github.com/letsencrypt/pebble/v2/db"
	"github.com/letsencrypt/pebble/v2/va"
	"github.com/letsencrypt/pebble/v2/wfe"
)

// CA is a running test CA.
type CA struct {
	DB        *db.MemoryStore
	Zone      *Zone        // nil when it looks names up elsewhere
	Directory string       // URL of its directory
	Roots     []byte       // PEM of what the directory's own certificate is of
	Asked     atomic.Int64 // requests that it saw
	// Front answers in place of the CA, where it returns true.
	Front atomic.Pointer[func(http.ResponseWriter, *http.Request) bool]

	resolver  string
	authority *ca.CAImpl
	itself    http.Handler
}

// Start starts a CA that fetches the challenges of HTTP-01 from a port of
// 127.0.0.1. It ends with the test.
func Start(t *testing.T, httpPort int) *CA {
	t.Helper()
	z := NewZone(t)
	return start(t, &CA{Zone: z, resolver: z.Addr}, httpPort)
}

// StartBehind starts a CA that looks names up at a DNS server (host:port), over
// TCP, in place of a zone of its own. It is of use for DNS-01.
func StartBehind(t *testing.T, resolver string) *CA {
	t.Helper()
	return start(t, &CA{resolver: resolver}, 1) // nobody listens there
}

func start(t *testing.T, c *CA, httpPort int) *CA {
	t.Helper()
	t.Setenv("PEBBLE_VA_NOSLEEP", "1")
	t.Setenv("PEBBLE_AUTHZREUSE", "0")
	c.DB = db.NewMemoryStore()
	c.itself = c.Handler(httpPort, false)
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		c.Asked.Add(1)
		if f := c.Front.Load(); f != nil && (*f)(w, q) {
			return
		}
		c.itself.ServeHTTP(w, q)
	}))
	t.Cleanup(server.Close)
	c.Directory = server.URL + wfe.DirectoryPath
	c.Roots = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	return c
}

// ServeHTTP is the CA itself, past what Front answers.
func (c *CA) ServeHTTP(w http.ResponseWriter, q *http.Request) { c.itself.ServeHTTP(w, q) }

// Handler is another front of the same database, which may want accounts to be
// bound to external ones.
func (c *CA) Handler(httpPort int, external bool) http.Handler {
	quiet := log.New(io.Discard, "", 0)
	authority := ca.New(quiet, c.DB, "", "ecdsa", 0, 1, map[string]ca.Profile{
		"default": {Description: "usual"}, "short": {Description: "six days", ValidityPeriod: 6 * 24 * 3600},
	})
	if c.authority == nil {
		c.authority = authority
	}
	validator := va.New(quiet, httpPort, 0, true, c.resolver, c.DB)
	front := wfe.New(quiet, c.DB, validator, authority, nil, true, external, 0, 0)
	return front.Handler()
}

// Root is the root of what Directory issues, PEM.
func (c *CA) Root() []byte { return c.authority.GetRootCert(0).PEM() }
