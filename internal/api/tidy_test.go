package api

import (
	"encoding/json"
	"testing"
	"time"
)

// Inside is embedded as rooms' types are.
type Inside struct {
	At   time.Time
	List []string
}

type sample struct {
	Inside
	Name    string
	At      *time.Time
	Never   *time.Time
	Things  []Inside
	Bytes   []byte
	Raw     json.RawMessage
	Deep    *Inside
	private []string
}

func TestTidy(t *testing.T) {
	east := time.FixedZone("east", 2*3600)
	at := time.Date(2026, 5, 1, 12, 0, 0, 0, east)
	in := sample{Name: "n", At: &at, Things: []Inside{{At: at}}, Raw: json.RawMessage(`{"a":null}`), Deep: &Inside{}, private: nil}
	text, err := json.Marshal(tidy(in))
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"List":[],"Name":"n","At":"2026-05-01T10:00:00Z","Never":null,"Things":[{"At":"2026-05-01T10:00:00Z","List":[]}],"Bytes":null,"Raw":{"a":null},"Deep":{"At":"0001-01-01T00:00:00Z","List":[]}}`
	if string(text) != want {
		t.Errorf("got  %s\nwant %s", text, want)
	}
	if in.At.Location() != east || in.Things[0].List != nil {
		t.Error("the original was changed")
	}
	if tidy(nil) != nil {
		t.Error("nil")
	}
}

func TestCut(t *testing.T) {
	all := []string{"c", "a", "e", "b", "d"}
	self := func(s string) string { return s }
	for _, c := range []struct {
		after string
		limit int
		want  string
	}{
		{"", 2, `{"items":["a","b"],"next":"b"}`},
		{"b", 2, `{"items":["c","d"],"next":"d"}`},
		{"d", 2, `{"items":["e"],"next":""}`},
		{"", 5, `{"items":["a","b","c","d","e"],"next":""}`},
		{"bb", 1, `{"items":["c"],"next":"c"}`}, // what it names may be gone
		{"z", 1, `{"items":[],"next":""}`},
	} {
		got, _ := json.Marshal(tidy(cut(all, self, Paging{c.after, c.limit}).Body))
		if string(got) != c.want {
			t.Errorf("after %q, %d: %s, want %s", c.after, c.limit, got, c.want)
		}
	}
}

func TestSince(t *testing.T) {
	now := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	for text, want := range map[string]string{
		"":                          "0001-01-01T00:00:00Z",
		"24h":                       "2026-04-30T12:00:00Z",
		"2026-04-01T00:00:00Z":      "2026-04-01T00:00:00Z",
		"2026-04-01T02:00:00+02:00": "2026-04-01T00:00:00Z",
		"-1h":                       "!",
		"tomorrow":                  "!",
	} {
		got, err := since(text, now)
		if (err != nil) != (want == "!") || err == nil && got.UTC().Format(time.RFC3339) != want {
			t.Errorf("%q: %s, %v", text, got, err)
		}
	}
}
