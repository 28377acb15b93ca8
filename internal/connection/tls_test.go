package connection_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-mail/sallyport/internal/connection"
	"github.com/sallyport-mail/sallyport/internal/keeper/client"
	"github.com/sallyport-mail/sallyport/internal/mail"
	"github.com/sallyport-mail/sallyport/internal/mailauth/dns"
	"github.com/sallyport-mail/sallyport/internal/smtp"
	"github.com/sallyport-mail/sallyport/internal/testpeer"
)

// tlsWorld is a set of servers, each with another certificate.
type tlsWorld struct {
	*house
	ca, clients *testpeer.CA
	sinks       map[string]*testpeer.Sink
	good, other *testpeer.Cert
}

func newTLSWorld(t *testing.T) *tlsWorld {
	w := &tlsWorld{ca: testpeer.NewCA(t, "Good CA"), clients: testpeer.NewCA(t, "Client CA"), sinks: map[string]*testpeer.Sink{}}
	w.house = newHouse(t, openSQLite(t), func(c *connection.Config) {
		c.Resolver = dns.Fake{Hosts: map[string][]netip.Addr{"mail.acme.test": {addr("127.0.0.1")}}}
		c.Roots = func() []byte { return testpeer.NewCA(t, "Some Root").PEM }
	})
	w.good = w.ca.Issue(t, nil, "mail.acme.test")
	w.other = w.ca.Issue(t, nil, "other.test")
	expired := w.ca.Issue(t, func(c *x509.Certificate) {
		c.NotBefore, c.NotAfter = time.Now().Add(-48*time.Hour), time.Now().Add(-24*time.Hour)
	}, "mail.acme.test")
	w.serve(t, "good", &tls.Config{Certificates: []tls.Certificate{w.good.TLS}})
	w.serve(t, "other name", &tls.Config{Certificates: []tls.Certificate{w.other.TLS}})
	w.serve(t, "expired", &tls.Config{Certificates: []tls.Certificate{expired.TLS}})
	w.serve(t, "clear", nil)
	w.serve(t, "old", &tls.Config{Certificates: []tls.Certificate{w.good.TLS}, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11})
	w.serve(t, "broken", &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		return nil, errors.New("no certificate today")
	}})
	w.serve(t, "asks", &tls.Config{
		Certificates: []tls.Certificate{w.good.TLS}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: w.clients.Pool(),
	})
	return w
}

func (w *tlsWorld) serve(t *testing.T, name string, c *tls.Config) {
	w.sinks[name] = testpeer.StartSink(t, testpeer.SinkRules{TLS: c, Rcpt: func(to mail.Recipient) *mail.Reply {
		if to.Local == "postmaster" || to.Local == "b" {
			return nil
		}
		return &mail.Reply{Code: 550, Enhanced: "5.1.1", Text: "no such user"}
	}})
}

// identity gives a connection of acme's its own certificate.
func (w *tlsWorld) identity(t *testing.T, name string, ca *testpeer.CA) {
	t.Helper()
	dir := filepath.Join(w.dir, "identities", "acme")
	must(t, os.MkdirAll(dir, 0o700))
	ca.Issue(t, nil, "e1.acme.us.sallyport.test").Write(t, dir, name)
}

// connect adds a connection to a server and dials it.
func (w *tlsWorld) connect(t *testing.T, server string, c connection.Connection) (*smtp.Client, connection.Candidate, error) {
	t.Helper()
	c.Tenant, c.Name, c.Host = "acme", "in", "mail.acme.test"
	_, c.Port = hostPort(t, w.sinks[server].Addr)
	w.add(t, c)
	t.Cleanup(func() { must(t, w.Remove(context.Background(), "system", "acme", "in")) })
	list, err := w.Candidates(t.Context(), "acme", "t:acme:in", "acme.test", "us.test", netip.Addr{})
	must(t, err)
	peer, err := w.Dial(t.Context(), list[0], "")
	if err == nil {
		t.Cleanup(func() { peer.Close() })
	}
	return peer, list[0], err
}

