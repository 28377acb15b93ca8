package audit

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/note"
)

func (p pen) note(text string) string {
	raw, err := note.Sign(&note.Note{Text: text}, p.signer)
	if err != nil {
		panic(err)
	}
	return string(raw)
}

func (p pen) tail(n int, root []byte) string {
	return p.note(fmt.Sprintf("sallyport ledger tail\n%s\n%d\n%s\n", p.signer.Name(), n, base64.StdEncoding.EncodeToString(root)))
}

// tailed is a checkpoint that says that the log has a tail.
func (p pen) tailed(n int) string {
	h := root(n)
	return p.note(fmt.Sprintf("%s\n%d\n%s\ntime 2026-03-01T12:00:00Z\ntailed\n", origin, n, base64.StdEncoding.EncodeToString(h[:])))
}

func tailLine(note string) string { return object(map[string]string{"tail": note}) }

// ended makes an export of the old format one that has a tail.
func (p pen) ended(lines []string, tail string) []string {
	lines = slices.Clone(lines)
	lines[0] = strings.Replace(lines[0], untailed, exportFormat, 1)
	return slices.Insert(lines, len(lines)-1, tailLine(tail))
}

// shorter is an export of which somebody has taken the entries from n on, and
// made all the rest fit that he can write without the key.
func (p pen) shorter(n int, signed ...int) []string { return p.old(n, signed...) }

type cutCase struct {
	name  string
	lines []string
	index int64
	what  string // empty: it is sound
}

// cuts are exports whose end was tampered with. The log has 300 entries and
// checkpoints of 100, 256 and 300.
func cuts(p pen) []cutCase {
	whole := p.export(300, 100, 256, 300)
	h, early := root(300), root(280)
	tail := p.tail(300, h[:])
	other, stranger := p, p
	other.signer, _ = keyOf("sallyport.uk.test", 1)
	stranger.signer, _ = keyOf(origin, 2)
	without := func(lines []string) []string {
		return slices.DeleteFunc(slices.Clone(lines), func(l string) bool { return strings.HasPrefix(l, `{"tail"`) })
	}
	oldHead := func(lines []string) []string {
		lines = slices.Clone(lines)
		lines[0] = strings.Replace(lines[0], exportFormat, untailed, 1)
		return lines
	}
	downgraded := p.old(300, 300) // of a log that has tails
	downgraded[len(downgraded)-2] = object(map[string]string{"checkpoint": p.tailed(300)})
	ofMore := slices.Insert(p.ended(p.shorter(280, 100, 256), tail), 1+280+2+2, object(map[string]string{"checkpoint": p.checkpoint(300)}))
	return []cutCase{
		{"whole", whole, 0, ""},
		{"whole, entries behind the last checkpoint", p.ended(p.old(300, 100, 256), tail), 0, ""},
		{"whole, of the old format", p.old(300, 100, 256, 300), 0, ""},
		{"whole, with a tail in the old format", oldHead(whole), 0, ""},
		{"the last line", whole[:len(whole)-1], 300, "breaks off here: its last line"},
		{"the last two lines", whole[:len(whole)-2], 300, "breaks off here, before its tail"},
		{"20 entries, with the tail as it was", p.ended(p.shorter(280, 100, 256), tail), 280, "had 300 entries by its tail"},
		{"to a checkpoint, with the tail as it was", p.ended(p.shorter(256, 100, 256), tail), 256, "had 300 entries by its tail"},
		{"all, with the tail as it was", p.ended(p.shorter(0), tail), 0, "had 300 entries by its tail"},
		{"20 entries, with the tail and a checkpoint as they were", ofMore, 280, "300 entries were signed at"},
		{"20 entries with the tail", without(p.ended(p.shorter(280, 100, 256), tail)), 280, "the tail is missing, and the format"},
		{"the tail", without(whole), 300, "the tail is missing, and the format"},
		{"the tail of an empty log", without(p.ended(p.old(0), tail)), 0, "the tail is missing"},
		{"the tail, with the head of the old format", downgraded, 300, "the tail is missing, and a checkpoint says"},
		{"the tail edited", p.ended(p.old(300, 300), strings.Replace(tail, "\n300\n", "\n280\n", 1)), 300, "the tail does not count: its signature"},
		{"the tail's root edited", p.ended(p.old(300, 300), p.tail(300, early[:])), 299, "there are two logs"},
		{"the root of a tail behind the last checkpoint", p.ended(p.old(300, 256), p.tail(300, early[:])), 256, "256 to 299 do not lead to the tail"},
		{"the tail of another log", p.ended(p.old(300, 300), other.tail(300, h[:])), 300, `it is of another log, "sallyport.uk.test"`},
		{"the tail of another's key", p.ended(p.old(300, 300), stranger.tail(300, h[:])), 300, "its signature is not one"},
		{"another origin under the log's key", p.ended(p.old(300, 300), p.note(strings.Replace(strings.Split(tail, "\n\n")[0], origin, "x", 1)+"\n")), 300, "another log"},
		{"an older tail", p.ended(p.old(300, 256), p.tail(280, early[:])), 280, "from 280 to 299 were put behind it"},
		{"two tails", p.ended(whole, p.tail(280, early[:])), 300, "more than one tail"},
		{"the tail twice", p.ended(whole, tail), 300, "more than one tail"},
		{"the tail too soon", slices.Insert(without(whole), 5, tailLine(tail)), 0, "before the end of the entries"},
		{"a checkpoint as the tail", p.ended(p.old(300, 300), p.checkpoint(300)), 300, "it has not the four lines"},
		{"the tail as a checkpoint", slices.Insert(slices.Clone(whole), len(whole)-2, object(map[string]string{"checkpoint": tail})), 299, "a checkpoint does not count"},
		{"no note as the tail", p.ended(p.old(300, 300), "x"), 300, "the tail does not count"},
		{"nothing as the tail", p.ended(p.old(300, 300), ""), 300, "the tail does not count"},
		{"a size with a zero before it", p.ended(p.old(300, 300), p.note(strings.Replace(strings.Split(tail, "\n\n")[0], "\n300", "\n0300", 1)+"\n")), 300, "its size is no number"},
		{"a line more under the log's key", p.ended(p.old(300, 300), p.note(strings.Split(tail, "\n\n")[0]+"\nx\n")), 300, "four lines"},
	}
}

