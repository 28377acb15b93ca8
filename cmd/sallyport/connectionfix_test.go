package main

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// TestFixOfSeveralLines: the lines of a fix stand below each other.
func TestFixOfSeveralLines(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string]any{"ok": false, "steps": []any{
			map[string]any{"name": "connector", "ok": false, "ms": 7, "detail": "is not there", "fix": "Run:\nConnect-ExchangeOnline\nNew-InboundConnector `\n  -RequireTls"}}})
	}))
	defer s.Close()
	code, out, _ := typed(t, s.URL, "connection", "test", "acme", "mailbox")
	want := "\n        fix: Run:\n        Connect-ExchangeOnline\n        New-InboundConnector `\n          -RequireTls\n"
	if code != exitFailed || !strings.HasSuffix(out, want) {
		t.Errorf("%d %q", code, out)
	}
}
