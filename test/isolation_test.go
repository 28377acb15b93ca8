package test

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	gosasl "github.com/emersion/go-sasl"
	gosmtp "github.com/emersion/go-smtp"

	"github.com/sallyport-mail/sallyport/internal/testpeer"
)

// TestTenantsApart tries, over SMTP, to send as another tenant with what
// proves that one is tenant B: a password, a network, a certificate.
func TestTenantsApart(t *testing.T) {
	ca := testpeer.NewCA(t, "clients")
	certB, certNobody := ca.Issue(t, nil, "client.b.test"), ca.Issue(t, nil, "client.nobody.test")
	certUnfit := ca.Issue(t, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }, "server.b.test")
	sink := testpeer.StartSink(t, testpeer.SinkRules{})
	p := newProcess(t, "")
	platforms := freeAddresses(t, 1)[0]
	p.appendSettings("\n[[listener]]\nkind = \"inbound\"\naddress = \"" + platforms + "\"\nplatforms = true\n")
	p.start()
	for _, name := range []string{"a", "b"} {
		p.tenant(name, "us", name+".test", sink.Addr)
	}
	p.connection("b", "out", sink.Addr, "--direction", "outbound", "--tls", "none", "--network", "127.0.0.7/32", "--client-cert-sha256", fingerprint(certB),
		"--client-cert-sha256", fingerprint(certUnfit))
	user := object[struct{ User, Password string }](p, "credential", "add", "b", "bob")

	for _, c := range []struct {
		name     string
		by       attempt
		from, to string
		header   string // the From field, when not from
		refused  bool
	}{
		{"by password, as oneself", attempt{addr: p.submit, user: user.User, password: user.Password}, "bob@b.test", "x@elsewhere.test", "", false},
		{"by password, as A", attempt{addr: p.submit, user: user.User, password: user.Password}, "alice@a.test", "x@elsewhere.test", "", true},
		{"by password, A in the From field", attempt{addr: p.submit, user: user.User, password: user.Password}, "bob@b.test", "x@elsewhere.test", "alice@a.test", true},
		{"by network, as oneself", attempt{addr: p.smtp, local: "127.0.0.7"}, "bob@b.test", "x@elsewhere.test", "", false},
		{"by network, as A", attempt{addr: p.smtp, local: "127.0.0.7"}, "alice@a.test", "x@elsewhere.test", "", true},
		{"from another network", attempt{addr: p.smtp, local: "127.0.0.8"}, "bob@b.test", "x@elsewhere.test", "", true},
		{"by certificate, as oneself", attempt{addr: platforms, cert: certB}, "bob@b.test", "x@elsewhere.test", "", false},
		{"by certificate, as A", attempt{addr: platforms, cert: certB}, "alice@a.test", "x@elsewhere.test", "", true},
		{"by a certificate of nobody", attempt{addr: platforms, cert: certNobody}, "bob@b.test", "x@elsewhere.test", "", true},
		{"by a certificate that is not for clients", attempt{addr: platforms, cert: certUnfit}, "bob@b.test", "x@elsewhere.test", "", true},
		{"without a certificate", attempt{addr: platforms}, "bob@b.test", "x@elsewhere.test", "", true},
		{"by certificate where none is asked for", attempt{addr: p.smtp, cert: certB}, "bob@b.test", "x@elsewhere.test", "", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := c.by.send(c.from, c.to, c.header)
			if refused := err != nil && strings.Contains(err.Error(), "550") || err != nil && strings.Contains(err.Error(), "5.7."); refused != c.refused || err != nil && !refused {
				t.Errorf("refused: %v, want %v: %v", refused, c.refused, err)
			}
		})
	}
	if found, _, _ := p.cli("doctor"); !strings.Contains(found, "out of b ("+fingerprint(certUnfit)[:16]+"…): clientAuth") {
		t.Errorf("doctor does not say which certificate is no proof:\n%s", found)
	}
	for _, m := range sink.Wait(t, 3, 20*time.Second) {
		if m.From.Domain != "b.test" {
			t.Errorf("mail from %s went out", m.From)
		}
	}
	if list := object[[]message](p, "message", "list", "--tenant", "a"); len(list) != 0 {
		t.Errorf("tenant A is said to have sent %+v", list)
	}
}

func fingerprint(c *testpeer.Cert) string {
	sum := sha256.Sum256(c.TLS.Certificate[0])
	return hex.EncodeToString(sum[:])
}

// attempt is how somebody tries to send.
type attempt struct {
	addr, local    string
	user, password string
	cert           *testpeer.Cert
}

func (a attempt) send(from, to, header string) error {
	d := net.Dialer{}
	if a.local != "" {
		d.LocalAddr = &net.TCPAddr{IP: net.ParseIP(a.local)}
	}
	nc, err := d.Dial("tcp", a.addr)
	if err != nil {
		return err
	}
	config := &tls.Config{ServerName: "mx.sallyport.test", VerifyPeerCertificate: anyone, InsecureSkipVerify: true}
	if a.cert != nil {
		config.Certificates = []tls.Certificate{a.cert.TLS}
	}
	c, err := gosmtp.NewClientStartTLS(nc, config)
	if err != nil {
		return err
	}
	defer c.Close()
	if a.user != "" {
		if err := c.Auth(gosasl.NewPlainClient("", a.user, a.password)); err != nil {
			return err
		}
	}
	if header == "" {
		header = from
	}
	return c.SendMail(from, []string{to}, strings.NewReader(fmt.Sprintf("From: <%s>\r\nSubject: who is it\r\n\r\nMe.\r\n", header)))
}

// anyone takes the gateway's self-signed certificate: who the server is, is
// not what the story is about.
func anyone([][]byte, [][]*x509.Certificate) error { return nil }
