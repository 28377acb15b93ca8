package main

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/sallyport-mail/sallyport/internal/api/client"
)

// typed runs the command line against an address, and a folder that is none.
func typed(t *testing.T, api string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	t.Setenv("SALLYPORT_API", api)
	t.Setenv("SALLYPORT_TOKEN", "token")
	var out, bad bytes.Buffer
	code = run(t.Context(), args, strings.NewReader(""), &out, &bad)
	return code, out.String(), bad.String()
}

// Mistakes in the words are exit code 2, and with --json a problem document,
// wherever in the words it stands.
func TestWrongUsage(t *testing.T) {
	for _, c := range []struct{ line, want, help string }{
		{"nonsense", "unexpected argument nonsense", "sallyport --help"},
		{"tenant", "expected one of", "sallyport tenant --help"},
		{"tenant add acme", "missing flags: --region", "sallyport tenant add --help"},
		{"domain add acme acme.test --recipients maybe", "must be one of", "sallyport domain add --help"},
		{"tenant list --nope", "unknown flag --nope", "sallyport tenant list --help"},
		{"message list --since soon", "expected duration", "sallyport message list --help"},
		{"tenant set acme", "nothing to set", "sallyport tenant set --help"},
	} {
		args := strings.Fields(c.line)
		code, out, bad := typed(t, "http://127.0.0.1:1", args...)
		if code != exitUsage || out != "" || !strings.HasPrefix(bad, "sallyport: ") || !strings.Contains(bad, c.want) || !strings.Contains(bad, c.help) {
			t.Errorf("%s: %d %q %q", c.line, code, out, bad)
		}
		for _, json := range [][]string{append([]string{"--json"}, args...), append(args, "--json")} {
			code, out, bad := typed(t, "http://127.0.0.1:1", json...)
			p := problemOf(t, bad)
			if code != exitUsage || out != "" || p.Status != 400 || !strings.Contains(p.Detail, c.want) || !strings.Contains(p.Hint, c.help) {
				t.Errorf("%s: %d %q %+v", json, code, out, p)
			}
		}
	}
}

func problemOf(t *testing.T, text string) (p client.Problem) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), &p); err != nil || p.Title == "" || p.Type == "" {
		t.Errorf("%q is no problem document: %v", text, err)
	}
	return p
}

// What is wrong with a request is said to a person too.
func TestFlawsAreShown(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/problem+json")
		w.WriteHeader(http.StatusBadRequest)
		_, _ = w.Write([]byte(`{"title":"Bad Request","status":400,"detail":"validation failed","errors":[{"location":"query.state","message":"no such state"}]}`))
	}))
	defer s.Close()
	if code, _, bad := typed(t, s.URL, "message", "list", "--state", "x"); code != exitFailed || !strings.Contains(bad, "query.state: no such state") {
		t.Errorf("%d %q", code, bad)
	}
	if code, _, bad := typed(t, s.URL, "tenant", "list", "--token-file", "/nowhere"); code != exitFailed || !strings.Contains(bad, "Give --token-file a file") {
		t.Errorf("%d %q", code, bad)
	}
}

// --wait outlives a gateway that is started again. What it waits for it says on
// standard error, with --json too.
func TestWaitOutlivesTheGateway(t *testing.T) {
	// An answer that is broken off leaves its handler running while the next
	// request comes in.
	var asked atomic.Int64
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		state := "offered"
		if r.Method == http.MethodGet {
			switch asked.Add(1) {
			case 2, 3:
				panic(http.ErrAbortHandler)
			case 4:
				state = "done"
			}
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"id": "1", "tenant": "acme", "connection": "mailbox", "kind": "replace", "state": state,
			"ok": state == "done", "waiting": "waiting for the partner", "steps": []any{}})
	}))
	defer s.Close()
	code, out, bad := typed(t, s.URL, "connection", "replace", "acme", "mailbox", "--wait", "--json")
	if code != exitDone || !strings.HasPrefix(bad, "waiting for the partner\n") || !strings.Contains(out, `"done"`) {
		t.Errorf("%d %q %q", code, out, bad)
	}
	asked.Store(0)
	if code, _, bad := typed(t, s.URL, "connection", "replace", "acme", "mailbox", "--wait"); code != exitDone || !strings.Contains(bad, "waiting for the partner") {
		t.Errorf("%d %q", code, bad)
	}
	s.Close()
	if code, _, bad := typed(t, s.URL, "connection", "replace", "acme", "mailbox", "--wait", "--json"); code != exitFailed || problemOf(t, bad).Status != 503 {
		t.Errorf("%d %q", code, bad)
	}
}
