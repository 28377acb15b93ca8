package connection_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/sallyport-mail/sallyport/internal/connection"
	"github.com/sallyport-mail/sallyport/internal/exchange/admin"
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
