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
	"golang.org/x/mod/sumdb/tlog"

	"github.com/sallyport-mail/sallyport/internal/fault"
)

const origin = "sallyport.us.test"

// pen writes exports by hand, out of the format's description and not out of
// the room that writes them.
type pen struct {
	signer note.Signer
	key    string
}

func newPen(t testing.TB) pen {
	t.Helper()
	private, key, err := note.GenerateKey(bytes.NewReader(make([]byte, 64)), origin)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := note.NewSigner(private)
	if err != nil {
		t.Fatal(err)
	}
	return pen{signer, key}
}

func text(i int) string {
	return fmt.Sprintf(`{"index":%d,"time":"2026-03-01T12:00:00Z","source":"witnessed","actor":"keeper","act":"key.sign"}`, i)
}

// root is computed by the library, which this room does not use.
func root(n int) tlog.Hash {
	var all []tlog.Hash
	reader := tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		out := make([]tlog.Hash, len(indexes))
		for i, x := range indexes {
			out[i] = all[x]
		}
		return out, nil
	})
	for i := range n {
		hashes, err := tlog.StoredHashes(int64(i), []byte(text(i)), reader)
		if err != nil {
			panic(err)
		}
		all = append(all, hashes...)
	}
	h, err := tlog.TreeHash(int64(n), reader)
	if err != nil {
		panic(err)
	}
	return h
}

func (p pen) checkpoint(n int) string {
	h := root(n)
	raw, err := note.Sign(&note.Note{Text: fmt.Sprintf("%s\n%d\n%s\ntime 2026-03-01T12:00:00Z\n", origin, n, base64.StdEncoding.EncodeToString(h[:]))}, p.signer)
	if err != nil {
		panic(err)
	}
	return string(raw)
}

func object(v any) string {
	raw, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(raw)
}

// export is a sound export of n entries with checkpoints at the given sizes.
func (p pen) export(n int, signed ...int) []string {
	h := root(n)
	return p.ended(p.old(n, signed...), p.tail(n, h[:]))
}

// old is the same in the format from before there were tails.
func (p pen) old(n int, signed ...int) []string {
	lines := []string{object(map[string]any{"format": untailed, "origin": origin, "region": "us", "keys": []string{p.key}, "size": n})}
	for from := 0; from < n; from += tileWidth {
		to := min(from+tileWidth, n)
		var hashes []byte
		for i := from; i < to; i++ {
			lines = append(lines, text(i))
			h := leafHash([]byte(text(i)))
			hashes = append(hashes, h[:]...)
		}
		lines = append(lines, object(map[string]any{"hashes": hashes, "from": from}))
		for _, s := range signed {
			if from < s && s <= to {
				lines = append(lines, object(map[string]string{"checkpoint": p.checkpoint(s)}))
			}
		}
	}
	return append(lines, object(map[string]any{"end": true, "entries": n}))
}

