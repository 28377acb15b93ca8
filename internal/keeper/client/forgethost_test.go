package client

import (
	"crypto"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/keeper/act"
)

// hostPair is a certificate of mx.test.
func hostPair(t *testing.T) tls.Certificate {
	t.Helper()
	cert, key, err := SelfSigned("mx.test", time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	return pair
}

// TestForgetHost: a host's certificate whose key the keeper refuses to use is
// shown to no second client: it was compromised.
func TestForgetHost(t *testing.T) {
	pair := hostPair(t)
	var asked atomic.Int64
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := &httptest.Server{Listener: l, Config: &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		if strings.HasSuffix(q.URL.Path, string(act.HostCertificate)) {
			asked.Add(1)
			_ = json.NewEncoder(w).Encode(act.Certificate{Chain: pair.Certificate})
			return
		}
		w.WriteHeader(http.StatusForbidden)
		_, _ = w.Write([]byte(`{"type":"urn:sallyport:problem:denied","detail":"the identity is compromised"}`))
	})}}
	server.Start()
	defer server.Close()
	r, err := NewRemote(RemoteConfig{Region: "us", Socket: socket})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var got *tls.Certificate
	for range 3 {
		if got, err = r.ServerCertificate("mx.test"); err != nil {
			t.Fatal(err)
		}
	}
	if asked.Load() != 1 {
		t.Errorf("asked %d times", asked.Load())
	}
	message := []byte(strings.Repeat(" ", 64) + "TLS 1.3, server CertificateVerify\x00" + strings.Repeat("h", 32))
	if _, err := got.PrivateKey.(crypto.MessageSigner).SignMessage(rand.Reader, message, crypto.SHA256); !fault.Is(err, fault.Denied) {
		t.Errorf("%v", err)
	}
	if _, err := r.ServerCertificate("mx.test"); err != nil || asked.Load() != 2 {
		t.Errorf("%v, asked %d times", err, asked.Load())
	}
}

// TestHostEnded: who has sessions of a compromised certificate is told of it: with
// the answer about its host, and at once by a move that was asked for here.
func TestHostEnded(t *testing.T) {
	pair := hostPair(t)
	var asked atomic.Int64
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	refuse := atomic.Bool{}
	server := &httptest.Server{Listener: l, Config: &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		switch {
		case refuse.Load():
			w.WriteHeader(http.StatusForbidden)
			_, _ = w.Write([]byte(`{"type":"urn:sallyport:problem:denied","detail":"no"}`))
		case strings.HasSuffix(q.URL.Path, string(act.HostCertificate)):
			asked.Add(1)
			_ = json.NewEncoder(w).Encode(act.Certificate{Chain: pair.Certificate, Compromised: []string{"s2", "s1"}})
		default:
			_ = json.NewEncoder(w).Encode(act.Identity{ID: "i", SHA256: "s3"})
		}
	})}}
	server.Start()
	defer server.Close()
	now := time.Now()
	var told []string
	r, err := NewRemote(RemoteConfig{Region: "us", Socket: socket, HostEnded: func(sum string) { told = append(told, sum) }, Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	look := func() error { _, err := r.ServerCertificate("mx.test"); return err }
	move := func(tenant string, to act.IdentityState) error {
		_, err := r.MoveIdentity(t.Context(), act.Identity{ID: "i", Tenant: tenant, Connection: "MX.test", Purpose: purposeServer}, to)
		return err
	}
	for _, step := range []struct {
		what   string
		do     func() error
		told   string
		asked  int64
		denied bool
	}{
		{"first look", look, "s2 s1", 1, false},
		{"fresh", look, "", 1, false},
		{"another's move", func() error { now = now.Add(hostsFresh); return look() }, "s2 s1", 2, false},
		{"a tenant's", func() error { return move("acme", act.Compromised) }, "", 2, false},
		{"retired", func() error { return move("", act.Retired) }, "", 2, false},
		{"compromised", func() error { return move("", act.Compromised) }, "s3", 2, false},
		{"after it", look, "s2 s1", 3, false},
		{"refused", func() error { refuse.Store(true); return move("", act.Compromised) }, "", 3, true},
	} {
		told = nil
		err := step.do()
		if got := strings.Join(told, " "); got != step.told || asked.Load() != step.asked || fault.Is(err, fault.Denied) != step.denied || err != nil && !step.denied {
			t.Errorf("%s: told %q, asked %d, %v", step.what, got, asked.Load(), err)
		}
	}
}
