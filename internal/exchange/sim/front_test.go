package sim

import (
	"crypto/x509"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-mail/sallyport/internal/testpeer"
)

// TestReplies walks the table of replies, each case on a tenant of its own
// making, with a foreign client.
func TestReplies(t *testing.T) {
	r := startRig(t, Config{Tenants: 1})
	box := "user@" + r.one.Domain
	right := r.ca.Issue(t, nil, "e1.gw.example")
	r.name("e1.gw.example")
	cases := []struct {
		name       string
		cert       *testpeer.Cert
		from, to   string
		code, text string
	}{
		{"the named certificate", right, "a@x.test", box, "", ""},
		{"the null sender", right, "", box, "", ""},
		{"another name", r.ca.Issue(t, nil, "e2.gw.example"), "a@x.test", box, "550 5.7.51", "TenantInboundAttribution; There is a partner connector configured"},
		{"no certificate", nil, "a@x.test", box, "550 5.7.51", "RestrictDomainsToCertificate set ["},
		{"self-signed or unknown authority", testpeer.NewCA(t, "other").Issue(t, nil, "e1.gw.example"), "a@x.test", box, "550 5.7.51", ""},
		{"an expired certificate", r.ca.Issue(t, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }, "e1.gw.example"), "a@x.test", box, "550 5.7.51", ""},
		{"server purpose alone", r.ca.Issue(t, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }, "e1.gw.example"), "a@x.test", box, "", ""},
		{"relaying", right, "a@x.test", "b@elsewhere.test", "550 5.7.64", "TenantAttribution; Relay Access Denied SMTP"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) { want(t, r.deliver(c.cert, c.from, c.to, message), c.code, c.text) })
	}
	if got := r.Arrivals(r.one.EntraTenant); len(got) != 3 || got[0].MessageID != "<one@sender.test>" || got[0].Size != int64(len(message)) {
		t.Errorf("%d arrivals, 3 expected: %+v", len(got), got)
	}
	t.Run("clear text", func(t *testing.T) {
		c := r.dial(nil, true)
		defer c.Close()
		want(t, send(c, "a@x.test", []string{box}, message), "550 5.7.51", "")
	})
	t.Run("STARTTLS is required", func(t *testing.T) {
		r.admin("PATCH", inboundPath, map[string]any{"RestrictDomainsToCertificate": false})
		defer r.admin("PATCH", inboundPath, map[string]any{"RestrictDomainsToCertificate": true})
		c := r.dial(nil, true)
		defer c.Close()
		want(t, send(c, "a@x.test", []string{box}, message), "451 4.7.3", "STARTTLS is required")
	})
	t.Run("too many recipients of a domain", func(t *testing.T) {
		c := r.dial(right, false)
		defer c.Close()
		var all []string
		for i := range mostOfOneDomain + 1 {
			all = append(all, fmt.Sprintf("u%d@%s", i, r.one.Domain))
		}
		want(t, send(c, "a@x.test", all, message), "452 4.5.3", "Too many recipients")
	})
	t.Run("throttled", func(t *testing.T) {
		r.admin("PATCH", "Simulator", map[string]any{"Throttle": "4.7.500"})
		defer r.admin("PATCH", "Simulator", map[string]any{"Throttle": ""})
		want(t, r.deliver(right, "a@x.test", box, message), "451 4.7.500", "Access denied, please try again later")
	})
	t.Run("a busy mailbox", func(t *testing.T) {
		r.admin("PATCH", "Simulator", map[string]any{"MailboxBusy": true})
		defer r.admin("PATCH", "Simulator", map[string]any{"MailboxBusy": false})
		want(t, r.deliver(right, "a@x.test", box, message), "432 4.3.2", "STOREDRV.Deliver")
	})
	t.Run("at end of data", func(t *testing.T) {
		r.admin("PATCH", "Simulator", map[string]any{"AttributeAtData": true})
		defer r.admin("PATCH", "Simulator", map[string]any{"AttributeAtData": false})
		c := r.dial(nil, false)
		defer c.Close()
		if err := c.Mail("a@x.test", nil); err != nil {
			t.Fatal(err)
		}
		if err := c.Rcpt(box, nil); err != nil {
			t.Fatal(err)
		}
		w, err := c.Data()
		if err != nil {
			t.Fatal(err)
		}
		want(t, w.Close(), "550 5.7.51", "")
	})
	t.Run("no such recipient", func(t *testing.T) {
		r.admin("POST", "Recipient", map[string]any{"PrimarySmtpAddress": box})
		want(t, r.deliver(right, "a@x.test", "nobody@"+r.one.Domain, message), "550 5.4.1", "Recipient address rejected: Access denied")
		want(t, r.deliver(right, "a@x.test", box, message), "", "")
	})
	t.Run("direct send", func(t *testing.T) {
		r.admin("PATCH", "OrganizationConfig", map[string]any{"RejectDirectSend": true})
		r.admin("DELETE", inboundPath, nil)
		want(t, r.deliver(nil, "me@"+r.one.Domain, box, message), "550 5.7.68", "Direct Send not allowed")
		want(t, r.deliver(nil, "a@x.test", box, message), "", "")
	})
}

