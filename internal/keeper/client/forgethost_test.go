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

// TestForgetHost: a host's certificate whose key the keeper refuses to use is
// shown to no second client: it was compromised.
func TestForgetHost(t *testing.T) {
	cert, key, err := SelfSigned("mx.test", time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
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
