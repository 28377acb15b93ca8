package acme

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sallyport-mail/sallyport/internal/testpeer/pebble"
)

// rig is the test CA pebble with an issuer at it. The CA validates for real: it
// looks names up at zone, and gets challenges from a listener that asks the
// issuer.
type rig struct {
	*Issuer
	config Config
	ca     *pebble.CA
	clock  atomic.Int64 // ahead of the true time
	got    atomic.Int64 // challenges that were fetched

	others int
}

// newRig starts a CA; set may change the issuer's settings.
func newRig(t *testing.T, set ...func(*Config)) *rig {
	t.Helper()
	r := &rig{}
	responder := httptest.NewServer(http.HandlerFunc(r.respond))
	t.Cleanup(responder.Close)
	r.ca = pebble.Start(t, port(t, responder.Listener.Addr()))
	r.config = Config{
		Directory: r.ca.Directory, Roots: r.ca.Roots,
		Contact: "postmaster@gate.example", Account: newKey(t), Poll: 10 * time.Millisecond, Timeout: 20 * time.Second,
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
	r.ca.Front.Store(&f)
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
	r.ca.Front.Store(&f)
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
