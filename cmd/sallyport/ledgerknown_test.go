package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sallyport-mail/sallyport/internal/ledger/audit"
)

func TestOriginOf(t *testing.T) {
	for _, c := range []struct {
		origin, region string
		want           bool
	}{
		{"sallyport.us.example.com", "us", true}, {"sallyport.us", "us", true}, {"sallyport.us/2", "us", true}, {"sallyport.usa.example.com", "us", false},
		{"sallyport.uk.example.com", "us", false}, {"us.example.com", "us", false}, {"sallyport.us.example.com", "", false}, {"", "", false},
	} {
		if got := originOf(c.origin, c.region); got != c.want {
			t.Errorf("%q of %q: %v", c.origin, c.region, got)
		}
	}
}

// The file of a witness has grown for years: its last checkpoints are read.
func TestAnchorOfALongFile(t *testing.T) {
	note := func(n int) string {
		return fmt.Sprintf("sallyport.us.example.com\n%d\nnND/nri/U0xuHUrYSy0HtMeal2vzD9V4k/BO79C+QeI=\n\n— sallyport.us.example.com az3grl\n", n)
	}
	var b strings.Builder
	for n := range 2 * anchorTail / len(note(10_000)) {
		b.WriteString(note(n) + recordEnd)
	}
	b.WriteString(note(1_000_000) + recordEnd)
	path := filepath.Join(t.TempDir(), "witness")
	must(t, os.WriteFile(path, []byte(b.String()), 0o600))
	k, err := readKnown(nil, []string{path})
	if err != nil || len(k.anchors) != 1 || string(k.anchors[0].note) != note(1_000_000) {
		t.Errorf("%+v %v", k.anchors, err)
	}
}

// FuzzAnchorNotes: what is taken for a checkpoint has a text and signatures, and
// ends as one does.
func FuzzAnchorNotes(f *testing.F) {
	const note = "sallyport.us.example.com\n7\nnND/nri/U0xuHUrYSy0HtMeal2vzD9V4k/BO79C+QeI=\n\n— sallyport.us.example.com az3grl\n"
	f.Add(note)
	f.Add(note + "\n-- \n" + note + "\n-- \nsallyport.us.ex")
	f.Add(`{"format":"sallyport-ledger-proof-1","checkpoint":"a\n1\n\nb"}`)
	f.Add("\n-- \n\n-- \n")
	f.Fuzz(func(t *testing.T, text string) {
		for _, n := range anchorNotes(text) {
			if !strings.Contains(strings.TrimRight(n, "\n"), "\n\n") || !strings.HasSuffix(n, "\n") || strings.HasSuffix(n, "\n\n") {
				t.Errorf("%q", n)
			}
		}
	})
}

// FuzzExport: whatever stands there is named or refused, and only a region's own
// log is taken for it.
func FuzzExport(f *testing.F) {
	f.Add(`{"format":"sallyport-ledger-1","region":"us","origin":"sallyport.us.x","keys":[],"size":0}` + "\n" + `{"end":true,"entries":0}` + "\n")
	f.Add(strings.Repeat("x", 70<<10) + "\n")
	f.Add("")
	us := newCellOf(f, "us", strings.NewReader(strings.Repeat("s", 64))) // one key for all processes that fuzz
	us.fill(7)
	whole := us.exported()
	lines := strings.SplitAfter(whole, "\n")
	for n := 1; n <= 4; n++ { // the end, the tail, the checkpoint, the hashes
		f.Add(strings.Join(lines[:len(lines)-1-n], ""))
	}
	tail := lines[len(lines)-3]
	f.Add(whole)
	f.Add(strings.Replace(whole, tail, "", 1))
	f.Add(strings.Replace(whole, tail, tail+tail, 1))
	f.Add(strings.Replace(whole, "ledger-2", "ledger-1", 1))
	f.Add(strings.Replace(whole, lines[7], "", 1))
	us.fill(3)
	grown := us.exported()
	f.Add(grown)
	f.Add(strings.Replace(grown, lineOf(grown, "tail"), tail, 1))
	f.Fuzz(func(t *testing.T, text string) {
		r, region, err := verifyExport(strings.NewReader(text), "us", audit.Options{})
		if err == nil && r.OK && region != "us" {
			t.Errorf("region %q is taken for us", region)
		}
		// By the log's own key only what it has signed is whole, to its end.
		r, _, err = verifyExport(strings.NewReader(text), "us", audit.Options{Keys: []string{us.key}})
		if err == nil && r.OK && (r.Tail == nil && !strings.Contains(text, "sallyport-ledger-1") || r.Tail != nil && r.Tail.Size != r.Entries || r.Entries != 0 && r.Entries != 7 && r.Entries != 10) {
			t.Errorf("%+v", r)
		}
	})
}
