package mail

import (
	"strings"
	"testing"
)

func TestParseReplyText(t *testing.T) {
	for _, c := range []struct{ in, enhanced, rest string }{
		{"2.1.0 Ok", "2.1.0", "Ok"},
		{"5.7.513 Service unavailable", "5.7.513", "Service unavailable"},
		{"4.4.1", "4.4.1", ""},
		{"5.1.1  two spaces", "5.1.1", "two spaces"},
		{"5.1.1 one\n5.1.1 two", "5.1.1", "one\ntwo"},
		{"5.1.1 one\ntwo\n5.1.2 three", "5.1.1", "one\ntwo\n5.1.2 three"},
		{"5.1.1\n5.1.1 two", "5.1.1", "\ntwo"},
		{"5.1.1x no", "", "5.1.1x no"},
		{"3.1.1 no such class", "", "3.1.1 no such class"},
		{"5.1.1111 no", "", "5.1.1111 no"},
		{"5..1 no", "", "5..1 no"},
		{"5.1. no", "", "5.1. no"},
		{"5.1", "", "5.1"},
		{"", "", ""},
		{"Ok", "", "Ok"},
	} {
		if enhanced, rest := ParseReplyText(c.in); enhanced != c.enhanced || rest != c.rest {
			t.Errorf("%q: got %q %q", c.in, enhanced, rest)
		}
	}
}

func FuzzParseReplyText(f *testing.F) {
	f.Add("5.1.1 one\n5.1.1 two")
	f.Add("4.4.")
	f.Fuzz(func(t *testing.T, text string) {
		enhanced, rest := ParseReplyText(text)
		if enhanced == "" && rest != text || len(rest) > len(text) {
			t.Fatalf("%q: %q %q", text, enhanced, rest)
		}
		if strings.Count(rest, "\n") != strings.Count(text, "\n") {
			t.Fatalf("%q: lines were lost: %q", text, rest)
		}
	})
}
