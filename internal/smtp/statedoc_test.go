package smtp

import (
	"os"
	"strings"
	"testing"
)

// The words of docs/states.md for the table in state.go.
func stateNames() [states]string {
	return [states]string{"greeted", "ready", "mail", "rcpt", "chunks"}
}

func eventNames() [events]string {
	return [events]string{"EHLO or HELO", "STARTTLS", "AUTH", "MAIL", "RCPT", "DATA or BDAT LAST", "BDAT", "RSET", "content refused"}
}

// TestStatesDocumented compares the table of docs/states.md with the code's.
func TestStatesDocumented(t *testing.T) {
	var want strings.Builder
	want.WriteString("| in | after | becomes |\n|---|---|---|\n")
	for s := range states {
		for e := range events {
			if to, ok := next(s, e); ok {
				want.WriteString("| " + stateNames()[s] + " | " + eventNames()[e] + " | " + stateNames()[to] + " |\n")
			}
		}
	}
	doc, err := os.ReadFile("../../docs/states.md")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(doc), want.String()) {
		t.Errorf("docs/states.md has not the table of state.go, which is:\n%s", want.String())
	}
}
