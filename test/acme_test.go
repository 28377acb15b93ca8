package test

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/sallyport-mail/sallyport/internal/exchange/sim"
	"github.com/sallyport-mail/sallyport/internal/testpeer"
	"github.com/sallyport-mail/sallyport/internal/testpeer/pebble"
)

// TestACME has a public CA issue identities: it asks the gateway's listener
// whether the names are ours, for real, and a Microsoft 365 that trusts that CA
// alone lets them in.
func TestACME(t *testing.T) {
	listener := freeAddresses(t, 1)[0]
	_, port, _ := net.SplitHostPort(listener)
	number, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	ca := pebble.Start(t, number)
	block, _ := pem.Decode(ca.Root())
	root, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	s, err := sim.Open(sim.Config{Dir: filepath.Join(t.TempDir(), "m365"), Tenants: 1, Roots: []*x509.Certificate{root}})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Serve(loopback(t), loopback(t)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close(t.Context()) })
	cloud := &cloud{s, s.List()}

	p := newProcess(t, "")
	p.setACME(t, ca, "")
	p.appendSettings("\n[acme]\nhttp = " + strconv.Quote(listener) + "\n")
	p.start()

	one := cloud.list[0]
	host, mailPort, _ := net.SplitHostPort(one.SMTP)
	p.must("tenant", "add", "acme", "--region", "us")
	p.must("domain", "add", "acme", one.Domain, "--recipients", "none")
	p.must("connection", "add", "acme", "mailbox", "--kind", "m365", "--issuer", "acme", "--host", host, "--port", mailPort, "--graph", one.Graph,
		"--ca", one.CAFile, "--entra-tenant", one.EntraTenant, "--admin-token-file", writeToken(t, one.AdminToken))
	first := p.issuedBy(t, root, "acme", "mailbox")
	if err := converse(p.smtp, "x@example.org", "ann@"+one.Domain, nil, []byte("Message-ID: <1@example.org>\r\n\r\nx\r\n")); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "mail under the public CA's certificate", func() bool {
		all := s.Arrivals(one.EntraTenant)
		return len(all) > 0 && all[len(all)-1].Certificate == first.Name && all[len(all)-1].Connector != ""
	})
	r := object[replacement](p, "connection", "replace", "acme", "mailbox", "--wait")
	next := p.issuedBy(t, root, "acme", "mailbox")
	if !r.OK || r.To != next.Name || next.Epoch != first.Epoch+1 {
		t.Errorf("%+v, active is %+v", r, next)
	}

	// A partner by mutual TLS, in the same way.
	p.must("connection", "add", "acme", "partner", "--kind", "smtp", "--direction", "outbound", "--host", host, "--port", mailPort,
		"--tls", "mutual", "--issuer", "acme", "--ca", one.CAFile)
	p.issuedBy(t, root, "acme", "partner")
	if ca.Asked.Load() == 0 {
		t.Error("the CA was not asked")
	}
}

// TestACMEByDNS has a public CA issue an identity that no port 80 stands behind.
// The region's zone is nobody's to change: a wildcard CNAME leads the names of
// all challenges to one name of another zone, for which alone the key is.
func TestACMEByDNS(t *testing.T) {
	key := testpeer.BINDKey(t, "sallyport.us", "hmac-sha512")
	const own = "@ IN NS ns\nns IN A 127.0.0.1\n"
	bind := testpeer.StartBIND(t, testpeer.BINDConfig{Recursion: true, Keys: key, Zones: []testpeer.BINDZone{
		{Name: "us.sallyport.test", Records: own + "* IN CNAME us.challenges.test.\n"},
		{Name: "challenges.test", Records: own, Policy: "grant sallyport.us name us.challenges.test. TXT;"},
	}})
	ca := pebble.StartBehind(t, bind.Addr)
	block, _ := pem.Decode(ca.Root())
	root, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	p := newProcess(t, "")
	p.setACME(t, ca, fmt.Sprintf("[acme.dns]\nserver = %q\nkey_file = \"dns.key\"\nresolvers = [%q]\ncheck = [%q]\n", bind.Addr, bind.Addr, bind.Addr))
	if err := os.WriteFile(filepath.Join(p.dir, "keeper", "us", "dns.key"), []byte(key), 0o600); err != nil {
		t.Fatal(err)
	}
	p.start()
	p.must("tenant", "add", "acme", "--region", "us")
	p.must("connection", "add", "acme", "partner", "--kind", "smtp", "--direction", "outbound", "--host", "mail.example", "--port", "25",
		"--tls", "mutual", "--issuer", "acme")
	p.issuedBy(t, root, "acme", "partner")
	if log := bind.Log(); !strings.Contains(log, "adding an RR at 'us.challenges.test' TXT") {
		t.Errorf("nothing was published:\n%s", log)
	}
	waitFor(t, "an empty zone", func() bool { return len(bind.Texts(t, "us.challenges.test")) == 0 })
}

// setACME makes the keeper's folder, and has the keeper ask a CA from its next
// start on.
func (p *process) setACME(t *testing.T, ca *pebble.CA, more string) {
	t.Helper()
	p.start() // which makes the keeper's folder
	settings := filepath.Join(p.dir, "keeper", "us", "keeper.toml")
	waitFor(t, "the keeper's folder", func() bool { _, err := os.Stat(settings); return err == nil })
	p.stop()
	if err := os.WriteFile(filepath.Join(p.dir, "keeper", "us", "directory.pem"), ca.Roots, 0o600); err != nil {
		t.Fatal(err)
	}
	own, err := os.ReadFile(settings)
	if err != nil {
		t.Fatal(err)
	}
	text := string(own) + fmt.Sprintf("\n[acme]\ndirectory = %q\nroots = \"directory.pem\"\ncontact = \"postmaster@sallyport.test\"\n", ca.Directory) + more
	if err := os.WriteFile(settings, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// issuedBy waits for a connection's active identity, which a CA is to have
// issued.
func (p *process) issuedBy(t *testing.T, root *x509.Certificate, tenant, connection string) identity {
	t.Helper()
	var got identity
	waitFor(t, "an identity of "+connection, func() bool {
		for _, i := range object[[]identity](p, "identity", "list", "--tenant", tenant) {
			if i.Connection == connection && i.Purpose == "smtp-client" && i.State == "active" {
				got = i
				return true
			}
		}
		return false
	})
	shown := object[struct{ Issuer, Certificate string }](p, "identity", "show", got.ID)
	pool, between := x509.NewCertPool(), x509.NewCertPool()
	pool.AddCert(root)
	var leaf *x509.Certificate
	for rest := []byte(shown.Certificate); ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		if leaf == nil {
			leaf = cert
		} else {
			between.AddCert(cert)
		}
	}
	if leaf == nil || shown.Issuer != "acme" {
		t.Fatalf("%+v", shown)
	}
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: pool, Intermediates: between, DNSName: got.Name, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}); err != nil {
		t.Errorf("%s: %v", got.Name, err)
	}
	if !strings.HasSuffix(got.Name, ".us.sallyport.test") {
		t.Error(got.Name)
	}
	return got
}
