package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/sallyport-mail/sallyport/internal/testpeer"
)

// postfixFolder is a configuration folder that Postfix's own commands wrote,
// read and answer from.
type postfixFolder struct {
	t   *testing.T
	dir string
}

func newPostfixFolder(t *testing.T) *postfixFolder {
	t.Helper()
	testpeer.Need(t, "postfix", "postconf", "postmap")
	f := &postfixFolder{t: t, dir: t.TempDir()}
	f.write("main.cf", "# as installed\ncompatibility_level = 3.6\n")
	return f
}

func (f *postfixFolder) write(name, text string) {
	f.t.Helper()
	if err := os.WriteFile(filepath.Join(f.dir, name), []byte(text), 0o644); err != nil {
		f.t.Fatal(err)
	}
}

// ask runs a command of Postfix on this folder and returns its lines.
func (f *postfixFolder) ask(name string, args ...string) []string {
	f.t.Helper()
	path := testpeer.Need(f.t, "postfix", name)[0]
	out, err := exec.Command(path, append([]string{"-c", f.dir}, args...)...).Output()
	if err != nil {
		f.t.Fatalf("%s %q: %v", name, args, err)
	}
	return strings.FieldsFunc(string(out), func(r rune) bool { return r == '\n' })
}

// table is one that this Postfix can build: hash where there is Berkeley DB,
// lmdb where there is none.
func (f *postfixFolder) table() string {
	f.t.Helper()
	types := f.ask("postconf", "-m")
	for _, kind := range []string{"hash", "lmdb", "cdb"} {
		if slices.Contains(types, kind) {
			return kind
		}
	}
	f.t.Fatalf("this Postfix has no tables: %q", types)
	return ""
}

// entries are a table's as postmap built it: keys in lower case, with values.
func (f *postfixFolder) entries(name string) map[string]string {
	f.t.Helper()
	from := f.table() + ":" + filepath.Join(f.dir, name)
	f.ask("postmap", from)
	all := map[string]string{}
	for _, line := range f.ask("postmap", "-s", from) {
		k, v, _ := strings.Cut(line, "\t")
		all[k] = v
	}
	return all
}

// What is read of a folder is what Postfix itself says of it.
func TestReadPostfixAsPostfixDoes(t *testing.T) {
	f := newPostfixFolder(t)
	f.write("domains", "# more of them\nThird.example OK\n\nfourth.example\n    OK\n")
	f.write("transport", "# next hops\nFirst.example  smtp:[192.0.2.10]:2525\nsecond.example\n    # between\n\n\trelay:[mail.second.example]\n"+
		"third.example\tsmtp:[2001:db8::3]:26\nfirst.example smtp:[192.0.2.99]\n*  smtp:[192.0.2.1]\n")
	f.write("recipients", "Ann@First.example  x\nbob@first.example x\n  y z\n\"c d\"@second.example OK\n\"q\\\"r@s\"@second.example OK\ndan+tag@second.example OK\n# eve@first.example OK\n")
	kind := f.table()
	f.ask("postconf", "-e",
		"mydomain = first.example", "more = second.example",
		"relay_domains = $mydomain, ${more} "+kind+":$config_directory/domains",
		"transport_maps = "+kind+":${config_directory}/transport", "relay_recipient_maps = lmdb:$(config_directory)/recipients")
	plan, err := readPostfix(f.dir)
	if err != nil {
		t.Fatal(err)
	}

	var domains []string
	for _, word := range splitPostfix(strings.Join(f.ask("postconf", "-x", "-h", "relay_domains"), " ")) {
		if !strings.Contains(word, ":") {
			domains = append(domains, word)
		}
	}
	for domain := range f.entries("domains") {
		domains = append(domains, domain)
	}
	if slices.Sort(domains); len(domains) != 4 || !slices.Equal(plan.Domains, domains) {
		t.Errorf("domains %q, Postfix says %q", plan.Domains, domains)
	}
	hops := f.entries("transport")
	for domain, hop := range plan.Transports {
		said := fmt.Sprintf("[%s]:%d", hop.Host, hop.Port)
		if _, want, _ := strings.Cut(hops[domain], ":"); said != want && said != want+":25" {
			t.Errorf("%s goes to %s, Postfix says %q", domain, said, hops[domain])
		}
	}
	if len(plan.Transports) != len(hops)-1 || hops["*"] == "" { // all but the last resort
		t.Errorf("transports %v, Postfix says %q", plan.Transports, hops)
	}
	recipients := f.entries("recipients")
	read := 0
	for _, all := range plan.Recipients {
		for _, one := range all {
			if read++; recipients[strings.ToLower(one)] == "" {
				t.Errorf("%s is no recipient to Postfix: %q", one, recipients)
			}
		}
	}
	if read != len(recipients) || read != 5 {
		t.Errorf("recipients %v, Postfix says %q", plan.Recipients, recipients)
	}
	for _, word := range []string{"transport * ", "smtp:[192.0.2.99]"} {
		if !slices.ContainsFunc(plan.Skipped, func(s string) bool { return strings.Contains(s, word) }) {
			t.Errorf("nothing was said of %s: %q", word, plan.Skipped)
		}
	}
}

// Nothing of an entry is lost but the white space between key and value.
func FuzzSplitEntry(f *testing.F) {
	for _, line := range []string{"a.example smtp:[b]:25", `"c d"@x.test  OK`, `"q\"r s"@x.test` + "\tOK", `"open \`, "key"} {
		f.Add(line)
	}
	f.Fuzz(func(t *testing.T, line string) {
		key, value := splitEntry(line)
		rest, ok := strings.CutPrefix(line, key)
		if !ok || strings.TrimSpace(rest) != value {
			t.Fatalf("%q became %q and %q", line, key, value)
		}
		if strings.ContainsAny(key, " \t") && !strings.Contains(key, `"`) {
			t.Fatalf("%q: the key %q has white space", line, key)
		}
	})
}
