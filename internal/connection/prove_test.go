package connection_test

import (
	"crypto/tls"
	"net"
	"strings"
	"testing"

	"github.com/sallyport-mail/sallyport/internal/connection"
	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/mail"
	"github.com/sallyport-mail/sallyport/internal/testpeer"
)

// prove adds a connection to an address and tests it.
func (w *tlsWorld) prove(t *testing.T, address string, c connection.Connection, rcpt mail.Address) connection.TestReport {
	t.Helper()
	c.Tenant, c.Name = "acme", "in"
	if c.Host == "" {
		c.Host = "mail.acme.test"
	}
	_, c.Port = hostPort(t, address)
	w.add(t, c)
	defer func() { must(t, w.Remove(t.Context(), "system", "acme", "in")) }()
	report, err := w.Test(t.Context(), "acme", "in", rcpt)
	must(t, err)
	got, _ := w.Get("acme", "in")
	if got.Health.OK == nil || *got.Health.OK != report.OK || (got.Health.Reason == nil) != report.OK {
		t.Errorf("health %+v after a test with ok %v", got.Health, report.OK)
	}
	return report
}

// steps shows a report as "resolve connect tls! …".
func steps(r connection.TestReport) string {
	var words []string
	for _, s := range r.Steps {
		w := s.Name
		if !s.OK {
			w += "!"
		}
		words = append(words, w)
	}
	return strings.Join(words, " ")
}

func TestProof(t *testing.T) {
	w := newTLSWorld(t)
	relay := testpeer.StartSink(t, testpeer.SinkRules{Rcpt: func(mail.Recipient) *mail.Reply {
		return &mail.Reply{Code: 554, Enhanced: "5.7.1", Text: "Relay access denied"}
	}})
	grey := testpeer.StartSink(t, testpeer.SinkRules{Rcpt: func(mail.Recipient) *mail.Reply {
		return &mail.Reply{Code: 451, Enhanced: "4.7.1", Text: "greylisted"}
	}})
	strict := testpeer.StartSink(t, testpeer.SinkRules{Mail: func(mail.Address) *mail.Reply {
		return &mail.Reply{Code: 550, Enhanced: "5.7.1", Text: "no null sender"}
	}})
	content := testpeer.StartSink(t, testpeer.SinkRules{Dot: func(testpeer.Received) *mail.Reply {
		return &mail.Reply{Code: 554, Enhanced: "5.7.1", Text: "spam"}
	}})
	refuses := testpeer.StartSink(t, testpeer.SinkRules{Connect: func(int) *mail.Reply {
		return &mail.Reply{Code: 554, Enhanced: "5.7.1", Text: "go away"}
	}})
	// The last to be made: its port would be given to the next one.
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	closed.Close()
	ca := string(w.ca.PEM)
	type C = connection.Connection
	for what, k := range map[string]struct {
		address string
		c       connection.Connection
		rcpt    string
		want    string
		fix     string
	}{
		"good":        {w.sinks["good"].Addr, C{TLS: "verified", CA: ca}, "", "resolve connect tls recipient message", ""},
		"clear":       {w.sinks["clear"].Addr, C{TLS: "none"}, "b@acme.test", "resolve connect recipient message", ""},
		"fallback":    {w.sinks["broken"].Addr, C{}, "", "resolve connect tls recipient message", ""},
		"no name":     {w.sinks["clear"].Addr, C{Host: "missing.acme.test"}, "", "resolve!", "host name"},
		"refused":     {closed.Addr().String(), C{}, "", "resolve connect!", "Nothing listens on 127.0.0.1"},
		"greeting":    {refuses.Addr, C{}, "", "resolve connect!", "mx.us.sallyport.test"},
		"untrusted":   {w.sinks["good"].Addr, C{TLS: "verified"}, "", "resolve connect tls!", "issued by CN=Good CA, which is not in the system roots; give its CA with --ca FILE or pin it with --pin " + w.good.Pin},
		"other name":  {w.sinks["other name"].Addr, C{TLS: "verified", CA: ca}, "", "resolve connect tls!", "is for other.test, not for mail.acme.test"},
		"expired":     {w.sinks["expired"].Addr, C{TLS: "verified", CA: ca}, "", "resolve connect tls!", "renew it"},
		"pin":         {w.sinks["good"].Addr, C{TLS: "required", Pins: []string{w.other.Pin}}, "", "resolve connect tls!", "--pin " + w.good.Pin},
		"no starttls": {w.sinks["clear"].Addr, C{TLS: "required"}, "", "resolve connect tls!", "does not offer STARTTLS"},
		"no identity": {w.sinks["asks"].Addr, C{TLS: "mutual", CA: ca}, "", "resolve connect tls!", "no identity yet"},
		"unasked":     {w.sinks["good"].Addr, C{TLS: "mutual", CA: ca}, "", "resolve connect tls!", "no identity yet"},
		"unknown":     {w.sinks["clear"].Addr, C{}, "nobody@acme.test", "resolve connect tls recipient!", "no mailbox nobody@acme.test"},
		"relay":       {relay.Addr, C{TLS: "none"}, "", "resolve connect recipient!", "add the domain"},
		"greylisted":  {grey.Addr, C{TLS: "none"}, "", "resolve connect recipient!", "later"},
		"null sender": {strict.Addr, C{TLS: "none"}, "", "resolve connect recipient!", "null sender"},
		"content":     {content.Addr, C{TLS: "none"}, "", "resolve connect recipient message!", "content checks"},
		"no password": {w.sinks["clear"].Addr, C{Host: "127.0.0.1", TLS: "none", Auth: "plain", User: "u"}, "", "resolve connect auth!", "credential set acme in"},
	} {
		t.Run(what, func(t *testing.T) {
			var rcpt mail.Address
			if k.rcpt != "" {
				var err error
				rcpt, err = mail.ParseAddress(k.rcpt)
				must(t, err)
			}
			r := w.prove(t, k.address, k.c, rcpt)
			last := r.Steps[len(r.Steps)-1]
			if steps(r) != k.want || r.OK != (k.fix == "") || !strings.Contains(last.Fix, k.fix) {
				t.Errorf("got %s, ok %v\n%+v\nwant %s saying %q", steps(r), r.OK, last, k.want, k.fix)
			}
		})
	}
}

