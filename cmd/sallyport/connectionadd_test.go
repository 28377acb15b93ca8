package main

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// answers is an API that says one thing to everything.
func answers(t *testing.T, status int, body any) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(body)
	}))
	t.Cleanup(s.Close)
	return s.URL
}

// m365Line adds a connection to Microsoft 365.
const m365Line = "connection add t3 mailbox --kind m365 --host h --entra-tenant 7b5ba6c5-9ab8-4dd6-86b5-6d6a4f2f5d5e"

// A connection whose set-up failed is there, and the verb has failed all the
// same; one whose set-up was not asked for has not failed.
func TestFailedSetUpIsAFailure(t *testing.T) {
	token := filepath.Join(t.TempDir(), "token")
	must(t, os.WriteFile(token, []byte("secret\n"), 0o600))
	failed := map[string]any{"ok": false, "steps": []map[string]any{{"name": "domains", "ok": false, "detail": "wrong.test is not accepted", "fix": "Add it."}}}
	given := map[string]any{"ok": true, "steps": []map[string]any{{"name": "domains", "ok": true, "detail": "fine"}}}
	held := map[string]any{"ok": true, "steps": []any{}, "script": "Set-InboundConnector"}
	for name, c := range map[string]struct {
		setup any
		more  string
		code  int
		says  []string
	}{
		"failed": {failed, " --admin-token-file " + token, exitFailed, []string{"connection mailbox of t3 added", "FAILED  domains", "its set-up failed",
			"next: repair what is FAILED above, then: sallyport connection setup t3 mailbox --admin-token-file " + token + "\n"}},
		"failed once": {failed, " --forget-admin-token --admin-token-file " + token, exitFailed, []string{"--admin-token-file " + token + " --forget-admin-token\n"}},
		"done":        {given, " --admin-token-file " + token, exitDone, []string{"next: sallyport connection test t3 mailbox"}},
		"printed":     {held, " --print-setup", exitDone, []string{"Set-InboundConnector", "next: sallyport connection test t3 mailbox"}},
		"no token":    {held, "", exitDone, []string{"Set-InboundConnector"}},
	} {
		api := answers(t, http.StatusCreated, map[string]any{"tenant": "t3", "name": "mailbox", "kind": "m365", "tls": "mutual", "setup": c.setup})
		args := strings.Fields(m365Line + c.more)
		code, out, bad := typed(t, api, args...)
		if code != c.code || bad != "" {
			t.Errorf("%s: %d %q", name, code, bad)
		}
		for _, want := range c.says {
			if !strings.Contains(out, want) {
				t.Errorf("%s: %q lacks %q", name, out, want)
			}
		}
		code, out, bad = typed(t, api, append(args, "--json")...)
		var v struct{ Setup struct{ OK *bool } }
		if err := json.Unmarshal([]byte(out), &v); code != c.code || bad != "" || err != nil || v.Setup.OK == nil || *v.Setup.OK != (c.code == exitDone) {
			t.Errorf("%s: %d %q %q %v", name, code, out, bad, err)
		}
	}
}

// What was there already was not added, and is not said to be.
func TestWhatIsThereWasNotAdded(t *testing.T) {
	body := map[string]any{"tenant": "acme", "name": "acme", "region": "us", "recipients": "none", "kind": "smtp", "address": "a@acme.test"}
	m365 := map[string]any{"tenant": "t3", "name": "mailbox", "kind": "m365"}
	for line, c := range map[string]struct {
		body any
		says string
	}{
		"tenant add acme --region us":                   {body, "tenant acme is there already, in region us; nothing was changed\n"},
		"domain add acme acme.test":                     {body, "domain acme is there already, of acme"},
		"directory add acme a@acme.test":                {body, "a@acme.test is listed already"},
		"connection add acme acme --kind smtp --host h": {body, "connection acme of acme is there already; nothing was changed\n"},
		m365Line: {m365, "connection mailbox of t3 is there already; nothing was changed, and its set-up was not run: sallyport connection setup t3 mailbox\n"},
	} {
		args := strings.Fields(line + " --if-absent")
		if code, out, bad := typed(t, answers(t, http.StatusOK, c.body), args...); code != exitDone || !strings.HasPrefix(out, c.says) || strings.Contains(out, "added") || bad != "" {
			t.Errorf("%s: %d %q %q", line, code, out, bad)
		}
		if code, out, bad := typed(t, answers(t, http.StatusCreated, c.body), args...); code != exitDone || !strings.Contains(out, "added") || strings.Contains(out, "already") {
			t.Errorf("%s: %d %q %q", line, code, out, bad)
		}
		if code, out, _ := typed(t, answers(t, http.StatusOK, c.body), append(args, "--json")...); code != exitDone || !json.Valid([]byte(out)) {
			t.Errorf("%s: %d %q", line, code, out)
		}
	}
}
