package acme

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
)

const name = "e1.acme.us.gate.example"

// The CA's words reach who asked, with the kind that says what to do.
func TestOrderInvalid(t *testing.T) {
	r := newRig(t)
	if err := r.ca.DB.AddBlockedDomain("blocked.example"); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Issue(t.Context(), "mx.blocked.example", newKey(t), nil); !fault.Is(err, fault.Never) || !strings.Contains(err.Error(), "rejectedIdentifier") || fault.HintOf(err) == "" {
		t.Errorf("a name that it does not certify: %v", err)
	}
	// Nobody answers the challenge.
	own := r.Issuer
	r.Issuer = nil
	_, err := own.Issue(t.Context(), name, newKey(t), nil)
	if !fault.Is(err, fault.Denied) || !strings.Contains(err.Error(), "unauthorized") || !strings.Contains(fault.HintOf(err), "port 80") {
		t.Errorf("a challenge that nobody answers: %v", err)
	}
	if len(own.tokens) != 0 {
		t.Errorf("challenges are left: %v", own.tokens)
	}
	r.Issuer = own
	if _, err := r.Issue(t.Context(), name, newKey(t), nil); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

// An order that failed in the end has the CA's reason, if it gave one.
func TestFailedOrder(t *testing.T) {
	r := newRig(t)
	for _, c := range []struct {
		body string
		kind fault.Kind
		said string
	}{
		{`{"status":"invalid","error":{"type":"urn:ietf:params:acme:error:caa","detail":"CAA forbids\u001b[31m it","status":403}}`, fault.Denied, "caa: CAA forbids [31m it"},
		{`{"status":"invalid","error":{"type":"urn:ietf:params:acme:error:badCSR","detail":"weak key","subproblems":[{"detail":"and old"}]}}`, fault.Never, "badCSR: weak key; and old"},
		{`{"status":"invalid"}`, fault.Later, "invalid"},
		{`{"status":"pending"}`, fault.Later, "pending"},
	} {
		r.instead("/finalize-order/", jsonOf(c.body))
		_, err := r.Issue(t.Context(), name, newKey(t), nil)
		if !fault.Is(err, c.kind) || !strings.Contains(err.Error(), c.said) || fault.HintOf(err) == "" {
			t.Errorf("%s: %v", c.body, err)
		}
	}
}

func problem(w http.ResponseWriter, status int, kind, detail string, after string) {
	w.Header().Set("Content-Type", "application/problem+json")
	if after != "" {
		w.Header().Set("Retry-After", after)
	}
	w.WriteHeader(status)
	fmt.Fprintf(w, `{"type":"urn:ietf:params:acme:error:%s","detail":%q,"status":%d}`, kind, detail, status)
}

// A CA that said when to come again is not asked before; other names wait a
// minute at most.
func TestRateLimit(t *testing.T) {
	r := newRig(t)
	r.instead("/order-plz", func(w http.ResponseWriter, _ *http.Request) {
		problem(w, 429, "rateLimited", "too many certificates for this name", "7200")
	})
	_, err := r.Issue(t.Context(), name, newKey(t), nil)
	at := time.Now().Add(2 * time.Hour).UTC().Format("2006-01-02T15:")
	if !fault.Is(err, fault.Later) || !strings.Contains(err.Error(), at) || !strings.Contains(err.Error(), "too many certificates") || fault.HintOf(err) == "" {
		t.Errorf("%v", err)
	}
	r.ca.Front.Store(nil)
	before := r.ca.Asked.Load()
	for _, n := range []string{name, "e2.acme.us.gate.example"} {
		if _, err := r.Issue(t.Context(), n, newKey(t), nil); !fault.Is(err, fault.Later) || !strings.Contains(err.Error(), "not to ask before") {
			t.Errorf("%s at once: %v", n, err)
		}
	}
	if r.ca.Asked.Load() != before {
		t.Error("it was asked")
	}
	r.clock.Store(int64(2 * time.Minute))
	if _, err := r.Issue(t.Context(), "e2.acme.us.gate.example", newKey(t), nil); err != nil {
		t.Errorf("another name after a minute: %v", err)
	}
	if _, err := r.Issue(t.Context(), name, newKey(t), nil); !fault.Is(err, fault.Later) {
		t.Errorf("the name after a minute: %v", err)
	}
	r.clock.Store(int64(2*time.Hour + time.Minute))
	if _, err := r.Issue(t.Context(), name, newKey(t), nil); err != nil {
		t.Errorf("the name after its time: %v", err)
	}
}

// An overloaded CA is left alone for a while also when it names no time.
func TestOverload(t *testing.T) {
	r := newRig(t)
	r.instead("/order-plz", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) })
	if _, err := r.Issue(t.Context(), name, newKey(t), nil); !fault.Is(err, fault.Later) {
		t.Errorf("%v", err)
	}
	r.ca.Front.Store(nil)
	if _, err := r.Issue(t.Context(), name, newKey(t), nil); !fault.Is(err, fault.Later) {
		t.Errorf("at once: %v", err)
	}
	r.clock.Store(int64(unsaid + time.Second))
	if _, err := r.Issue(t.Context(), name, newKey(t), nil); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

