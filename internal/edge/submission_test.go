package edge

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/sallyport-mail/sallyport/internal/tenant"
)

func authorHouse(t testing.TB) *session {
	h := newHouse(t)
	for _, n := range []string{"acme", "globex"} {
		h.addTenant(n, "us", tenant.Settings{})
		h.addDomain(n, n+".test", "none")
	}
	h.open()
	s := h.visit(Submission).(*submission)
	t.Cleanup(s.Close)
	s.submitter = tenant.Submitter{Tenant: "acme", User: "alice"}
	return s.session
}

func TestAuthor(t *testing.T) {
	s := authorHouse(t)
	for _, c := range []struct{ from, enhanced string }{
		{"From: alice@acme.test", ""},
		{"From: Alice <alice@ACME.test>", ""},
		{"From: =?gb2312?B?1cXI/Q==?= <alice@acme.test>", ""},
		{"From: \"boss@globex.test\" <alice@acme.test>", ""},
		{"From: a@acme.test,\r\n b@acme.test", ""},
		{"From: team: a@acme.test, b@acme.test;", ""},
		{"From: a@acme.test, b@globex.test", "5.7.60"},
		{"From: a@sub.acme.test", "5.7.60"},
		{"From: alice", "5.6.0"},
		{"From: <>", "5.6.0"},
		{"From:", "5.6.0"},
		{"To: x@acme.test", "5.6.0"},
		{"From: a@acme.test\r\nFROM : b@globex.test", "5.6.0"},
	} {
		got := ""
		if r := s.author([]byte(c.from + "\r\n\r\n")); r != nil {
			got = r.Enhanced
		}
		if got != c.enhanced {
			t.Errorf("%q: %q, want %q", c.from, got, c.enhanced)
		}
	}
}

// A header section that passes names our tenant's domain in its only From
// field, whatever else is in it.
func FuzzAuthor(f *testing.F) {
	f.Add([]byte("From: Alice <alice@acme.test>\r\n\r\n"))
	f.Add([]byte("From: a@acme.test, \"b\" (c) <d@globex.test>\r\n\r\n"))
	f.Add([]byte("From: g: a@acme.test;, =?utf-8?q?x?= <b@acme.test>\r\n\r\n"))
	s := authorHouse(f)
	f.Fuzz(func(t *testing.T, header []byte) {
		if strings.ContainsFunc(string(header), func(r rune) bool { return r >= utf8.RuneSelf }) {
			return // a name in other letters may map to ours (RFC 5895)
		}
		if r := s.author(header); r == nil && !strings.Contains(strings.ToLower(string(header)), "acme.test") {
			t.Fatalf("%q passed", header)
		}
	})
}