// TestNames holds the wildcard rules and the strict switch.
func TestNames(t *testing.T) {
	for _, c := range []struct {
		pattern, name string
		want          bool
	}{
		{"mx.contoso.com", "mx.contoso.com", true}, {"mx.contoso.com", "MX.Contoso.com", true}, {"mx.contoso.com", "a.mx.contoso.com", false},
		{"*.contoso.com", "contoso.com", true}, {"*.contoso.com", "a.contoso.com", true}, {"*.contoso.com", "a.b.contoso.com", true},
		{"*.contoso.com", "*.contoso.com", true}, {"*.contoso.com", "notcontoso.com", false}, {"contoso.com", "*.contoso.com", false},
	} {
		if got := matches(c.pattern, c.name); got != c.want {
			t.Errorf("%s against %s: %v", c.pattern, c.name, got)
		}
	}
	r := startRig(t, Config{})
	r.name("second.gw.example")
	cert := r.ca.Issue(t, nil, "first.gw.example", "second.gw.example")
	box := "user@" + r.one.Domain
	want(t, r.deliver(cert, "a@x.test", box, message), "", "")
	r.admin("PATCH", "Simulator", map[string]any{"CNOnly": true})
	want(t, r.deliver(cert, "a@x.test", box, message), "550 5.7.51", "")
	r.name("first.gw.example")
	want(t, r.deliver(cert, "a@x.test", box, message), "", "")
	r.admin("PATCH", "Simulator", map[string]any{"NeedClientAuth": true})
	server := r.ca.Issue(t, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }, "first.gw.example")
	want(t, r.deliver(server, "a@x.test", box, message), "550 5.7.51", "")
}

// TestTwoGates: two connectors stand together, so that two names are accepted
// while the identity changes, and a change reaches the front after its delay.
func TestTwoGates(t *testing.T) {
	r := startRig(t, Config{})
	box := "user@" + r.one.Domain
	e1, e2 := r.ca.Issue(t, nil, "e1.gw.example"), r.ca.Issue(t, nil, "e2.gw.example")
	r.name("e1.gw.example")
	r.admin("POST", "InboundConnector", map[string]any{"Name": "next", "ConnectorType": "Partner", "SenderDomains": []string{"*"},
		"RestrictDomainsToCertificate": true, "TlsSenderCertificateName": "e2.gw.example"})
	want(t, r.deliver(e1, "a@x.test", box, message), "", "")
	want(t, r.deliver(e2, "a@x.test", box, message), "", "")
	if a := r.Arrivals(r.one.EntraTenant); a[1].Connector != "next" || a[1].Certificate != "e2.gw.example" {
		t.Errorf("the second came by %q with %q", a[1].Connector, a[1].Certificate)
	}
	r.admin("PATCH", "Simulator", map[string]any{"PropagationDelay": "10m"})
	r.admin("DELETE", inboundPath, nil)
	want(t, r.deliver(e1, "a@x.test", box, message), "", "")
	r.clock.step(10 * time.Minute)
	want(t, r.deliver(e1, "a@x.test", box, message), "550 5.7.51", "")
	r.admin("PATCH", "InboundConnector/next", map[string]any{"TlsSenderCertificateName": "e3.gw.example"})
	want(t, r.deliver(e2, "a@x.test", box, message), "", "")
	r.clock.step(10 * time.Minute)
	want(t, r.deliver(e2, "a@x.test", box, message), "550 5.7.51", "")
	acts := r.admin("GET", "AdminAuditLog", nil)["value"].([]any)
	last := acts[len(acts)-1].(map[string]any)
	if last["CmdletName"] != "Set-InboundConnector" || last["ObjectModified"] != "next" {
		t.Errorf("the last act in the log is %v", last)
	}
}