// A CA that does not answer holds nobody longer than its ctx, wherever it
// stops: two that ask at a time neither.
func TestSlow(t *testing.T) {
	r := newRig(t)
	stop := make(chan struct{})
	defer close(stop)
	for _, part := range []string{"/dir", "/nonce-plz", "/sign-me-up", "/order-plz", "/authZ/", "/chalZ/", "/finalize-order/", "/certZ/"} {
		r.instead(part, func(_ http.ResponseWriter, q *http.Request) {
			select {
			case <-q.Context().Done():
			case <-stop:
			}
		})
		own := r.another(t)
		ends := make(chan error, 2)
		for range 2 {
			ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
			defer cancel()
			go func() {
				start := time.Now()
				_, err := own.Issue(ctx, name, newKey(t), nil)
				if d := time.Since(start); d > 3*time.Second {
					t.Errorf("%s: it took %v", part, d)
				}
				ends <- err
			}()
		}
		for range 2 {
			if err := <-ends; !fault.Is(err, fault.Later) || fault.HintOf(err) == "" {
				t.Errorf("%s: %v", part, err)
			}
		}
	}
}

// Garbage in any place is a CA that could not be asked.
func TestGarbage(t *testing.T) {
	r := newRig(t)
	deep := strings.Repeat(`{"a":`, 5000)
	for what, answer := range map[string]http.HandlerFunc{
		"html":    func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "<html>maintenance</html>") },
		"nothing": func(w http.ResponseWriter, _ *http.Request) {},
		"json":    jsonOf(`{"status":[1],"authorizations":7}`),
		"null":    jsonOf(`null`),
		"odd":     jsonOf(`{"status":"valid","authorizations":["http://127.0.0.1:1/x"],"finalize":"ftp://x","certificate":":"}`),
		"many":    jsonOf(`{"status":"pending","authorizations":["` + strings.Repeat(`https://127.0.0.1:1/","`, 20) + `"]}`),
		"deep":    jsonOf(deep),
		"long":    jsonOf(`{"x":"` + strings.Repeat("x", maxBody) + `"}`),
		"bytes":   func(w http.ResponseWriter, _ *http.Request) { io.CopyN(w, rand.Reader, 3000) },
		"elsewhere": func(w http.ResponseWriter, q *http.Request) {
			http.Redirect(w, q, "https://127.0.0.1:1/", http.StatusFound)
		},
		"teapot": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(418) },
		"broken": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			io.WriteString(w, "{")
		},
	} {
		for _, part := range []string{"/dir", "/nonce-plz", "/sign-me-up", "/order-plz", "/authZ/", "/chalZ/", "/finalize-order/", "/certZ/"} {
			r.instead(part, answer)
			own := r.another(t)
			ctx, cancel := context.WithTimeout(t.Context(), 400*time.Millisecond)
			chain, err := own.Issue(ctx, name, newKey(t), nil)
			cancel()
			// An empty answer to a nonce or a challenge, or a nonsense one that is not
			// needed, may well be passed over.
			if err == nil && len(chain) > 0 && (part == "/nonce-plz" || part == "/chalZ/") {
				continue
			}
			// The true CA refuses an account that the false one gave.
			refused := part == "/sign-me-up" && fault.Is(err, fault.Denied)
			if !fault.Is(err, fault.Later) && !refused || fault.HintOf(err) == "" || len(err.Error()) > 1000 {
				t.Errorf("%s at %s: %v", what, part, err)
			}
		}
	}
}

// A CA that leads in circles, or never comes to an end, is left.
func TestEndless(t *testing.T) {
	r := newRig(t)
	for part, answer := range map[string]http.HandlerFunc{
		"/certZ/": func(w http.ResponseWriter, q *http.Request) {
			w.Header().Set("Content-Type", "application/pem-certificate-chain")
			w.Header().Set("Replay-Nonce", "n")
			w.Header().Set("Link", "<https://"+q.Host+q.URL.Path+`>;rel="up"`)
		},
		"/authZ/": func(w http.ResponseWriter, q *http.Request) {
			w.Header().Set("Retry-After", "Fri, 31 Dec 1999 23:59:59 GMT")
			jsonOf(`{"status":"pending","challenges":[{"type":"http-01","token":"t","url":"https://`+q.Host+`/certZ/x"}]}`)(w, q)
		},
	} {
		r.instead("/", func(w http.ResponseWriter, q *http.Request) {
			switch {
			case strings.Contains(q.URL.Path, part):
				answer(w, q)
			case part == "/authZ/" && strings.Contains(q.URL.Path, "/certZ/"):
				jsonOf(`{}`)(w, q)
			default:
				r.ca.ServeHTTP(w, q)
			}
		})
		before := r.ca.Asked.Load()
		_, err := r.another(t).Issue(t.Context(), name, newKey(t), nil)
		if n := r.ca.Asked.Load() - before; !fault.Is(err, fault.Later) || !strings.Contains(err.Error(), "too many requests") || n > maxRequests {
			t.Errorf("%s: %v after %d requests", part, err, n)
		}
	}
}

