package api

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-mail/sallyport/internal/connection"
)

// What is absent is null: no empty text, no zero time.
func TestAbsentIsNull(t *testing.T) {
	wanted := shownIdentity(connection.Identity{ID: "1", Name: "mx.example", Purpose: "smtp-server", State: "wanted"})
	issued := shownIdentity(connection.Identity{Tenant: "acme", NotBefore: time.Unix(1, 0).UTC(), NotAfter: time.Unix(2, 0).UTC(), SHA256: "0aff"})
	report := connection.TestReport{Steps: []connection.TestStep{{Name: "resolve", OK: true}, {Name: "connect", Fix: "Start it."}}}
	for _, c := range []struct {
		shown any
		want  []string
	}{
		{wanted, []string{`"tenant":null`, `"not_before":null`, `"not_after":null`, `"sha256":null`, `"fingerprint":null`, `"explanation":null`, `"decoy":false`}},
		{issued, []string{`"tenant":"acme"`, `"not_before":"1970-01-01T00:00:01Z"`, `"not_after":"1970-01-01T00:00:02Z"`, `"sha256":"0aff"`, `"fingerprint":"0A:FF"`}},
		{shownConnection(connection.Connection{Name: "out"}), []string{`"host":null`, `"port":null`, `"ca":null`, `"server_name":null`, `"user":null`, `"graph":null`, `"app_id":null`}},
		{shownConnection(connection.Connection{Host: "h", Port: 25, User: "u"}), []string{`"host":"h"`, `"port":25`, `"user":"u"`}},
		{report, []string{`{"name":"resolve","ok":true,"ms":0,"detail":"","fix":null}`, `"fix":"Start it."`}},
	} {
		raw, err := json.Marshal(c.shown)
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range c.want {
			if strings.Count(string(raw), want) != 1 {
				t.Errorf("%s lacks %s", raw, want)
			}
		}
	}
}
