package ledger

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"golang.org/x/mod/sumdb/note"
)

// What was written is read back, and the leaf is JSON whatever the texts are.
func FuzzLeaf(f *testing.F) {
	f.Add("keeper", "key.sign", "a \"subject\" \x00\xff\u2028<&>", int64(3), int64(5))
	f.Fuzz(func(t *testing.T, actor, act, subject string, of, count int64) {
		e := Entry{Source: Witnessed, Actor: actor, Act: act, Subject: subject, Of: &of, Count: count, Time: time.UnixMicro(1).UTC()}
		if e.check() != nil {
			return
		}
		raw := leaf(7, e.tail())
		if !json.Valid(raw) || strings.ContainsAny(string(raw), "\n\r") {
			t.Fatalf("%q", raw)
		}
		got, err := readLeaf(raw)
		if err != nil || got.Index != 7 || got.Actor != actor || got.Act != act || *got.Of != of || got.Count != count ||
			utf8.ValidString(subject) && got.Subject != subject {
			t.Fatalf("%+v of %q: %v", got, raw, err)
		}
	})
}

// A checkpoint's text that is read is written back as it was, but for the
// extensions that we do not know.
func FuzzCheckpoint(f *testing.F) {
	f.Add("sallyport.us\n3\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\ntime 2026-03-01T12:00:00Z\n")
	f.Add("a\n-1\n\n")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := parseCheckpoint(text)
		if err != nil {
			return
		}
		again, err := parseCheckpoint(c.text())
		if y := c.Time.Year(); err != nil && y >= 0 && y < 10000 || err == nil && (again.Size != c.Size || again.Hash != c.Hash || again.Origin != c.Origin) {
			t.Fatalf("%q became %q: %v", text, c.text(), err)
		}
	})
}

// A witness's answer is a cosignature of its key or an error.
func FuzzWitnessAnswer(f *testing.F) {
	o := &onlooker{name: "w", key: make([]byte, 64)}
	f.Add(200, "— w AAAA\n")
	f.Add(409, "12\n")
	f.Fuzz(func(t *testing.T, status int, answer string) {
		key, err := NewCosignatureVerifier(o.vkey())
		if err != nil {
			t.Fatal(err)
		}
		w := &HTTPWitness{name: "w", key: key}
		c := Checkpoint{Origin: "o", Note: []byte("o\n1\nAAAA\n\n— o AAAAAAAA\n")}
		lines, err := w.answer(&http.Response{StatusCode: status}, answer, c)
		if err == nil {
			if _, err := note.Open([]byte("o\n1\nAAAA\n\n"+lines), note.VerifierList(key)); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// A witness's key is taken only whole.
func FuzzCosignatureKey(f *testing.F) {
	f.Add((&onlooker{name: "w", key: make([]byte, 64)}).vkey())
	f.Fuzz(func(t *testing.T, text string) {
		v, err := NewCosignatureVerifier(text)
		if err == nil && (v.Name() == "" || v.Verify([]byte("x"), nil)) {
			t.Fatalf("%q", text)
		}
	})
}
