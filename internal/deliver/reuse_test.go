package deliver

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/netip"
	"testing"

	"pgregory.net/rapid"

	"github.com/sallyport-mail/sallyport/internal/connection"
	"github.com/sallyport-mail/sallyport/internal/smtp"
	"github.com/sallyport-mail/sallyport/internal/testpeer"
)

// No connection carries two tenants' mail, however the items come.
func TestTenantsNeverShareAConnection(t *testing.T) {
	sink := testpeer.StartSink(t, testpeer.SinkRules{})
	sent := 0
	rapid.Check(t, func(rt *rapid.T) {
		b, q := newBook(), newDesk()
		q.width = rapid.IntRange(1, 3).Draw(rt, "slots")
		n := rapid.IntRange(1, 30).Draw(rt, "items")
		for i := range n {
			name := fmt.Sprint("t", rapid.IntRange(0, 3).Draw(rt, "tenant"))
			destination := fmt.Sprint("d", rapid.IntRange(0, 1).Draw(rt, "destination"))
			b.set(destination, sink.Addr)
			q.add(item(fmt.Sprint(i), name, destination))
		}
		r := run(t, q, b, nil)
		q.wait(t, n)
		r.stop()
		<-r.done
		sent += n
	})
	owner := map[string]string{}
	for _, m := range sink.Wait(t, sent, 1) {
		if o := owner[m.Conn]; o != "" && o != m.From.Local {
			t.Fatalf("connection %s carried mail of %s and %s", m.Conn, o, m.From.Local)
		}
		owner[m.Conn] = m.From.Local
	}
	if len(owner) == sent && sent > 100 {
		t.Error("no connection was used twice: this test shows nothing")
	}
}

// Every part of what makes a connection the same matters.
func TestSameness(t *testing.T) {
	ca := testpeer.NewCA(t, "test CA")
	first, second := ca.Issue(t, nil, "one.test"), ca.Issue(t, nil, "two.test")
	pool := x509.NewCertPool()
	base := func() connection.Candidate {
		return connection.Candidate{
			Host: "mx.test", Tenant: "acme", Connection: "mailbox", Rule: connection.TLSVerified,
			Target: smtp.Target{Address: "192.0.2.1:25", Hello: "out.test", TLS: smtp.TLSRequired,
				Config: &tls.Config{ServerName: "mx.test", RootCAs: pool}},
		}
	}
	if one, other := newWay(base()), newWay(base()); one.sameness != other.sameness {
		t.Fatal("two equal candidates are not the same")
	}
	for name, change := range map[string]func(*connection.Candidate){
		"tenant":     func(c *connection.Candidate) { c.Tenant = "zenith" },
		"connection": func(c *connection.Candidate) { c.Connection = "other" },
		"rule":       func(c *connection.Candidate) { c.Rule = connection.TLSMutual },
		"pins":       func(c *connection.Candidate) { c.Pins = []string{"sha256:00"} },
		"user":       func(c *connection.Candidate) { c.User = "u" },
		"mechanism":  func(c *connection.Candidate) { c.Auth = connection.AuthSCRAM },
		"address":    func(c *connection.Candidate) { c.Target.Address = "192.0.2.2:25" },
		"hello":      func(c *connection.Candidate) { c.Target.Hello = "other.test" },
		"source":     func(c *connection.Candidate) { c.Target.Local = netip.MustParseAddr("192.0.2.9") },
		"mode":       func(c *connection.Candidate) { c.Target.TLS = smtp.TLSImplicit },
		"lmtp":       func(c *connection.Candidate) { c.Target.LMTP = true },
		"trust":      func(c *connection.Candidate) { c.Target.Config.RootCAs = x509.NewCertPool() },
		"name":       func(c *connection.Candidate) { c.Target.Config.ServerName = "other.test" },
		"identity":   func(c *connection.Candidate) { c.Target.Config.Certificates = []tls.Certificate{first.TLS} },
		"chosen identity": func(c *connection.Candidate) {
			c.Target.Config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &first.TLS, nil }
		},
	} {
		c := base()
		change(&c)
		if newWay(c).sameness == newWay(base()).sameness {
			t.Errorf("another %s is taken for the same", name)
		}
	}
	a, b := base(), base()
	a.Target.Config.Certificates, b.Target.Config.Certificates = []tls.Certificate{first.TLS}, []tls.Certificate{second.TLS}
	if newWay(a).sameness == newWay(b).sameness {
		t.Error("two identities are taken for the same")
	}
}
