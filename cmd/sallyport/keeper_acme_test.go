package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/keeper"
	"github.com/sallyport-mail/sallyport/internal/keeper/acme"
)

// TestACMESettings reads what [acme] names.
func TestACMESettings(t *testing.T) {
	account, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	const secret = "c2VjcmV0LWtleQ"
	statement := "key \"k\" { algorithm hmac-sha512; secret \"" + strings.Repeat("A", 43) + "=\"; };"
	dns := func(set func(*acmeDNSConfig)) acmeConfig {
		d := acmeDNSConfig{Server: "ns1.example.net", KeyFile: file("tsig", statement)}
		set(&d)
		return acmeConfig{Directory: "https://ca.test/dir", DNS: &d}
	}
	shared := file("shared", statement)
	if err := os.Chmod(shared, 0o644); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		in   acmeConfig
		kind fault.Kind
		bad  bool
		key  string
	}{
		"alone":       {in: acmeConfig{Directory: "https://ca.test/dir"}},
		"bound":       {in: acmeConfig{Directory: "https://ca.test/dir", EABID: "kid", EABKeyFile: file("a", secret+"\n")}, key: "secret-key"},
		"padded":      {in: acmeConfig{Directory: "https://ca.test/dir", EABID: "kid", EABKeyFile: file("b", secret+"==\r\n")}, key: "secret-key"},
		"no key file": {in: acmeConfig{Directory: "https://ca.test/dir", EABID: "kid", EABKeyFile: filepath.Join(dir, "none")}, bad: true, kind: fault.Missing},
		"no base64":   {in: acmeConfig{Directory: "https://ca.test/dir", EABID: "kid", EABKeyFile: file("c", "sec ret!")}, bad: true, kind: fault.Invalid},
		"DNS":         {in: dns(func(*acmeDNSConfig) {})},
		"DNS, all": {in: dns(func(d *acmeDNSConfig) {
			d.Zone, d.KeyName, d.Algorithm, d.TTL, d.PropagationS = "c.example.net", "k.", "hmac-sha512", 5, 300
			d.Resolvers, d.Check = []string{"192.0.2.53"}, []string{"192.0.2.1:5353"}
		})},
		"DNS, no key":      {in: dns(func(d *acmeDNSConfig) { d.KeyFile = filepath.Join(dir, "none") }), bad: true, kind: fault.Missing},
		"DNS, a key open":  {in: dns(func(d *acmeDNSConfig) { d.KeyFile = shared }), bad: true, kind: fault.Denied},
		"DNS, another key": {in: dns(func(d *acmeDNSConfig) { d.KeyName = "other" }), bad: true, kind: fault.Invalid},
		"DNS, no server":   {in: dns(func(d *acmeDNSConfig) { d.Server = "a b" }), bad: true, kind: fault.Invalid},
		"DNS, a long wait": {in: dns(func(d *acmeDNSConfig) { d.PropagationS = 7200 }), bad: true, kind: fault.Invalid},
		"no roots":         {in: acmeConfig{Directory: "https://ca.test/dir", Roots: filepath.Join(dir, "none")}, bad: true, kind: fault.Missing},
	} {
		got, err := c.in.settings(account)
		if c.bad {
			if !fault.Is(err, c.kind) || strings.Contains(err.Error(), "sec ret") {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if (got.External != nil) != (c.key != "") || got.External != nil && (string(got.External.Key) != c.key || got.External.ID != "kid") {
			t.Errorf("%s: %+v", name, got.External)
		}
		if d := c.in.DNS; (got.DNS != nil) != (d != nil) || d != nil && got.Timeout != 3*time.Minute+time.Duration(d.PropagationS)*time.Second {
			t.Errorf("%s: %v, %v", name, got.DNS, got.Timeout)
		}
		if _, err := acme.New(got); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}

	// What is wrong with them stops the keeper, and before its account is open no
	// challenge is answered.
	var k keeper.Config
	(&acmeConfig{Directory: "http://ca.test/dir"}).issue(&k)
	if _, ok := k.Challenges("a-token"); ok {
		t.Error("a challenge is answered before there is an account")
	}
	if _, err := k.MoreIssuers(account); !fault.Is(err, fault.Invalid) || fault.HintOf(err) == "" {
		t.Errorf("a directory in clear: %v", err)
	}
	(&acmeConfig{Directory: "https://ca.test/dir"}).issue(&k)
	all, err := k.MoreIssuers(account)
	if err != nil || len(all) != 1 || all[0].Name() != "acme" {
		t.Fatalf("%v, %v", all, err)
	}
	if _, ok := k.Challenges("a-token"); ok {
		t.Error("a challenge that nobody has put is answered")
	}
	advisor := all[0].(keeper.Advisor)
	if _, _, err := advisor.Advice(t.Context(), nil); !fault.Is(err, fault.Missing) {
		t.Errorf("advice on nothing: %v", err)
	}
	if _, _, err := advisor.Advice(t.Context(), [][]byte{[]byte("no certificate")}); !fault.Is(err, fault.Internal) {
		t.Errorf("advice on garbage: %v", err)
	}
}
