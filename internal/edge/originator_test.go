package edge

import (
	"bytes"
	"regexp"
	"strings"
	"testing"

	"github.com/sallyport-mail/sallyport/internal/mail"
)

func TestOriginator(t *testing.T) {
	for _, c := range []struct{ name, header, org, problem string }{
		{"one", "From: a\r\nX-OriginatorOrg: Acme.onmicrosoft.com\r\n", "acme.onmicrosoft.com", ""},
		{"folded", "X-OriginatorOrg:\r\n acme.test \r\n", "acme.test", ""},
		{"other case", "x-originatororg: acme.test\r\n", "acme.test", ""},
		{"missing", "From: a\r\n", "", "no X-OriginatorOrg"},
		{"empty", "X-OriginatorOrg: \r\n", "", "no X-OriginatorOrg"},
		{"double", "X-OriginatorOrg: acme.test\r\nX-OriginatorOrg: acme.test\r\n", "", "more than one"},
		{"double with space before the colon", "X-OriginatorOrg: a.test\r\nX-OriginatorOrg : b.test\r\n", "", "more than one"},
		{"empty and one", "X-OriginatorOrg:\r\nX-OriginatorOrg: b.test\r\n", "", "more than one"},
		{"in another field", "Subject: x\r\n X-OriginatorOrg: acme.test\r\n", "", "no X-OriginatorOrg"},
		{"in the content", "From: a\r\n\r\nX-OriginatorOrg: acme.test\r\n", "", "no X-OriginatorOrg"},
		{"longer name", "X-OriginatorOrgs: acme.test\r\n", "", "no X-OriginatorOrg"},
	} {
		header := []byte(c.header)
		header = header[:mail.ScanHeader(header, "").Bytes]
		org, problem := originator(header, "X-OriginatorOrg")
		if org != c.org || !strings.Contains(problem, c.problem) || (problem == "") != (c.problem == "") {
			t.Errorf("%s: %q, %q", c.name, org, problem)
		}
	}
}

// Whatever the header, an organisation is only believed when a reader of
// another make finds one such line and no more.
func FuzzOriginator(f *testing.F) {
	f.Add([]byte("From: a\r\nX-OriginatorOrg: acme.test\r\n\r\nbody"))
	f.Add([]byte("X-OriginatorOrg: a\r\nx-originatororg: b\r\n"))
	f.Add([]byte("X-OriginatorOrg\t: a\r\n \r\n\tb\r\n"))
	f.Add([]byte("Subject: a\r\n X-OriginatorOrg: b\r\n\r\nX-OriginatorOrg: c"))
	line := regexp.MustCompile(`(?i)^x-originatororg[ \t]*:`)
	f.Fuzz(func(t *testing.T, data []byte) {
		header := data[:mail.ScanHeader(data, "").Bytes]
		org, problem := originator(header, "X-OriginatorOrg")
		n := 0
		for _, l := range bytes.Split(header, []byte("\n")) {
			if line.Match(l) {
				n++
			}
		}
		if (org == "") == (problem == "") {
			t.Fatalf("org %q, problem %q", org, problem)
		}
		if problem == "" && n != 1 {
			t.Fatalf("believed %q with %d fields", org, n)
		}
		if strings.ContainsAny(org, "\r\n") {
			t.Fatalf("%q", org)
		}
	})
}
