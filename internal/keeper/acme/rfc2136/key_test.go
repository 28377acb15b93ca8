package rfc2136

import (
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/sallyport-mail/sallyport/internal/fault"
)

const secret = "kbCXPv2RHzsc2gimY2jgJzhFIFD5J0x4SPEWHVkyAg0="

func TestParseKey(t *testing.T) {
	for text, c := range map[string]struct{ name, algorithm, wantName, wantAlgorithm string }{
		secret:                   {"A.Key.", "", "a.key", SHA256},
		"\n " + secret + " \r\n": {"a.key", "HMAC-SHA512.", "a.key", SHA512},
		"key \"A.key\" {\n\talgorithm hmac-sha512;\n\tsecret \"" + secret + "\";\n};\n":                                   {"", "", "a.key", SHA512},
		"# made by us\nkey a.key. { /* ; } */ secret \"" + secret + "\"; // end\nalgorithm HMAC-SHA256; } # no semicolon": {"a.key", SHA256, "a.key", SHA256},
		"key a{algorithm hmac-sha256;secret " + secret + ";};":                                                            {"", "", "a", SHA256},
	} {
		k, err := ParseKey([]byte(text), c.name, c.algorithm)
		if err != nil || k.Name() != c.wantName || k.algorithm != c.wantAlgorithm || base64.StdEncoding.EncodeToString(k.secret) != secret {
			t.Errorf("%q: %v %s, %v", text, k, k.algorithm, err)
		}
		if all := fmt.Sprintf("%v %+v %#v %s %x", k, k, k, k, k); strings.Trim(all, "a.key ") != "" {
			t.Errorf("a key is printed as %q", all)
		}
	}
}

func TestParseKeyRefuses(t *testing.T) {
	const good = `algorithm hmac-sha256; secret "` + secret + `"; `
	for what, c := range map[string]struct{ text, name, algorithm string }{
		"nothing": {"", "k", ""}, "spaces": {" \n", "k", ""}, "two words": {secret + " " + secret, "k", ""},
		"no name": {secret, "", ""}, "the root": {secret, ".", ""}, "a bad name": {secret, "a..b", ""},
		"no base64": {secret + "!", "k", ""}, "short": {"c2hvcnQ=", "k", ""}, "long": {base64.StdEncoding.EncodeToString(make([]byte, 600)), "k", ""},
		"MD5": {secret, "k", "hmac-md5.sig-alg.reg.int"}, "SHA-1": {`key k { algorithm hmac-sha1; secret "` + secret + `"; };`, "", ""},
		"another name": {"key a { " + good + "};", "b", ""}, "another algorithm": {"key a { " + good + "};", "a", SHA512},
		"two keys": {"key a { " + good + "}; key b { " + good + "};", "", ""}, "no end": {"key a { " + good, "", ""}, "more": {"key a { " + good + "}; x", "", ""},
		"no secret": {"key a { algorithm hmac-sha256; };", "", ""}, "two secrets": {"key a { " + good + good + "};", "", ""},
		"another clause": {"key a { " + good + "server 192.0.2.1; };", "", ""}, "no semicolon": {"key a { algorithm hmac-sha256 secret \"" + secret + "\" };", "", ""},
		"an open comment": {"/* key a { " + good + "};", "", ""}, "an open quote": {`key "a { algorithm`, "", ""}, "a brace": {"key { { " + good + "};", "", ""},
		"long text": {strings.Repeat(" ", maxKeyFile) + secret, "k", ""},
	} {
		k, err := ParseKey([]byte(c.text), c.name, c.algorithm)
		if !fault.Is(err, fault.Invalid) || strings.Contains(err.Error(), secret[:8]) || len(k.secret) > 0 {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestReadKey(t *testing.T) {
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	file := func(name, text string, mode os.FileMode) string {
		if err := os.WriteFile(path(name), []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return path(name)
	}
	k, err := ReadKey(file("good", secret+"\n", 0o600), "k", "")
	if err != nil || k.Name() != "k" {
		t.Errorf("%v, %v", k, err)
	}
	if err := syscall.Mkfifo(path("pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	for p, kind := range map[string]fault.Kind{
		path("none"): fault.Missing, file("open", secret, 0o640): fault.Denied, dir: fault.Denied, path("pipe"): fault.Denied,
		file("junk", "junk", 0o600): fault.Invalid, file("long", strings.Repeat("A", 2*maxKeyFile), 0o600): fault.Invalid,
	} {
		if _, err := ReadKey(p, "k", ""); !fault.Is(err, kind) || fault.HintOf(err) == "" || !strings.Contains(err.Error(), filepath.Base(p)) {
			t.Errorf("%s: %v", p, err)
		}
	}
}

// FuzzParseKey finds no text that is read as half a key, or quoted.
func FuzzParseKey(f *testing.F) {
	f.Add([]byte(secret), "k", "")
	f.Add([]byte("key \"a\" {\n\talgorithm hmac-sha256;\n\tsecret \""+secret+"\";\n};\n"), "", "")
	f.Add([]byte("# c\nkey a { /* x */ secret \""+secret+"\"; // y\nalgorithm hmac-sha512; }"), "a", SHA512)
	f.Add([]byte(secret), "{", "")
	f.Add([]byte(secret), "0..", "")
	f.Fuzz(func(t *testing.T, text []byte, name, algorithm string) {
		k, err := ParseKey(text, name, algorithm)
		if err != nil {
			if !fault.Is(err, fault.Invalid) || len(k.secret) > 0 {
				t.Errorf("%v, %v", k, err)
			}
			return
		}
		if len(k.secret) < leastSecret || k.algorithm != SHA256 && k.algorithm != SHA512 || k.Name() == "" {
			t.Errorf("%q with %d bytes and %s", k.Name(), len(k.secret), k.algorithm)
		}
		// What was read is what BIND would read.
		again, err := ParseKey([]byte("key \""+k.Name()+"\" { algorithm "+k.algorithm+"; secret \""+base64.StdEncoding.EncodeToString(k.secret)+"\"; };"), name, algorithm)
		if err != nil || again.Name() != k.Name() || again.algorithm != k.algorithm || string(again.secret) != string(k.secret) {
			t.Errorf("%v, %v of %q", again, err, k.Name())
		}
	})
}
