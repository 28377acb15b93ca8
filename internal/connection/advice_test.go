package connection_test

import (
	"crypto/tls"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-mail/sallyport/internal/connection"
	"github.com/sallyport-mail/sallyport/internal/exchange/admin"
	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/mail"
	"github.com/sallyport-mail/sallyport/internal/testpeer"
)

// connectOnce is connect with a token that is forgotten after it.
func (c *cloud) connectOnce(t testing.TB) {
	t.Helper()
	_, setup, err := c.AddGranted(t.Context(), "token:1", c.mailbox(t), connection.Grant{AdminToken: c.one.AdminToken, Once: true})
	must(t, err)
	if !setup.OK {
		t.Fatalf("setup: %+v", setup.Steps)
	}
}

// TestCommandsNameTheConnector: what the customer's administrator is told to
// run names the connector that was taken over, also when nobody lets us look any
// more, after a restart, and quoted as PowerShell wants it.
func TestCommandsNameTheConnector(t *testing.T) {
	c := newCloud(t, nil)
	const odd = "Bob’s ‘own’ 'in'"
	_, err := c.admin.SetInbound(t.Context(), c.one.ConnectorName, admin.InboundChange{Name: ptrTo(odd)})
	must(t, err)
	c.connectOnce(t)
	c.Registry = c.again(t)
	got, _ := c.Get("acme", "mailbox")
	if got.Connector != odd || !connection.Identical(c.mailbox(t), got) {
		t.Errorf("the connection has the connector %q; identical to what was asked for: %v", got.Connector, connection.Identical(c.mailbox(t), got))
	}
	other := c.mailbox(t)
	other.Connector = "Another"
	if connection.Identical(other, got) {
		t.Error("a connection with another connector is identical")
	}
	const quoted = "'Bob’’s ‘‘own’’ ''in'''"
	_, err = c.StartReplacement(t.Context(), "token:1", "acme", "mailbox", connection.KindReplace)
	must(t, err)
	for range 3 {
		_, _, _ = c.Step(t.Context(), "acme", "mailbox")
	}
	next := strings.TrimSuffix(quoted, "'") + " (next)'"
	p, err := c.Replacement(t.Context(), "acme", "mailbox")
	must(t, err)
	if !strings.Contains(p.Fix, "New-InboundConnector -Name "+next+" ") {
		t.Errorf("the replacement says %s", p.Fix)
	}
	p, err = c.Compromise(t.Context(), "token:1", "acme", c.identities(t)["smtp-client"].ID)
	must(t, err)
	for _, want := range []string{"Set-InboundConnector -Identity " + quoted + " -TlsSenderCertificateName '" + p.To + "'", "Where-Object Name -eq " + next + " | Remove-InboundConnector"} {
		if !strings.Contains(p.Fix, want) {
			t.Errorf("no %s in %s", want, p.Fix)
		}
	}
	s, err := c.SetUp(t.Context(), "token:1", "acme", "mailbox", connection.Grant{Hold: true})
	must(t, err)
	if !strings.Contains(s.Script, "Set-InboundConnector -Identity "+quoted) || strings.Contains(fmt.Sprint(s.Script, p), "Inbound from Sallyport") {
		t.Errorf("the script is\n%s", s.Script)
	}
}

// TestEachStepHasItsOwnTime: a slow step of a test is not counted to the ones
// around it.
func TestEachStepHasItsOwnTime(t *testing.T) {
	w := newTLSWorld(t)
	slow := map[string]time.Duration{"connect": 40 * time.Millisecond, "tls": 60 * time.Millisecond, "recipient": 80 * time.Millisecond, "message": 100 * time.Millisecond}
	be := func(step string) *mail.Reply { time.Sleep(slow[step]); return nil }
	s := testpeer.StartSink(t, testpeer.SinkRules{
		TLS:     &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { be("tls"); return &w.good.TLS, nil }},
		Connect: func(int) *mail.Reply { return be("connect") },
		Rcpt:    func(mail.Recipient) *mail.Reply { return be("recipient") },
		Dot:     func(testpeer.Received) *mail.Reply { return be("message") },
	})
	began := time.Now()
	r := w.prove(t, s.Addr, connection.Connection{TLS: "verified", CA: string(w.ca.PEM)}, mail.Address{})
	total, sum := time.Since(began), int64(0)
	for _, s := range r.Steps {
		if s.MS < slow[s.Name].Milliseconds() {
			t.Errorf("%s took %d ms, and at least %v is its own", s.Name, s.MS, slow[s.Name])
		}
		sum += s.MS
	}
	if steps(r) != "resolve connect tls recipient message" || sum > total.Milliseconds() {
		t.Errorf("%s took %d ms of %v", steps(r), sum, total)
	}
}

