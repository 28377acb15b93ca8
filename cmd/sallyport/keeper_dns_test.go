package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/keeper"
	"github.com/sallyport-mail/sallyport/internal/testpeer"
	"github.com/sallyport-mail/sallyport/internal/testpeer/pebble"
)

// TestIssueByDNS has a CA find, at a BIND, what the settings of [acme.dns]
// publish there.
func TestIssueByDNS(t *testing.T) {
	statement := testpeer.BINDKey(t, "us.key", "hmac-sha256")
	const records = "@ IN NS ns\nns IN A 127.0.0.1\n"
	bind := testpeer.StartBIND(t, testpeer.BINDConfig{Keys: statement, Zones: []testpeer.BINDZone{
		{Name: "us.gate.example", Records: records, Policy: "grant us.key zonesub TXT;"}}})
	ca := pebble.StartBehind(t, bind.Addr)
	dir := t.TempDir()
	for name, text := range map[string]string{"roots.pem": string(ca.Roots), "good.key": statement, "other.key": testpeer.BINDKey(t, "us.key", "hmac-sha256")} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	with := func(key string) keeper.Issuer {
		text := goodKeeper + "[acme]\ndirectory = \"" + ca.Directory + "\"\nroots = \"roots.pem\"\n[acme.dns]\nserver = \"" + bind.Addr + "\"\nkey_file = \"" + key + "\"\n" +
			"resolvers = [\"" + bind.Addr + "\"]\ncheck = [\"" + bind.Addr + "\"]\nttl = 5\npropagation_s = 10\n"
		c, err := parseKeeperConfig([]byte(text), "keeper.toml")
		if err != nil {
			t.Fatal(err)
		}
		c.place(dir)
		var k keeper.Config
		c.ACME.issue(&k)
		all, err := k.MoreIssuers(newP256(t))
		if err != nil {
			t.Fatal(err)
		}
		return all[0]
	}
	issuer := with("good.key")
	var all sync.WaitGroup
	for _, name := range []string{"e1.abc.us.gate.example", "e2.abc.us.gate.example"} {
		all.Go(func() {
			chain, err := issuer.Issue(t.Context(), keeper.Request{Name: name, Key: newP256(t)})
			if err != nil {
				t.Errorf("%s: %v", name, err)
				return
			}
			if leaf, err := x509.ParseCertificate(chain[0]); err != nil || leaf.VerifyHostname(name) != nil {
				t.Errorf("%s: %v, %v", name, leaf, err)
			}
		})
	}
	all.Wait()
	_, err := with("other.key").Issue(t.Context(), keeper.Request{Name: "e3.abc.us.gate.example", Key: newP256(t)})
	if !fault.Is(err, fault.Denied) || !strings.Contains(fault.Sentence(err), "has another secret for the key us.key (BADSIG)") || !strings.Contains(fault.HintOf(err), "key_file") {
		t.Errorf("%v / %s", err, fault.HintOf(err))
	}
	if left := bind.Zone(t, "us.gate.example"); len(left) != 2 || strings.Count(bind.Log(), "adding an RR at '_acme-challenge") != 2 {
		t.Errorf("left: %q\n%s", left, bind.Log())
	}
}

func newP256(t *testing.T) crypto.Signer {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}
