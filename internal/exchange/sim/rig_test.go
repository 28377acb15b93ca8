package sim

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	gosmtp "github.com/emersion/go-smtp"

	"github.com/sallyport-mail/sallyport/internal/testpeer"
)

// clock is a clock that a test moves.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) step(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// rig is a simulator that serves, on a clock of the test's.
type rig struct {
	*Sim
	t     *testing.T
	clock *clock
	ca    *testpeer.CA // stands for a public authority
	http  *http.Client
	one   Listed // the first tenant
}

func startRig(t *testing.T, cfg Config) *rig {
	t.Helper()
	r := &rig{t: t, clock: &clock{now: time.Now()}, ca: testpeer.NewCA(t, "Public Test Root")}
	cfg.Now, cfg.Roots = r.clock.Now, []*x509.Certificate{r.ca.Cert}
	if cfg.Tenants == 0 {
		cfg.Tenants = 2
	}
	s, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	r.Sim = s
	if err := s.Serve(listen(t), listen(t)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		r.stop()
		for _, what := range s.Unknown() {
			if !strings.Contains(what, "/wanted-unknown") {
				t.Errorf("the simulator did not know %s", what)
			}
		}
	})
	r.http = &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: s.Pool(), Time: r.clock.Now}, DisableKeepAlives: true}}
	r.one = s.List()[0]
	return r
}

func (r *rig) stop() {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := r.Close(ctx); err != nil && !strings.Contains(err.Error(), "closed") {
		r.t.Error(err)
	}
}

func listen(t testing.TB) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// call is one request with the first tenant's admin token, or another.
func (r *rig) call(method, path, token string, in any) (int, map[string]any, http.Header) {
	r.t.Helper()
	var body io.Reader
	switch in := in.(type) {
	case nil:
	case string:
		body = strings.NewReader(in)
	default:
		raw, err := json.Marshal(in)
		if err != nil {
			r.t.Fatal(err)
		}
		body = bytes.NewReader(raw)
	}
	q, err := http.NewRequest(method, r.one.Graph+path, body)
	if err != nil {
		r.t.Fatal(err)
	}
	if token != "" {
		q.Header.Set("Authorization", "Bearer "+token)
	}
	a, err := r.http.Do(q)
	if err != nil {
		r.t.Fatal(err)
	}
	defer a.Body.Close()
	raw, err := io.ReadAll(a.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	out := map[string]any{}
	if len(raw) > 0 {
		if err := json.Unmarshal(raw, &out); err != nil {
			r.t.Fatalf("%s: %v", raw, err)
		}
	}
	return a.StatusCode, out, a.Header
}

// admin is one cmdlet at the first tenant that must succeed.
func (r *rig) admin(method, noun string, in any) map[string]any {
	r.t.Helper()
	status, out, _ := r.call(method, "/adminapi/"+r.one.EntraTenant+"/"+noun, r.one.AdminToken, in)
	if status >= 300 {
		r.t.Fatalf("%s %s: %d %v", method, noun, status, out)
	}
	return out
}

const inboundPath = "InboundConnector/Inbound%20from%20mail%20gateway"

// name points the first tenant's connector at a certificate name.
func (r *rig) name(name string) {
	r.t.Helper()
	r.admin("PATCH", inboundPath, map[string]any{"TlsSenderCertificateName": name})
}

// dial opens a foreign client's connection; cert nil presents none, clear
// does without TLS.
func (r *rig) dial(cert *testpeer.Cert, clear bool) *gosmtp.Client {
	r.t.Helper()
	if clear {
		c, err := gosmtp.Dial(r.one.SMTP)
		if err != nil {
			r.t.Fatal(err)
		}
		return c
	}
	config := &tls.Config{RootCAs: r.Pool(), ServerName: "localhost", Time: r.clock.Now}
	if cert != nil {
		config.Certificates = []tls.Certificate{cert.TLS}
	}
	c, err := gosmtp.DialStartTLS(r.one.SMTP, config)
	if err != nil {
		r.t.Fatal(err)
	}
	return c
}

const message = "Message-ID: <one@sender.test>\r\nSubject: x\r\n\r\nbody\r\n"

// deliver sends one message and returns the error, nil for 250.
func (r *rig) deliver(cert *testpeer.Cert, from, to, text string) error {
	r.t.Helper()
	c := r.dial(cert, false)
	defer c.Close()
	return send(c, from, []string{to}, text)
}

func send(c *gosmtp.Client, from string, to []string, text string) error {
	if err := c.Mail(from, nil); err != nil {
		return err
	}
	for _, a := range to {
		if err := c.Rcpt(a, nil); err != nil {
			return err
		}
	}
	w, err := c.Data()
	if err != nil {
		return err
	}
	if _, err := io.WriteString(w, text); err != nil {
		return err
	}
	return w.Close()
}

// want holds an error against the reply that the table has: code, enhanced
// code and a part of the text. An empty code is 250.
func want(t *testing.T, err error, code string, text string) {
	t.Helper()
	if code == "" {
		if err != nil {
			t.Errorf("%v, accepted expected", err)
		}
		return
	}
	if err == nil {
		t.Errorf("accepted, %s expected", code)
		return
	}
	got := err.Error()
	if se, ok := err.(*gosmtp.SMTPError); ok {
		got = strings.TrimSpace(replyText(se))
	}
	if !strings.HasPrefix(got, code) || !strings.Contains(got, text) {
		t.Errorf("%s, expected %s … %s", got, code, text)
	}
}

func replyText(e *gosmtp.SMTPError) string {
	return fmt.Sprintf("%d %d.%d.%d %s", e.Code, e.EnhancedCode[0], e.EnhancedCode[1], e.EnhancedCode[2], e.Message)
}

// appKey is an RSA key with a self-signed certificate, as applications have.
type appKey struct {
	key  *rsa.PrivateKey
	cert *x509.Certificate
}

func newAppKey(t testing.TB, from time.Time, life time.Duration) *appKey {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: serial(), Subject: pkix.Name{CommonName: "app"}, NotBefore: from, NotAfter: from.Add(life)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &appKey{key, cert}
}

// jwt signs claims as PS256, or as alg says.
func (k *appKey) jwt(t testing.TB, alg string, header, body map[string]any) string {
	t.Helper()
	text, err := signJWT(alg, header, body, k.key)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func signJWT(alg string, header, body map[string]any, key *rsa.PrivateKey) (string, error) {
	header["alg"] = alg
	h, err := json.Marshal(header)
	if err != nil {
		return "", err
	}
	b, err := json.Marshal(body)
	if err != nil {
		return "", err
	}
	text := b64(h) + "." + b64(b)
	sum := crypto.SHA256.New()
	sum.Write([]byte(text))
	var sig []byte
	if alg == "RS256" {
		sig, err = rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, sum.Sum(nil))
	} else {
		sig, err = rsa.SignPSS(rand.Reader, key, crypto.SHA256, sum.Sum(nil), &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash})
	}
	return text + "." + b64(sig), err
}
