package mail

import (
	"encoding/xml"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sallyport-mail/sallyport/internal/fault"
)

// dataSet returns a directory of the shared test data, or skips.
func dataSet(t testing.TB, parts ...string) string {
	t.Helper()
	root := os.Getenv("SALLYPORT_DATA_SETS")
	if root == "" {
		root = filepath.Join("..", "..", "..", "shared", "data")
	}
	dir := filepath.Join(append([]string{root}, parts...)...)
	if _, err := os.Stat(dir); err != nil {
		t.Skip("no test data: set SALLYPORT_DATA_SETS")
	}
	return dir
}

func TestParseAddress(t *testing.T) {
	long := strings.Repeat("a", 64)
	for _, c := range []struct{ in, local, domain, key string }{
		{"a@b.example", "a", "b.example", "a@b.example"},
		{"Ann.Other@B.Example", "Ann.Other", "b.example", "ann.other@b.example"},
		{"a%b@c.example", "a%b", "c.example", "a%b@c.example"},
		{"host!user@c.example", "host!user", "c.example", "host!user@c.example"},
		{`"A"@b.example`, `"A"`, "b.example", "a@b.example"},
		{`"a\b"@b.example`, `"a\b"`, "b.example", "ab@b.example"},
		{`"a b"@b.example`, `"a b"`, "b.example", `"a b"@b.example`},
		{`"a\ b"@b.example`, `"a\ b"`, "b.example", `"a b"@b.example`},
		{`"a.b@c"@b.example`, `"a.b@c"`, "b.example", `"a.b@c"@b.example`},
		{`"a..b"@b.example`, `"a..b"`, "b.example", `"a..b"@b.example`},
		{`"\"\\"@b.example`, `"\"\\"`, "b.example", `"\"\\"@b.example`},
		{`""@b.example`, `""`, "b.example", `""@b.example`},
		{"a@[192.0.2.1]", "a", "[192.0.2.1]", "a@[192.0.2.1]"},
		{"a@[ipv6:2001:DB8:0:0::1]", "a", "[IPv6:2001:db8::1]", "a@[IPv6:2001:db8::1]"},
		{"a@under_score.example", "a", "under_score.example", "a@under_score.example"},
		{"a@localhost", "a", "localhost", "a@localhost"},
		{long + "@b.example", long, "b.example", long + "@b.example"},
		{"Dörte@BÜCHER.example", "Dörte", "xn--bcher-kva.example", "dörte@xn--bcher-kva.example"},
		{"do\u0308rte@b.example", "do\u0308rte", "b.example", "dörte@b.example"},
		{"a@straße.example", "a", "xn--strae-oqa.example", "a@xn--strae-oqa.example"},
		{"用户@例子。测试", "用户", "xn--fsqu00a.xn--0zwm56d", "用户@xn--fsqu00a.xn--0zwm56d"},
	} {
		a, err := ParseAddress(c.in)
		if err != nil {
			t.Errorf("%q: %v", c.in, err)
			continue
		}
		if a.Local != c.local || a.Domain != c.domain || a.Key() != c.key {
			t.Errorf("%q: got %q %q key %q, want %q %q key %q", c.in, a.Local, a.Domain, a.Key(), c.local, c.domain, c.key)
		}
	}
}