// TestRelay: an OnPremises connector lets out what has its certificate and an
// accepted domain, and promotes cross-premises fields.
func TestRelay(t *testing.T) {
	r := startRig(t, Config{})
	own := r.ca.Issue(t, nil, "gw."+r.one.Domain)
	foreign := r.ca.Issue(t, nil, "gw.vendor.example")
	r.admin("POST", "InboundConnector", map[string]any{"Name": "own servers", "ConnectorType": "OnPremises", "SenderDomains": []string{"*"},
		"TlsSenderCertificateName": "gw." + r.one.Domain, "CloudServicesMailEnabled": true})
	r.admin("POST", "InboundConnector", map[string]any{"Name": "vendor", "ConnectorType": "OnPremises", "SenderDomains": []string{"*"},
		"TlsSenderCertificateName": "*.vendor.example"})
	out := "b@elsewhere.test"
	want(t, r.deliver(own, "anybody@x.test", out, message), "", "")
	want(t, r.deliver(foreign, "anybody@x.test", out, message), "550 5.7.64", "ATTR36")
	want(t, r.deliver(foreign, "me@"+r.one.Domain, out, message), "", "")
	crossing := "X-MS-Exchange-CrossPremises-AuthAs: Internal\r\nX-MS-Exchange-Organization-SCL: -1\r\n" + message
	want(t, r.deliver(own, "me@"+r.one.Domain, "user@"+r.one.Domain, crossing), "", "")
	want(t, r.deliver(foreign, "me@"+r.one.Domain, "user@"+r.one.Domain, crossing), "", "")
	got := r.Arrivals(r.one.EntraTenant)
	if len(got) != 4 || !got[0].Relayed || got[2].Relayed {
		t.Fatalf("arrivals: %+v", got)
	}
	if s := strings.Join(got[2].Stamped, "\n"); !strings.Contains(s, "X-MS-Exchange-Organization-AuthAs: Internal") || strings.Contains(s, "SCL") {
		t.Errorf("promoted: %s", s)
	}
	if !slices.Contains(got[3].Stamped, "X-MS-Exchange-Organization-AuthAs: Anonymous") || strings.Contains(strings.Join(got[3].Stamped, " "), "Cross") {
		t.Errorf("not promoted: %v", got[3].Stamped)
	}
	other := r.List()[1]
	want(t, r.deliver(own, "a@x.test", "user@"+other.Domain, message), "550 5.7.51", "")
}

// TestSkipListing: the connector finds who really sent the message.
func TestSkipListing(t *testing.T) {
	r := startRig(t, Config{})
	r.name("e1.gw.example")
	r.admin("PATCH", inboundPath, map[string]any{"EFSkipIPs": []string{"198.51.100.0/24"}})
	text := "Received: from gw ([198.51.100.7]) by x; Mon, 1 Jan 2026 00:00:00 +0000\r\n" +
		"Received: from a ([203.0.113.9]) by gw; Mon, 1 Jan 2026 00:00:00 +0000\r\n" + message
	want(t, r.deliver(r.ca.Issue(t, nil, "e1.gw.example"), "a@x.test", "user@"+r.one.Domain, text), "", "")
	got := r.Arrivals(r.one.EntraTenant)[0].Stamped
	if !slices.Contains(got, "X-MS-Exchange-ExternalOriginalInternetSender: ip=[203.0.113.9]") {
		t.Errorf("stamped: %v", got)
	}
}

// TestPostfix: a third foreign client, with smtp_tls_cert_file.
func TestPostfix(t *testing.T) {
	r := startRig(t, Config{})
	r.name("e1.gw.example")
	cert := r.ca.Issue(t, nil, "e1.gw.example")
	p := testpeer.StartPostfix(t, testpeer.PostfixConfig{RelayHost: r.one.SMTP, ClientCert: cert})
	source := r.one
	source.SMTP = p.Addr
	relay := &rig{t: t, one: source, Sim: r.Sim, clock: r.clock}
	c := relay.dial(nil, true)
	defer c.Close()
	if err := send(c, "a@x.test", []string{"user@" + r.one.Domain}, message); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(20 * time.Second); len(r.Arrivals(r.one.EntraTenant)) == 0; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("nothing came:\n%s", p.Log())
		}
	}
	if a := r.Arrivals(r.one.EntraTenant); len(a) != 1 || a[0].Certificate != "e1.gw.example" || a[0].Connector == "" {
		t.Errorf("arrivals: %+v", a)
	}
	r.name("e2.gw.example")
	if err := send(c, "a@x.test", []string{"user@" + r.one.Domain}, message); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(20 * time.Second); !strings.Contains(p.Log(), "5.7.51"); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("no 5.7.51 in Postfix's log:\n%s", p.Log())
		}
	}
}