func keyOf(name string, seed byte) (note.Signer, string) {
	private, key, err := note.GenerateKey(bytes.NewReader(bytes.Repeat([]byte{seed}, 64)), name)
	if err != nil {
		panic(err)
	}
	signer, err := note.NewSigner(private)
	if err != nil {
		panic(err)
	}
	return signer, key
}

// An export whose end was cut off is named as such, by its tail, by what says
// that there is one, or by a checkpoint.
func TestCuts(t *testing.T) {
	p := newPen(t)
	for _, c := range cuts(p) {
		r := verify(t, c.lines, Options{Keys: []string{p.key}})
		if c.what == "" {
			old := !slices.ContainsFunc(c.lines, func(l string) bool { return strings.HasPrefix(l, `{"tail"`) })
			if !r.OK || (r.Tail == nil) != old || strings.Contains(r.Verdict, "no tail says that these are all") != old || !old && (r.Tail.Size != 300 || !strings.HasPrefix(r.Tail.Signature, "— "+origin)) {
				t.Errorf("%s: %+v", c.name, r)
			}
			continue
		}
		if r.OK || r.Tail != nil && !strings.Contains(c.what, "last line") && c.name != "the tail too soon" && c.name != "the tail as a checkpoint" {
			t.Errorf("%s: %+v", c.name, r)
		}
		if len(r.Problems) != 1 || r.Problems[0].Index != c.index || !strings.Contains(r.Problems[0].What, c.what) {
			t.Errorf("%s: %+v", c.name, r.Problems)
		}
	}
	r := verify(t, p.ended(p.old(300, 256), p.tail(300, func() []byte { h := root(300); return h[:] }())), Options{Keys: []string{p.key}})
	if r.Unsigned != 44 || !strings.Contains(r.Verdict, "44 entries are behind the last checkpoint, and the tail covers them") {
		t.Errorf("%+v", r)
	}
}

// A log that was rewritten between two checkpoints is one problem a checkpoint,
// and not another for the tail.
func TestTailOfARewrittenLog(t *testing.T) {
	p := newPen(t)
	h := root(9)
	r := verify(t, p.ended(p.old(9, 9), p.tail(8, h[:])), Options{})
	if r.OK || len(r.Problems) != 1 || r.Problems[0].Index != 8 {
		t.Errorf("%+v", r)
	}
	var m map[string]any
	if err := json.Unmarshal([]byte(object(verify(t, p.old(3, 3), Options{}))), &m); err != nil {
		t.Fatal(err)
	}
	if tail, there := m["tail"]; !there || tail != nil || !strings.Contains(m["verdict"].(string), "no tail says") {
		t.Error(m)
	}
}

func FuzzTail(f *testing.F) {
	p := newPen(f)
	k, err := readKeys([]string{p.key})
	if err != nil {
		f.Fatal(err)
	}
	h := root(3)
	f.Add([]byte(p.tail(3, h[:])))
	f.Add([]byte(p.checkpoint(3)))
	f.Add([]byte("sallyport ledger tail\nx\n3\nnND/nri/U0xuHUrYSy0HtMeal2vzD9V4k/BO79C+QeI=\n"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		if got, err := k.openTail(raw); err == nil && (got.origin != origin || got.Size < 0 || len(got.Hash) != 64) {
			t.Fatalf("%+v", got)
		}
		if got, err := readTail(string(raw)); err == nil {
			if _, err := readCheckpoint(string(raw)); err == nil {
				t.Fatalf("%q is a tail and a checkpoint: %+v", raw, got)
			}
		}
	})
}
