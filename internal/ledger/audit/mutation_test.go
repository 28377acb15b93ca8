package audit

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/note"
)

// changes are the ways in which one byte of a text is changed.
func changes(raw []byte, change func(at int, changed []byte)) {
	for i := range raw {
		for _, bit := range []byte{1, 4, 0x20, 0x80} {
			changed := bytes.Clone(raw)
			changed[i] ^= bit
			change(i, changed)
		}
		change(i, append(bytes.Clone(raw[:i]), raw[i+1:]...))
	}
}

// TestEveryByteOfAnExport: a changed byte is a problem, no export, or one that
// means nothing: then the report is the same, and the byte is of no entry.
func TestEveryByteOfAnExport(t *testing.T) {
	p := newPen(t)
	t.Run("with a tail", func(t *testing.T) {
		r := p.retainedRoot(7, 3)
		everyByte(t, p, p.ended(p.retained(7, 3), p.tail(7, r[:])), true)
	})
	t.Run("of the old format", func(t *testing.T) { everyByte(t, p, p.retained(7, 3), false) })
}

func everyByte(t *testing.T, p pen, lines []string, tailed bool) {
	whole := []byte(strings.Join(lines, "\n") + "\n")
	o := Options{Keys: []string{p.key}, Anchor: []byte(p.sign(7, p.retainedRoot(7, 3)))}
	sound := verify(t, lines, o)
	if !sound.OK || !sound.Anchored || sound.Removed != 3 || (sound.Tail != nil) != tailed {
		t.Fatalf("%+v", sound)
	}
	entries := make([]bool, len(whole))
	at := 0
	for _, l := range lines {
		for i := range l {
			entries[at+i] = strings.HasPrefix(l, `{"index"`) || strings.HasPrefix(l, `{"removed"`)
		}
		at += len(l) + 1
	}
	passed := 0
	changes(whole, func(at int, changed []byte) {
		r, err := Verify(bytes.NewReader(changed), o)
		if err != nil || !r.OK {
			return
		}
		passed++
		if !reflect.DeepEqual(r, sound) || entries[at] && !bytes.EqualFold(changed, whole) {
			t.Errorf("byte %d of %.60q passes: %+v", at, changed[max(0, at-30):min(len(changed), at+30)], r)
		}
	})
	if passed == 0 || passed > len(whole) {
		t.Errorf("%d changes pass", passed)
	}
}

// TestEveryByteOfAProof is the same of a proof.
func TestEveryByteOfAProof(t *testing.T) {
	p := newPen(t)
	one := leafHash([]byte(text(1)))
	raw := []byte(object(map[string]any{"format": proofFormat, "index": 0, "entry": text(0), "hashes": [][]byte{one[:]}, "checkpoint": p.checkpoint(2), "keys": []string{p.key}}))
	o := Options{Keys: []string{p.key}}
	sound, err := VerifyProof(raw, o)
	if err != nil || !sound.OK {
		t.Fatal(err)
	}
	passed := 0
	changes(raw, func(at int, changed []byte) {
		r, err := VerifyProof(changed, o)
		if err != nil || !r.OK {
			return
		}
		passed++
		if !reflect.DeepEqual(r, sound) {
			t.Errorf("byte %d of %.60q passes: %+v", at, changed[max(0, at-30):min(len(changed), at+30)], r)
		}
	})
	if passed == 0 {
		t.Error("not even a byte of its own keys may be changed")
	}
}

// retain is the entry that ends texts below an index.
func retain(i, below int) string {
	return fmt.Sprintf(`{"index":%d,"time":"2026-03-01T12:00:00Z","source":"witnessed","actor":"keeper","act":"ledger.retain","subject":"below %d"}`, i, below)
}

// retainedText is the entry i of a log that ends with a retention.
func retainedText(i, n, below int) string {
	if i == n-1 {
		return retain(i, below)
	}
	return text(i)
}

func (p pen) retainedRoot(n, below int) sum {
	var tree peaks
	for i := range n {
		tree.add(leafHash([]byte(retainedText(i, n, below))))
	}
	return tree.root()
}

func (p pen) sign(n int, root sum) string {
	raw, err := note.Sign(&note.Note{Text: fmt.Sprintf("%s\n%d\n%s\ntime 2026-03-01T12:00:00Z\n", origin, n, base64.StdEncoding.EncodeToString(root[:]))}, p.signer)
	if err != nil {
		panic(err)
	}
	return string(raw)
}

// retained is an export of n entries, the texts of which are removed below an
// index and whose last says so.
func (p pen) retained(n, below int) []string {
	lines := []string{object(map[string]any{"format": untailed, "origin": origin, "region": "us", "keys": []string{p.key}, "size": n})}
	var hashes []byte
	for i := range n {
		h := leafHash([]byte(retainedText(i, n, below)))
		hashes = append(hashes, h[:]...)
		if i < below {
			lines = append(lines, fmt.Sprintf(`{"removed":%d}`, i))
		} else {
			lines = append(lines, retainedText(i, n, below))
		}
	}
	return append(lines, object(map[string]any{"hashes": hashes, "from": 0}),
		object(map[string]string{"checkpoint": p.sign(n, p.retainedRoot(n, below))}), object(map[string]any{"end": true, "entries": n}))
}