// The rules, against every kind of certificate: "clear", "tls", "verified" are
// what comes about, a step is where it fails.
func TestTLSRules(t *testing.T) {
	w := newTLSWorld(t)
	w.identity(t, "in", w.clients)
	ca := string(w.ca.PEM)
	wrong := "sha256:" + strings.Repeat("00", 32)
	type C = connection.Connection
	for _, k := range []struct {
		server string
		c      connection.Connection
		want   string
	}{
		{"good", C{TLS: "none"}, "clear"},
		{"good", C{TLS: "opportunistic"}, "tls"},
		{"good", C{TLS: "required"}, "tls"},
		{"good", C{TLS: "verified"}, "tls!"}, // not in the roots
		{"good", C{TLS: "verified", CA: ca}, "verified"},
		{"good", C{TLS: "verified", CA: ca, ServerName: "else.test"}, "tls!"},
		{"good", C{TLS: "verified", Pins: []string{w.good.Pin}}, "verified"},
		{"good", C{TLS: "verified", CA: ca, Pins: []string{wrong}}, "tls!"},
		{"good", C{TLS: "required", Pins: []string{wrong, w.good.Pin}}, "verified"},
		{"good", C{TLS: "required", Pins: []string{w.other.Pin}}, "tls!"},
		{"good", C{TLS: "mutual", CA: ca}, "verified"},
		{"other name", C{TLS: "opportunistic"}, "tls"},
		{"other name", C{TLS: "required"}, "tls"},
		{"other name", C{TLS: "verified", CA: ca}, "tls!"},
		{"other name", C{TLS: "verified", CA: ca, ServerName: "other.test"}, "verified"},
		{"other name", C{TLS: "verified", Pins: []string{w.other.Pin}}, "verified"},
		{"expired", C{TLS: "opportunistic"}, "tls"},
		{"expired", C{TLS: "required"}, "tls"},
		{"expired", C{TLS: "verified", CA: ca}, "tls!"},
		{"clear", C{TLS: "none"}, "clear"},
		{"clear", C{TLS: "opportunistic"}, "clear"},
		{"clear", C{TLS: "required"}, "starttls!"},
		{"clear", C{TLS: "verified", CA: ca}, "starttls!"},
		{"broken", C{TLS: "opportunistic"}, "clear"}, // on a second connection
		{"broken", C{TLS: "required"}, "tls!"},
		{"old", C{TLS: "opportunistic"}, "clear"},
		{"old", C{TLS: "required"}, "tls!"},
		{"asks", C{TLS: "mutual", CA: ca}, "verified+client"},
		{"asks", C{TLS: "mutual", Pins: []string{w.good.Pin}}, "verified+client"},
		{"asks", C{TLS: "mutual"}, "tls!"},
	} {
		t.Run(k.server+" "+k.want, func(t *testing.T) {
			peer, way, err := w.connect(t, k.server, k.c)
			if got := outcome(peer, way, err); strings.TrimSuffix(k.want, "+client") != got {
				t.Fatalf("%+v at %s: %s, want %s (%v)", k.c, k.server, got, k.want, err)
			}
			var pin *connection.PinError
			if errors.As(err, &pin) && (!strings.Contains(err.Error(), pin.Got) || !strings.Contains(err.Error(), k.c.Pins[0])) {
				t.Errorf("%v does not say what was expected and what came", err)
			}
			if k.want == "verified+client" {
				_, err := peer.Send(t.Context(), mail.Envelope{To: []mail.Recipient{{Address: mail.Address{Local: "b", Domain: "acme.test"}}}},
					smtp.Content{Bytes: []byte("Subject: x\r\n\r\n")}, nil)
				must(t, err)
				if got := w.sinks[k.server].Messages(); !strings.Contains(got[len(got)-1].Client, "e1.acme") {
					t.Errorf("the server saw the client %q", got[len(got)-1].Client)
				}
			}
		})
	}
}

func outcome(peer *smtp.Client, way connection.Candidate, err error) string {
	var d *smtp.DialError
	switch {
	case errors.As(err, &d):
		return d.Step + "!"
	case err != nil:
		return err.Error()
	case peer.TLSState() == nil:
		return "clear"
	case way.Verified(peer.TLSState()):
		return "verified"
	default:
		return "tls"
	}
}

// A mutual connection without an identity says so and sends none of another.
func TestMutualWithoutIdentity(t *testing.T) {
	w := newTLSWorld(t)
	w.identity(t, "another", w.clients)
	_, _, err := w.connect(t, "asks", connection.Connection{TLS: "mutual", CA: string(w.ca.PEM)})
	var d *smtp.DialError
	if !errors.As(err, &d) || d.Step != "tls" {
		t.Fatalf("dialled: %v", err)
	}
}

func TestAuth(t *testing.T) {
	w := newTLSWorld(t)
	w.sinks["auth"] = testpeer.StartSink(t, testpeer.SinkRules{User: "relay", Password: "right", TLS: &tls.Config{Certificates: []tls.Certificate{w.good.TLS}}})
	c := connection.Connection{Tenant: "acme", Name: "in", Host: "mail.acme.test", TLS: "required", Auth: "plain", User: "relay"}
	_, c.Port = hostPort(t, w.sinks["auth"].Addr)
	w.add(t, c)
	dial := func() string {
		list, err := w.Candidates(t.Context(), "acme", "t:acme:in", "acme.test", "us.test", netip.Addr{})
		must(t, err)
		peer, err := w.Dial(t.Context(), list[0], "01ARZ3NDEKTSV4RRFFQ69G5FAV")
		if err == nil {
			defer peer.Close()
		}
		return outcome(peer, list[0], err)
	}
	if got := dial(); got != "auth!" {
		t.Errorf("without a password: %s", got)
	}
	must(t, w.SetCredential(t.Context(), "token:1", "acme", "in", "", "wrong"))
	if got := dial(); got != "auth!" {
		t.Errorf("with the wrong password: %s", got)
	}
	must(t, w.SetCredential(t.Context(), "token:1", "acme", "in", "relay", "right"))
	if got := dial(); got != "tls" {
		t.Errorf("with the right password: %s", got)
	}
	must(t, w.Remove(t.Context(), "token:1", "acme", "in"))
	if _, err := w.custody.OpenCredential(t.Context(), client.Use{Tenant: "acme", Connection: "in"}); err == nil {
		t.Error("the password outlives its connection")
	}
}
