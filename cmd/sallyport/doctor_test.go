package main

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/sallyport-mail/sallyport/internal/api"
)

// A fix that there is none of is null, in what the gateway found and in what
// the command line adds; a person is shown the fix of what is wrong.
func TestDoctorsFix(t *testing.T) {
	found := []api.Finding{}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v1/verify" {
			_ = json.NewEncoder(w).Encode(map[string]any{"problems": found})
			return
		}
		_ = json.NewEncoder(w).Encode([]api.CheckResult{{Name: "dns", OK: true, Detail: "answers"}})
	}))
	defer s.Close()
	squeezed := func(text string) string { return strings.Join(strings.Fields(text), "") }
	code, out, _ := typed(t, s.URL, "doctor", "--verify", "--json")
	want := squeezed(`{"ok": true, "checks": [{"name": "dns", "ok": true, "detail": "answers", "fix": null},
		{"name": "store", "ok": true, "detail": "every row and body is whole", "fix": null}], "problems": []}`)
	if code != exitDone || squeezed(out) != want {
		t.Errorf("%d %s, want %s", code, squeezed(out), want)
	}
	found = []api.Finding{{Where: "bodies", What: "one is torn"}}
	if code, out, _ := typed(t, s.URL, "doctor", "--verify"); code != exitFailed || strings.Count(out, "fix: Restore from a backup") != 1 {
		t.Errorf("%d %s", code, out)
	}
}