// TestUnsignedRetention: who has the database and no key can add rows behind
// the last checkpoint. They do not excuse texts that are gone.
func TestUnsignedRetention(t *testing.T) {
	p := newPen(t)
	lines := p.old(300, 299) // of the new format it is told by its tail too
	lines[299+2] = ""        // the entry 299, behind the hashes of the first 256
	forged := retain(299, 100)
	for i, l := range lines {
		switch {
		case l == "":
			lines[i] = forged
		case strings.HasPrefix(l, `{"index":5,`):
			lines[i] = `{"removed":5}`
		case strings.Contains(l, `"from":256`):
			var hashes []byte
			for k := 256; k < 300; k++ {
				h := leafHash([]byte(text(k)))
				if k == 299 {
					h = leafHash([]byte(forged))
				}
				hashes = append(hashes, h[:]...)
			}
			lines[i] = object(map[string]any{"hashes": hashes, "from": 256})
		}
	}
	r := verify(t, lines, Options{Keys: []string{p.key}})
	if r.OK || len(r.Problems) != 1 || !strings.Contains(r.Problems[0].What, "were removed") {
		t.Errorf("%+v", r)
	}
	h := root(300)
	r = verify(t, p.ended(lines, p.tail(300, h[:])), Options{Keys: []string{p.key}})
	if r.OK || len(r.Problems) != 2 || !strings.Contains(r.Problems[0].What, "299 to 299 do not lead to the tail") {
		t.Errorf("%+v", r)
	}
	// Signed it does, wherever in a tile the checkpoint stands.
	for _, n := range []int{7, 256, 257, 300, 512, 513} {
		if r := verify(t, p.long(n, 3), Options{Keys: []string{p.key}}); !r.OK || r.Removed != 3 {
			t.Errorf("%d: %+v", n, r)
		}
	}
}

// long is an export of n signed entries, of which the last ended texts, and one
// more behind the checkpoint.
func (p pen) long(n, below int) []string {
	lines := []string{object(map[string]any{"format": untailed, "origin": origin, "region": "us", "keys": []string{p.key}, "size": n + 1})}
	at := func(i int) string {
		if i == n {
			return text(i)
		}
		return retainedText(i, n, below)
	}
	for from := 0; from <= n; from += tileWidth {
		to := min(from+tileWidth, n+1)
		var hashes []byte
		for i := from; i < to; i++ {
			h := leafHash([]byte(at(i)))
			hashes = append(hashes, h[:]...)
			if i < below {
				lines = append(lines, fmt.Sprintf(`{"removed":%d}`, i))
			} else {
				lines = append(lines, at(i))
			}
		}
		lines = append(lines, object(map[string]any{"hashes": hashes, "from": from}))
		if from < n && n <= to {
			lines = append(lines, object(map[string]string{"checkpoint": p.sign(n, p.retainedRoot(n, below))}))
		}
	}
	return append(lines, object(map[string]any{"end": true, "entries": n + 1}))
}

// TestHostileTexts: what a file says of itself does not come back at length.
func TestHostileTexts(t *testing.T) {
	p := newPen(t)
	lines := p.old(3, 3)
	long := strings.Repeat("x", 200_000)
	var more []string
	for range 20 {
		raw, err := note.Sign(&note.Note{Text: long + "\n3\n" + base64.StdEncoding.EncodeToString(make([]byte, 32)) + "\n"}, p.signer)
		if err != nil {
			t.Fatal(err)
		}
		more = append(more, object(map[string]string{"checkpoint": string(raw)}))
	}
	lines = append(lines[:len(lines)-1], append(more, lines[len(lines)-1])...)
	r := verify(t, lines, Options{})
	for _, x := range r.Problems {
		if len(x.What) > 1000 {
			t.Errorf("a problem of %d bytes", len(x.What))
		}
	}
	if r.OK || len(r.Problems) != 20 {
		t.Errorf("%d problems", len(r.Problems))
	}
	keys := make([]string, 5000)
	for i := range keys {
		keys[i] = p.key
	}
	if _, err := Verify(strings.NewReader(object(map[string]any{"format": exportFormat, "origin": origin, "keys": keys})+"\n"), Options{}); err == nil {
		t.Error("a log of 5000 keys")
	}
}

// TestManyUnsigned: that checkpoints were taken away shows in how much is
// covered by none.
func TestManyUnsigned(t *testing.T) {
	p := newPen(t)
	if r := verify(t, p.export(mostUnsigned+2, 1), Options{Keys: []string{p.key}}); r.OK || !strings.Contains(r.Problems[0].What, "checkpoint") {
		t.Errorf("%+v", r.Verdict)
	}
	if r := verify(t, p.export(mostUnsigned+1, 1), Options{Keys: []string{p.key}}); !r.OK || r.Unsigned != mostUnsigned {
		t.Errorf("%+v", r.Verdict)
	}
}

// An export says of which region it is in two places.
func TestRegionOfAnExport(t *testing.T) {
	p := newPen(t)
	lines := p.export(3, 3)
	lines[0] = strings.Replace(lines[0], `"region":"us"`, `"region":"uk"`, 1)
	if r := verify(t, lines, Options{Keys: []string{p.key}}); r.OK {
		t.Errorf("%+v", r)
	}
}
