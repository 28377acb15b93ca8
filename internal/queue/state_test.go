package queue

import (
	"os"
	"strings"
	"testing"
)

func allStates() []State { return []State{absent, Ready, Leased, Deferred, Held, Failed} }

func allEvents() []event {
	return []event{onPut, onLease, onReturn, onDeliver, onAgain, onDefer, onFail, onBounce, onHold, onRelease, onRetry, onReroute,
		onDrop, onExpire, onEnd}
}

func stateName(s State) string {
	if s == absent {
		return "absent"
	}
	return string(s)
}

// TestStates walks every pair of state and event.
func TestStates(t *testing.T) {
	lines := 0
	for _, from := range allStates() {
		for _, on := range allEvents() {
			to, ok := next(from, on)
			want := false
			for _, x := range transitions {
				if x.from == from && x.on == on {
					if want {
						t.Errorf("%s + %s is twice in the table", stateName(from), on)
					}
					want = true
					lines++
					if to != x.to {
						t.Errorf("%s + %s = %s, want %s", stateName(from), on, stateName(to), stateName(x.to))
					}
				}
			}
			if ok != want || (!ok && to != from) {
				t.Errorf("%s + %s: %v, to %s", stateName(from), on, ok, stateName(to))
			}
		}
	}
	if lines != len(transitions) {
		t.Errorf("%d lines of the table were met, it has %d: a state or an event is missing here", lines, len(transitions))
	}
	// Whatever happens, an item can be got rid of, and nothing leaves held or
	// failed by itself but at the end of its retention.
	for _, s := range allStates()[1:] {
		if s == Leased {
			continue
		}
		if to, ok := next(s, onDrop); !ok || to != absent {
			t.Errorf("%s cannot be dropped", s)
		}
	}
}

func TestStored(t *testing.T) {
	for _, s := range []State{Ready, Deferred, Held, Failed} {
		if s.stored().state() != s {
			t.Errorf("%s is stored as %s", s, s.stored().state())
		}
	}
}

// TestStatesPage compares the table with the one that people read.
func TestStatesPage(t *testing.T) {
	page, err := os.ReadFile("../../docs/states.md")
	if err != nil {
		t.Fatal(err)
	}
	if want := statesTable(); !strings.Contains(string(page), want) {
		t.Errorf("docs/states.md has not this table:\n%s", want)
	}
}

func statesTable() string {
	var b strings.Builder
	b.WriteString("| from | event | to |\n|---|---|---|\n")
	for _, x := range transitions {
		b.WriteString("| " + stateName(x.from) + " | " + string(x.on) + " | " + stateName(x.to) + " |\n")
	}
	return b.String()
}