func verify(t testing.TB, lines []string, o Options) Report {
	t.Helper()
	r, err := Verify(strings.NewReader(strings.Join(lines, "\n")+"\n"), o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestSound(t *testing.T) {
	p := newPen(t)
	for _, n := range []int{1, 2, 255, 256, 257, 600} {
		lines := p.export(n, 1, n/2+1, n)
		r := verify(t, slices.Compact(lines), Options{})
		if n <= 2 { // the sizes of the checkpoints meet
			r = verify(t, p.export(n, n), Options{})
		}
		if !r.OK || r.Entries != int64(n) || r.Anchored || r.KeysFrom != "export" || r.Checkpoint.Size != int64(n) || r.Unsigned != 0 {
			t.Errorf("%d: %+v", n, r)
		}
		r = verify(t, p.export(n, n), Options{Keys: []string{p.key}, Anchor: []byte(p.checkpoint(n/2 + 1))})
		if !r.OK || !r.Anchored || r.Verdict != "consistent and anchored" {
			t.Errorf("%d: %+v", n, r)
		}
	}
	if r := verify(t, p.export(0), Options{}); !r.OK || r.Entries != 0 || r.Checkpoint != nil {
		t.Errorf("%+v", r)
	}
	if r := verify(t, p.export(9, 6), Options{}); !r.OK || r.Unsigned != 3 || !strings.Contains(r.Verdict, "3 entries are behind") {
		t.Errorf("%+v", r)
	}
}

// The report has the contract's names.
func TestReportJSON(t *testing.T) {
	p := newPen(t)
	var m map[string]any
	raw := object(verify(t, p.export(3, 2), Options{}))
	if err := json.Unmarshal([]byte(raw), &m); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"ok", "entries", "checkpoint", "problems", "anchored", "verdict"} {
		if _, ok := m[name]; !ok {
			t.Error("no", name, raw)
		}
	}
	c := m["checkpoint"].(map[string]any)
	if c["size"] != 2.0 || c["time"] != "2026-03-01T12:00:00Z" || len(c["hash"].(string)) != 64 || !strings.HasPrefix(c["signature"].(string), "— "+origin) {
		t.Error(raw)
	}
}

// Each alteration of an export's lines has its problem, or is no export.
func TestAltered(t *testing.T) {
	p := newPen(t)
	for name, alter := range map[string]func([]string) []string{
		"an entry changed":        func(l []string) []string { l[5] = strings.Replace(l[5], "sign", "sing", 1); return l },
		"an entry gone":           func(l []string) []string { return slices.Delete(l, 5, 6) },
		"two swapped":             func(l []string) []string { l[5], l[6] = l[6], l[5]; return l },
		"an entry doubled":        func(l []string) []string { return slices.Insert(l, 5, l[5]) },
		"an entry put in":         func(l []string) []string { return slices.Insert(l, 5, text(77)) },
		"not JSON":                func(l []string) []string { l[5] = "junk"; return l },
		"no object of ours":       func(l []string) []string { l[5] = "{}"; return l },
		"removed":                 func(l []string) []string { l[5] = `{"removed":4}`; return l },
		"another removed":         func(l []string) []string { l[5] = `{"removed":9}`; return l },
		"the end gone":            func(l []string) []string { return l[:len(l)-1] },
		"something after the end": func(l []string) []string { return append(l, "{}") },
		"an early end":            func(l []string) []string { return slices.Insert(l, 9, `{"end":true,"entries":8}`) },
		"the end says less":       func(l []string) []string { l[len(l)-1] = `{"end":true,"entries":3}`; return l },
		"the checkpoint gone":     func(l []string) []string { return slices.Delete(l, len(l)-3, len(l)-2) },
		"the checkpoint too soon": func(l []string) []string {
			c := l[len(l)-3]
			return slices.Insert(slices.Delete(l, len(l)-3, len(l)-2), 1, c)
		},
		"a checkpoint of more": func(l []string) []string {
			return slices.Insert(l, len(l)-1, object(map[string]string{"checkpoint": p.checkpoint(301)}))
		},
		"a checkpoint unsigned": func(l []string) []string {
			l[len(l)-3] = strings.Replace(l[len(l)-3], "T12", "T13", 1)
			return l
		},
		"another origin": func(l []string) []string {
			l[0] = strings.Replace(l[0], `"sallyport.us.test"`, `"sallyport.uk.test"`, 1)
			return l
		},
	} {
		r := verify(t, alter(p.export(300, 300)), Options{Keys: []string{p.key}})
		if r.OK || len(r.Problems) == 0 || r.Verdict != "not consistent" && !strings.HasPrefix(r.Verdict, "not consistent;") {
			t.Errorf("%s: %+v", name, r)
		}
	}
	for name, alter := range map[string]func([]string) []string{
		"no head":        func(l []string) []string { return l[1:] },
		"another format": func(l []string) []string { l[0] = strings.Replace(l[0], "ledger-2", "ledger-3", 1); return l },
		"no keys":        func(l []string) []string { l[0] = strings.Replace(l[0], p.key, "", 1); return l },
		"hashes elsewhere": func(l []string) []string {
			return slices.DeleteFunc(l, func(s string) bool { return strings.Contains(s, `"from":0`) })
		},
		"a long line": func(l []string) []string { l[5] = strings.Repeat("x", maxLine+1); return l },
		"without end": func(l []string) []string { return append(l[:5], slices.Repeat([]string{text(1)}, 1000)...) },
	} {
		lines := alter(p.export(300, 300))
		if r, err := Verify(strings.NewReader(strings.Join(lines, "\n")), Options{}); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %+v %v", name, r, err)
		}
	}
	// Every cut of the text is noticed.
	whole := strings.Join(p.export(9, 9), "\n") + "\n"
	for i := range whole {
		if r, err := Verify(strings.NewReader(whole[:i]), Options{Keys: []string{p.key}}); err == nil && r.OK {
			t.Fatalf("cut at %d of %d: %+v", i, len(whole), r)
		}
	}
}

