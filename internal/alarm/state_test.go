package alarm

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

// TestState walks the table of entry: each step says what is wrong at a minute
// and what is to be told.
func TestState(t *testing.T) {
	type step struct {
		minute  int
		wrong   bool
		raised  bool
		cleared bool
	}
	for name, steps := range map[string][]step{
		"raised, stands, cleared":      {{0, true, true, false}, {1, true, false, false}, {120, true, false, false}, {121, false, false, true}, {122, false, false, false}},
		"flaps within the hour":        {{0, true, true, false}, {1, false, false, true}, {2, true, false, false}, {3, false, false, false}, {59, true, false, false}},
		"again within, stands past it": {{0, true, true, false}, {1, false, false, true}, {50, true, false, false}, {60, true, true, false}, {61, false, false, true}},
		"again after the hour":         {{0, true, true, false}, {1, false, false, true}, {62, true, true, false}},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBook()
			for _, s := range steps {
				var found []Alarm
				if s.wrong {
					found = []Alarm{{Key: "disk"}}
				}
				n := b.update(found, at(s.minute))
				if (len(n.Raised) == 1) != s.raised || (len(n.Cleared) == 1) != s.cleared {
					t.Fatalf("minute %d: raised %v cleared %v, want %v %v", s.minute, keys(n.Raised), keys(n.Cleared), s.raised, s.cleared)
				}
				if (len(b.raised()) == 1) != s.wrong {
					t.Fatalf("minute %d: Raised is %v", s.minute, keys(b.raised()))
				}
			}
		})
	}
}

func TestSinceIsOfTheRaising(t *testing.T) {
	b := newBook()
	b.update([]Alarm{{Key: "disk", Detail: "10"}}, at(0))
	b.update([]Alarm{{Key: "disk", Detail: "9"}}, at(5))
	got := b.raised()[0]
	if !got.Since.Equal(at(0)) || got.Detail != "9" {
		t.Fatalf("got %+v", got)
	}
}

func TestForgetsAfterTheHour(t *testing.T) {
	b := newBook()
	b.update([]Alarm{{Key: "disk"}}, at(0))
	b.update(nil, at(1))
	b.update(nil, at(60))
	if len(b.entries) != 0 {
		t.Fatalf("%d entries are left", len(b.entries))
	}
}

func TestBounded(t *testing.T) {
	b := newBook()
	var many []Alarm
	for i := range remembers + 500 {
		many = append(many, Alarm{Key: fmt.Sprintf("route-down %06d", i)})
	}
	n := b.update(many, at(0))
	if len(b.entries) != remembers {
		t.Errorf("%d are remembered", len(b.entries))
	}
	if len(n.Raised) != lists || n.More != remembers-lists {
		t.Errorf("a notice lists %d and %d more", len(n.Raised), n.More)
	}
	if !slices.IsSortedFunc(n.Raised, func(a, b Alarm) int { return cmpString(a.Key, b.Key) }) {
		t.Error("a notice is not in order")
	}
	if n = b.update(nil, at(1)); len(n.Cleared) != lists || n.More != remembers-lists {
		t.Errorf("clearing lists %d and %d more", len(n.Cleared), n.More)
	}
	b.update(nil, at(0).Add(2*time.Hour))
	if len(b.entries) != 0 {
		t.Errorf("%d entries are left", len(b.entries))
	}
}

func cmpString(a, b string) int {
	if a < b {
		return -1
	}
	if a > b {
		return 1
	}
	return 0
}