// Nothing is asked in clear, whatever a CA names.
func TestNotInClear(t *testing.T) {
	r := newRig(t)
	var asked atomic.Int64
	plain := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Add(1) }))
	defer plain.Close()
	r.instead("/order-plz", jsonOf(`{"status":"pending","authorizations":["`+plain.URL+`/authz"],"finalize":"`+plain.URL+`/finalize"}`))
	_, err := r.Issue(t.Context(), name, newKey(t), nil)
	if !fault.Is(err, fault.Later) || !strings.Contains(err.Error(), "not https") || asked.Load() != 0 {
		t.Errorf("%v, asked %d times", err, asked.Load())
	}
}

// The library's panics are errors.
func TestPanic(t *testing.T) {
	if _, err := within(t.Context(), 0, func() (int, error) { panic("at the CA's answer") }); err == nil || !strings.Contains(err.Error(), "at the CA's answer") {
		t.Errorf("%v", err)
	}
}

func jsonOf(body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Location", "https://127.0.0.1:1/here")
		io.WriteString(w, body)
	}
}

// forged is a self-signed certificate.
func forged(t testing.TB, name string, key crypto.Signer, change func(*x509.Certificate)) []byte {
	t.Helper()
	c := &x509.Certificate{SerialNumber: big.NewInt(77777), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name}, NotBefore: time.Now(), NotAfter: time.Now().Add(time.Hour)}
	if change != nil {
		change(c)
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func pemOf(ders ...[]byte) []byte {
	var out []byte
	for _, d := range ders {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: d})...)
	}
	return out
}

// A chain that is not what was asked for is not taken.
func TestChain(t *testing.T) {
	key := newKey(t)
	good := forged(t, name, key, nil)
	other := forged(t, name, newKey(t), nil)
	var many [][]byte
	for range maxChain + 1 {
		many = append(many, good)
	}
	now := time.Now()
	if chain, err := readChain(pemOf(good), name, key.Public(), now); err != nil || len(chain) != 1 {
		t.Fatal(err)
	}
	for what, text := range map[string][]byte{
		"nothing": nil, "junk": []byte("junk"), "a key": pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("x")}),
		"no certificate": pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("x")}),
		"another's key":  pemOf(other), "another name": pemOf(forged(t, "e2.other.us.gate.example", key, nil)),
		"expired":      pemOf(forged(t, name, key, func(c *x509.Certificate) { c.NotAfter = now.Add(-time.Minute) })),
		"a CA":         pemOf(forged(t, name, key, func(c *x509.Certificate) { c.IsCA, c.BasicConstraintsValid = true, true })),
		"a stranger's": pemOf(good, other), "too long": pemOf(many...),
	} {
		if _, err := readChain(text, name, key.Public(), now); err == nil {
			t.Errorf("%s: taken", what)
		}
	}
}

func FuzzChain(f *testing.F) {
	key := newKey(f)
	f.Add(pemOf(forged(f, name, key, nil)))
	f.Add([]byte("-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----"))
	f.Fuzz(func(t *testing.T, text []byte) {
		chain, err := readChain(text, name, key.Public(), time.Now())
		if err == nil && (len(chain) == 0 || len(chain) > maxChain) {
			t.Errorf("%d certificates", len(chain))
		}
	})
}

func FuzzRetryAfter(f *testing.F) {
	for _, s := range []string{"120", "-1", "99999999999999999999", "Fri, 31 Dec 1999 23:59:59 GMT", ""} {
		f.Add(s)
	}
	now := time.Now()
	f.Fuzz(func(t *testing.T, text string) {
		if at := retryAfter(text, now); !at.IsZero() && (!at.After(now) || at.After(now.Add(mostWait))) {
			t.Errorf("%v", at)
		}
		if s := clean(text); len([]rune(s)) > maxText+1 || strings.ContainsAny(s, "\n\r\x00\x1b") {
			t.Errorf("%q", s)
		}
	})
}
