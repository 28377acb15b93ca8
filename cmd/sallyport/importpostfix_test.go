package main

import (
	"maps"
	"slices"
	"strings"
	"testing"
)

func TestReadPostfix(t *testing.T) {
	plan, err := readPostfix("testdata/postfix")
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"customer.example", "second.example", "third.example"}; !slices.Equal(plan.Domains, want) {
		t.Errorf("domains: %v, want %v", plan.Domains, want)
	}
	hops := map[string]hostView{
		"customer.example": {Host: "192.0.2.10", Port: 2525, Weight: 1},
		"second.example":   {Host: "mail.second.example", Port: 25, Weight: 1},
	}
	if !maps.Equal(plan.Transports, hops) {
		t.Errorf("transports: %v, want %v", plan.Transports, hops)
	}
	if got := plan.Recipients["customer.example"]; !slices.Equal(got, []string{"Alice@customer.example", "bob@customer.example"}) {
		t.Errorf("recipients: %v", got)
	}
	// What is not taken is said, each for its reason.
	for _, word := range []string{".wild.example", "second.example: mail.second.example is taken as a host", "lmtp", "user@customer.example", "@second.example", "ldap"} {
		if !slices.ContainsFunc(plan.Skipped, func(s string) bool { return strings.Contains(s, word) }) {
			t.Errorf("nothing was said of %s: %q", word, plan.Skipped)
		}
	}
}

func TestReadPostfixMissing(t *testing.T) {
	if _, err := readPostfix(t.TempDir()); err == nil {
		t.Error("a folder without main.cf was read")
	}
}

func TestParseHost(t *testing.T) {
	for word, want := range map[string]hostView{
		"mail.example":           {Host: "mail.example", Port: 25, Weight: 1},
		"mail.example:2525":      {Host: "mail.example", Port: 2525, Weight: 1},
		"mail.example:25:10:3":   {Host: "mail.example", Port: 25, Priority: 10, Weight: 3},
		"[2001:db8::1]":          {Host: "2001:db8::1", Port: 25, Weight: 1},
		"[2001:db8::1]:2525:5:2": {Host: "2001:db8::1", Port: 2525, Priority: 5, Weight: 2},
	} {
		if got, err := parseHost(word, 25); err != nil || got != want {
			t.Errorf("%s: %+v, %v", word, got, err)
		}
	}
	for _, word := range []string{"mail.example:x", "mail.example:1:2:3:4", "[2001:db8::1"} {
		if got, err := parseHost(word, 25); err == nil {
			t.Errorf("%s was understood as %+v", word, got)
		}
	}
}

func TestParseConfig(t *testing.T) {
	const good = "base_domain = \"x.test\"\nregions = [\"us\"]\nstore = \"sqlite\"\n[api]\naddress = \"127.0.0.1:1\"\n"
	if _, err := parseConfig([]byte(good), "f"); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ more, says string }{
		{"[limits]\nconections_per_ip = 1\n", "conections_per_ip"},
		{"[[listener]]\nkind = \"imap\"\naddress = \"127.0.0.1:2\"\n", "imap"},
		{"[[listener]]\nkind = \"inbound\"\naddress = \"25\"\n", "25"},
		{"[[listener]]\nkind = \"inbound\"\naddress = \"127.0.0.1:2\"\nregion = \"mars\"\n", "mars"},
		{"[[listener]]\nkind = \"inbound\"\naddress = \"127.0.0.1:2\"\nproxy = [\"ten\"]\n", "ten"},
		{"[dns]\nmx_port = \"x\"\n", "line 7"},
	} {
		_, err := parseConfig([]byte(good+c.more), "f")
		if err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%q: %v must say %q", c.more, err, c.says)
		}
	}
}

// FuzzParseConfig: a settings file is a person's, and may be anything.
func FuzzParseConfig(f *testing.F) {
	f.Add("base_domain = \"x.test\"\nregions = [\"us\"]\n[[listener]]\nkind = \"inbound\"\naddress = \":25\"\n")
	f.Add("base_domain = 7")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := parseConfig([]byte(text), "f")
		if err == nil && (len(c.Regions) == 0 || c.hostname("") == "mx.") {
			t.Errorf("taken: %+v", c)
		}
	})
}