// TestNamesOfAnApplicationsChange: a change of the application's key alone says
// from what to what, and of which epochs.
func TestNamesOfAnApplicationsChange(t *testing.T) {
	c := newCloud(t, nil)
	c.connect(t)
	old := c.identities(t)
	p, err := c.Compromise(t.Context(), "token:1", "acme", old["entra-app"].ID)
	must(t, err)
	now := c.identities(t)
	if p.From != old["entra-app"].Name || p.To != now["entra-app"].Name || p.From == p.To {
		t.Errorf("from %s to %s, it was %s and is %s", p.From, p.To, old["entra-app"].Name, now["entra-app"].Name)
	}
	if len(p.Identities) != 1 || p.Identities[0].Epoch != 1 || p.Identities[0].ToEpoch != 2 {
		t.Errorf("%+v", p.Identities)
	}
	c.goTo(t, connection.KindReplace, connection.Switched)
	_, err = c.UndoReplacement(t.Context(), "token:1", "acme", "mailbox")
	must(t, err)
	p, err = c.Compromise(t.Context(), "token:1", "acme", now["entra-app"].ID) // takes the undo over
	must(t, err)
	if !strings.HasPrefix(p.From, "e2.") || p.To != old["smtp-client"].Name {
		t.Errorf("taken over, from %s to %s", p.From, p.To)
	}
	for _, pair := range p.Identities {
		if !strings.HasPrefix(pair.FromName, fmt.Sprintf("e%d.", pair.Epoch)) || !strings.HasPrefix(pair.ToName, fmt.Sprintf("e%d.", pair.ToEpoch)) {
			t.Errorf("epochs of %+v", pair)
		}
	}
}

// TestWrongGrant: a token of another tenant, an Entra tenant that is not, and a
// CA that does not fit are suspected where Microsoft says no more than no.
func TestWrongGrant(t *testing.T) {
	c := newCloud(t, nil)
	other := c.sim.List()[1]
	no := c.mailbox(t)
	no.EntraTenant = "00000000-0000-4000-8000-000000000000"
	foreign := c.mailbox(t)
	foreign.CA = string(testpeer.NewCA(t, "Strange CA").PEM)
	for what, k := range map[string]struct {
		c     connection.Connection
		token string
		hint  []string
	}{
		"token of another tenant": {c.mailbox(t), other.AdminToken, []string{"--entra-tenant " + c.one.EntraTenant, "token is of that tenant"}},
		"no token":                {c.mailbox(t), "admin-nobody", []string{"--entra-tenant " + c.one.EntraTenant, "still valid"}},
		"unknown tenant":          {no, c.one.AdminToken, []string{"--entra-tenant " + no.EntraTenant}},
		"another CA":              {foreign, c.one.AdminToken, []string{"--ca"}},
	} {
		_, setup, err := c.AddGranted(t.Context(), "token:1", k.c, connection.Grant{AdminToken: k.token, Once: true})
		hint := fault.HintOf(err)
		if err == nil {
			if setup.OK {
				t.Errorf("%s: set up", what)
			}
			hint = setup.Steps[len(setup.Steps)-1].Fix
			must(t, c.Remove(t.Context(), "token:1", "acme", "mailbox"))
		}
		for _, want := range k.hint {
			if !strings.Contains(hint, want) {
				t.Errorf("%s: hint %q has no %q (%v, %+v)", what, hint, want, err, setup.Steps)
			}
		}
	}
}

// TestOneFormOfFingerprints: every step names a certificate as Postfix and
// OpenSSL write its sum.
func TestOneFormOfFingerprints(t *testing.T) {
	c := newCloud(t, nil)
	_, setup, err := c.AddGranted(t.Context(), "token:1", c.mailbox(t), connection.Grant{AdminToken: c.one.AdminToken})
	must(t, err)
	report, err := c.Test(t.Context(), "acme", "mailbox", mail.Address{})
	must(t, err)
	n := 0
	for _, s := range append(setup.Steps, report.Steps...) {
		for _, i := range c.identities(t) {
			if strings.Contains(s.Detail, i.SHA256) {
				t.Errorf("%s: %s", s.Name, s.Detail)
			}
			n += strings.Count(s.Detail, connection.Fingerprint(i.SHA256))
		}
	}
	if n != 3 { // key of the set-up, certificate and token of the test
		t.Errorf("%d steps name one: %+v %+v", n, setup.Steps, report.Steps)
	}
}
