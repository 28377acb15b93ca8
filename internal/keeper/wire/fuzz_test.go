package wire

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/sallyport-mail/sallyport/internal/keeper/act"
)

// FuzzRequest: whatever a peer sends becomes a request or an error, of bounded
// size, and what was read says the same when it is written and read again.
func FuzzRequest(f *testing.F) {
	f.Add([]byte(`{"region":"us","tenant":"acme","connection":"c","purpose":"smtp-client","trace":"t","identity":"00","scheme":1027,"transcript":"AA=="}`))
	f.Add([]byte(`{"region":"us","purpose":"p","trace":"t","events":[{"key":"k","time":"2026-03-01T12:00:00Z","actor":"a","act":"x"}]}`))
	f.Add([]byte(`{"mail":{"fields":[{"name":"From","value":" a\r\n b"}],"absent":["To"],"body_hash":"AA=="},"previous":[{}]}`))
	f.Add([]byte(strings.Repeat("[", 20_001)))
	f.Fuzz(func(t *testing.T, raw []byte) {
		reread[act.Handshake](t, raw)
		reread[act.Issue](t, raw)
		reread[act.ARC](t, raw)
		reread[act.Events](t, raw)
		reread[act.Search](t, raw)
	})
}

func reread[Q act.Request](t *testing.T, raw []byte) {
	var q, again Q
	if decode(raw, &q) != nil {
		return
	}
	if marks(raw) > maxMarks {
		t.Fatal("more marks than a request may have")
	}
	one, err := json.Marshal(q)
	if err != nil {
		return // a time of no year
	}
	if err := decode(one, &again); err != nil {
		t.Fatalf("%s: %v", one, err)
	}
	if two, err := json.Marshal(again); err != nil || string(one) != string(two) {
		t.Fatalf("%s\n%s", one, two)
	}
}