// A log whose rows and hashes were rewritten together is told by what was
// signed, between which checkpoints.
func TestRewritten(t *testing.T) {
	p := newPen(t)
	lines := p.export(600, 100, 200, 600)
	lines[151] = strings.Replace(lines[151], "sign", "sing", 1) // the entry 150
	h := leafHash([]byte(lines[151]))
	var x struct {
		Hashes []byte `json:"hashes"`
		From   int    `json:"from"`
	}
	if err := json.Unmarshal([]byte(lines[257]), &x); err != nil {
		t.Fatal(err)
	}
	copy(x.Hashes[150*32:], h[:])
	lines[257] = object(x)
	r := verify(t, lines, Options{})
	if r.OK || len(r.Problems) != 2 || r.Problems[0].Index != 100 || !strings.Contains(r.Problems[0].What, "100 to 199") || r.Checkpoint.Size != 100 {
		t.Errorf("%+v", r)
	}
}

func FuzzVerify(f *testing.F) {
	p := newPen(f)
	for _, n := range []int{0, 3, 257} {
		f.Add([]byte(strings.Join(p.export(n, n), "\n") + "\n"))
		f.Add([]byte(strings.Join(p.old(n, n), "\n") + "\n"))
	}
	for _, c := range cuts(p) {
		f.Add([]byte(strings.Join(c.lines, "\n") + "\n"))
	}
	f.Add([]byte("{}\n"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		r, err := Verify(bytes.NewReader(raw), Options{Keys: []string{p.key}})
		if err != nil {
			if !fault.Is(err, fault.Invalid) {
				t.Fatal(err)
			}
			return
		}
		if r.OK != (len(r.Problems) == 0) || r.OK && r.Entries > 0 && r.Checkpoint == nil ||
			r.Tail != nil && r.Tail.Size != r.Entries || r.OK && r.Tail == nil && !bytes.Contains(raw, []byte(untailed)) {
			t.Fatalf("%+v", r)
		}
	})
}

func FuzzVerifyProof(f *testing.F) {
	p := newPen(f)
	one := leafHash([]byte(text(1)))
	f.Add([]byte(object(map[string]any{"format": proofFormat, "index": 0, "entry": text(0), "hashes": [][]byte{one[:]}, "checkpoint": p.checkpoint(2), "keys": []string{p.key}})))
	f.Add([]byte(`{"format":"` + proofFormat + `","index":-1,"hashes":["AA=="],"keys":["` + p.key + `"]}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		r, err := VerifyProof(raw, Options{Keys: []string{p.key}})
		if err != nil {
			if !fault.Is(err, fault.Invalid) {
				t.Fatal(err)
			}
			return
		}
		if r.OK != (len(r.Problems) == 0) || r.OK && r.Checkpoint == nil {
			t.Fatalf("%+v", r)
		}
		if _, err := json.Marshal(r); err != nil {
			t.Fatal(err)
		}
	})
}

func FuzzCheckpoint(f *testing.F) {
	p := newPen(f)
	k, err := readKeys([]string{p.key})
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(p.checkpoint(3)))
	f.Fuzz(func(t *testing.T, raw []byte) {
		if c, err := k.open(raw); err == nil && (c.origin != origin || c.Size < 0) {
			t.Fatalf("%+v", c)
		}
		readCheckpoint(string(raw))
	})
}

// The proof by hand above is a sound one.
func TestProofByHand(t *testing.T) {
	p := newPen(t)
	one := leafHash([]byte(text(1)))
	raw := []byte(object(map[string]any{"format": proofFormat, "index": 0, "entry": text(0), "hashes": [][]byte{one[:]}, "checkpoint": p.checkpoint(2), "keys": []string{p.key}}))
	if r, err := VerifyProof(raw, Options{}); err != nil || !r.OK || r.KeysFrom != "proof" {
		t.Errorf("%+v %v", r, err)
	}
	if r, err := VerifyProof(raw, Options{Anchor: []byte(p.checkpoint(2))}); err != nil || !r.OK {
		t.Errorf("%+v %v", r, err)
	}
	if r, err := VerifyProof(raw, Options{Anchor: []byte(p.checkpoint(3))}); err != nil || !r.OK || !strings.Contains(r.Verdict, "another size") {
		t.Errorf("%+v %v", r, err)
	}
	if r, err := VerifyProof(raw, Options{Anchor: []byte(p.sign(2, leafHash(nil)))}); err != nil || r.OK {
		t.Errorf("%+v %v", r, err)
	}
	if _, err := VerifyProof([]byte(`{}`), Options{}); !fault.Is(err, fault.Invalid) {
		t.Error(err)
	}
}