func TestParseAddressRefuses(t *testing.T) {
	for _, in := range []string{
		"", "@", "a", "a@", "@b.example", "postmaster", "<a@b.example>", "<>",
		"@relay.example:a@b.example", // a source route is the SMTP room's to cut off
		"a b@c.example", "a@b c.example", " a@b.example", "a@b.example ", "a@@b.example",
		".a@b.example", "a.@b.example", "a..b@c.example", "a,b@c.example", "a;b@c.example", "a\\b@c.example",
		"a@.b.example", "a@b..example", "a@b.example.", "a@-b.example", "a@b-.example", "a@b/c.example",
		`"a@b.example`, `"a"b@c.example`, `"a"`, `"a\`, "\"a\tb\"@c.example", "\"a\\\nb\"@c.example",
		"a\x00@b.example", "a\r\n@b.example", "a@b.example\r\nRCPT TO:<x@y.example>", "a\x7f@b.example",
		"a\xff@b.example", "a\u0085@b.example", "a@b\xff.example", "a@b\u200b..example",
		"a@192.0.2.1", "a@12345", "a@[192.0.2.1", "a@[192.0.2]", "a@[2001:db8::1]", "a@[IPv6:fe80::1%eth0]",
		"a@[IPv6:192.0.2.1]", "a@[]", "a@[192.0.2.01]",
		"a@b.example＠c.example", "a@％.example", "a@xn--a.ü.example",
		strings.Repeat("a", 260) + "@b.example",
		"a@" + strings.Repeat("a", 64) + ".example",
		"a@" + strings.Repeat("abcdefg.", 32) + "example",
	} {
		if a, err := ParseAddress(in); !fault.Is(err, fault.Invalid) {
			t.Errorf("%q: got %+v, %v", in, a, err)
		}
	}
}

func TestParseDomain(t *testing.T) {
	for in, want := range map[string]string{
		"Example.COM": "example.com", "example.com.": "example.com", "bücher.example": "xn--bcher-kva.example",
		"XN--BCHER-KVA.example": "xn--bcher-kva.example", "a": "a", "": "", ".": "", "a..b": "", "[192.0.2.1]": "", "a b": "",
	} {
		got, err := ParseDomain(in)
		if got != want || (want == "") != fault.Is(err, fault.Invalid) {
			t.Errorf("%q: got %q, %v; want %q", in, got, err, want)
		}
	}
}

func TestAddressForms(t *testing.T) {
	if s := (Address{}).String(); s != "" {
		t.Errorf("null path: %q", s)
	}
	if s := (Address{Local: "Postmaster"}).Key(); s != "postmaster" {
		t.Errorf("bare postmaster: %q", s)
	}
	if !IsBarePostmaster("PostMaster") || IsBarePostmaster("postmaster@b.example") {
		t.Error("IsBarePostmaster")
	}
	if !(Address{"ü", "b.example"}).NeedsUTF8() || (Address{"u", "b.example"}).NeedsUTF8() {
		t.Error("NeedsUTF8")
	}
	if !(Address{"a", "[192.0.2.1]"}).IsLiteral() || (Address{"a", "b.example"}).IsLiteral() {
		t.Error("IsLiteral")
	}
}

type isemailCase struct {
	ID        string `xml:"id,attr"`
	Address   string `xml:"address"`
	Category  string `xml:"category"`
	Diagnosis string `xml:"diagnosis"`
}

// isemailWant maps the categories to what SMTP may take in an envelope: valid
// addresses, those whose domain merely has no records, and the rarities of
// RFC 5321. Comments, folding space and the forms that only message headers
// know are refused.
func isemailWant(c isemailCase) bool {
	switch c.Category {
	case "ISEMAIL_VALID_CATEGORY", "ISEMAIL_DNSWARN", "ISEMAIL_RFC5321":
		return true
	}
	return false
}

// isemailDifferences are where we differ on purpose.
func isemailDifferences() map[string]string {
	return map[string]string{
		"24": "a domain of digits alone is an address without brackets; Postfix refuses it too",
		"71": "a :: for one group is deprecated in writing (RFC 5952) but RFC 4291 readers must take it",
		"26": "a local part of more than 64 octets: senders with variable return paths have them",
		"59": "likewise, quoted",
		"60": "likewise, with an escape",
	}
}

func TestIsemail(t *testing.T) {
	raw, err := os.ReadFile(filepath.Join(dataSet(t, "addresses", "isemail", "test"), "tests.xml"))
	if err != nil {
		t.Fatal(err)
	}
	var suite struct {
		Tests []isemailCase `xml:"test"`
	}
	if err := xml.Unmarshal(raw, &suite); err != nil {
		t.Fatal(err)
	}
	if len(suite.Tests) < 150 {
		t.Fatalf("only %d cases", len(suite.Tests))
	}
	differs := isemailDifferences()
	for _, c := range suite.Tests {
		address := strings.Map(controlPicture, c.Address)
		_, err := ParseAddress(address)
		want := isemailWant(c)
		if _, ok := differs[c.ID]; ok {
			want = !want
		}
		if (err == nil) != want {
			t.Errorf("%s %q %s %s: %v", c.ID, address, c.Category, c.Diagnosis, err)
		}
	}
}

// controlPicture undoes the suite's way of writing control characters.
func controlPicture(r rune) rune {
	if r >= 0x2400 && r < 0x2420 {
		return r - 0x2400
	}
	return r
}

func FuzzParseAddress(f *testing.F) {
	for _, s := range []string{"a@b.example", `"a\"b"@B.example`, "ü@bücher.example", "a@[IPv6:::1]", "a@ﬀ.example", `"\a"@b`, "@a:b@c"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, err := ParseAddress(s)
		if err != nil {
			return
		}
		again, err := ParseAddress(a.String())
		if err != nil || again != a {
			t.Fatalf("%q: %+v prints as %q, which reads as %+v, %v", s, a, a.String(), again, err)
		}
		if strings.ContainsAny(a.String()+a.Key(), "\r\n\x00\t") {
			t.Fatalf("%q: control character got through", s)
		}
		// Folding can lengthen a local part beyond its limit; then its key is no address.
		if k, err := ParseAddress(a.Key()); err == nil && k.Key() != a.Key() {
			t.Fatalf("%q: the key %q has another key %q", s, a.Key(), k.Key())
		}
	})
}

func BenchmarkParseAddress(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ParseAddress("someone.else+tag@mail.customer.example"); err != nil {
			b.Fatal(err)
		}
	}
}

func FuzzParseDomain(f *testing.F) {
	for _, s := range []string{"Example.com.", "bücher.example", "xn--a.ü", "a。b", "１.2.3"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		d, err := ParseDomain(s)
		if err != nil {
			return
		}
		if again, err := ParseDomain(d); err != nil || again != d || !isASCII(d) || d != strings.ToLower(d) {
			t.Fatalf("%q: %q reads as %q, %v", s, d, again, err)
		}
	})
}