func TestProofOfTwoHosts(t *testing.T) {
	w := newTLSWorld(t)
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	closed.Close()
	first, second := w.sinks["clear"], w.sinks["good"]
	hosts := []connection.Host{}
	for i, a := range []string{closed.Addr().String(), first.Addr, second.Addr} {
		_, port := hostPort(t, a)
		hosts = append(hosts, connection.Host{Host: []string{"127.0.0.1", "localhost", "mail.acme.test"}[i], Port: port, Priority: i})
	}
	w.add(t, connection.Connection{Tenant: "acme", Name: "in", Hosts: hosts, TLS: "opportunistic"})
	r, err := w.Test(t.Context(), "acme", "in", mail.Address{})
	must(t, err)
	if got, want := steps(r), "resolve connect! connect tls recipient message connect tls"; got != want || r.OK {
		t.Errorf("got %s, ok %v, want %s", got, r.OK, want)
	}
	if len(first.Messages()) != 1 || len(second.Messages()) != 0 {
		t.Error("the message went elsewhere than to the first host that works")
	}
	m := string(first.Messages()[0].Data)
	for _, line := range []string{"From: postmaster@mx.us.sallyport.test\r\n", "To: postmaster@acme.example\r\n", "Subject: Sallyport connection test\r\n",
		"Date: Sun, 01 Mar 2026 12:00:00 +0000\r\n", "Message-ID: <", "Auto-Submitted: auto-generated\r\n"} {
		if !strings.Contains(m, line) {
			t.Errorf("the message lacks %q:\n%s", line, m)
		}
	}
	if got := first.Messages()[0]; !got.From.IsNull() {
		t.Errorf("sent from %v", got.From)
	}
}

func TestProofFromForeignSource(t *testing.T) {
	w := newTLSWorld(t)
	h := newHouse(t, openSQLite(t), func(c *connection.Config) {
		c.Dress = func(c *connection.Candidate, tenant string) error {
			c.Target.Local = addr("192.0.2.1") // TEST-NET-1, which no machine has
			return nil
		}
	})
	_, port := hostPort(t, w.sinks["clear"].Addr)
	h.add(t, connection.Connection{Tenant: "acme", Name: "in", Host: "127.0.0.1", Port: port, TLS: "none"})
	r, err := h.Test(t.Context(), "acme", "in", mail.Address{})
	must(t, err)
	if last := r.Steps[len(r.Steps)-1]; steps(r) != "resolve connect!" || !strings.Contains(last.Fix, "egress pool") {
		t.Errorf("%s %+v", steps(r), last)
	}
}

func TestProofRefusals(t *testing.T) {
	w := newTLSWorld(t)
	if _, err := w.Test(t.Context(), "acme", "gone", mail.Address{}); !fault.Is(err, fault.Missing) {
		t.Errorf("no such connection: %v", err)
	}
	w.add(t, connection.Connection{Tenant: "acme", Name: "out", Direction: "outbound", Networks: []string{"192.0.2.1"}})
	if _, err := w.Test(t.Context(), "acme", "out", mail.Address{}); !fault.Is(err, fault.Invalid) {
		t.Errorf("nothing to test: %v", err)
	}
}

func TestProofOfUnaskedIdentity(t *testing.T) {
	w := newTLSWorld(t)
	w.identity(t, "in", w.clients)
	for server, want := range map[string]bool{"good": true, "asks": false} {
		r := w.prove(t, w.sinks[server].Addr, connection.Connection{TLS: "mutual", CA: string(w.ca.PEM)}, mail.Address{})
		if !r.OK || strings.Contains(r.Steps[2].Detail, "did not ask") != want {
			t.Errorf("%s: %+v", server, r)
		}
	}
}

// A TLS 1.3 server refuses our certificate after our side of the handshake is
// over; the test still calls it TLS. One that has TLS 1.2 alone gets no
// identity of ours at all.
func TestProofOfRefusedIdentity(t *testing.T) {
	w := newTLSWorld(t)
	w.identity(t, "in", testpeer.NewCA(t, "Strange CA"))
	for version, fix := range map[uint16]string{tls.VersionTLS12: "cannot speak TLS 1.3", tls.VersionTLS13: "does not accept our certificate"} {
		s := testpeer.StartSink(t, testpeer.SinkRules{TLS: &tls.Config{
			Certificates: []tls.Certificate{w.good.TLS}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: w.clients.Pool(), MaxVersion: version,
		}})
		r := w.prove(t, s.Addr, connection.Connection{TLS: "mutual", CA: string(w.ca.PEM)}, mail.Address{})
		if last := r.Steps[len(r.Steps)-1]; steps(r) != "resolve connect tls!" || !strings.Contains(last.Fix, fix) {
			t.Errorf("%s: %s %+v", tls.VersionName(version), steps(r), last)
		}
	}
}
