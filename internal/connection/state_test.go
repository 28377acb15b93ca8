package connection_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/sallyport-mail/sallyport/internal/connection"
)

// TestReplacementStates walks every pair of state and event, and compares the
// table with docs/states.md.
func TestReplacementStates(t *testing.T) {
	rows := connection.ReplacementTable()
	states, events := map[string]bool{}, map[string]bool{}
	table := map[string]string{}
	var want strings.Builder
	want.WriteString("| from | event | to |\n|---|---|---|\n")
	for _, r := range rows {
		if table[r[0]+r[1]] != "" {
			t.Errorf("%s + %s is twice in the table", r[0], r[1])
		}
		table[r[0]+r[1]] = r[2]
		states[r[0]], states[r[2]], events[r[1]] = true, true, true
		fmt.Fprintf(&want, "| %s | %s | %s |\n", r[0], r[1], r[2])
	}
	for s := range states {
		leaves := false
		for e := range events {
			to, ok := connection.NextState(connection.ReplacementState(s), e)
			if ok != (table[s+e] != "") || ok && string(to) != table[s+e] || !ok && string(to) != s {
				t.Errorf("%s + %s: %s, %v", s, e, to, ok)
			}
			leaves = leaves || ok
		}
		if final := s == "done" || s == "undone" || s == "failed"; final == leaves {
			t.Errorf("%s: a way leads on: %v", s, leaves)
		}
	}
	doc, err := os.ReadFile("../../docs/states.md")
	must(t, err)
	if !strings.Contains(string(doc), want.String()) {
		t.Errorf("docs/states.md has not this table:\n%s", want.String())
	}
}
