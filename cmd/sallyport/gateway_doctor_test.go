package main

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-mail/sallyport/internal/keeper/act"
)

// TestWhatDoctorSaysOfAKeeper goes through what Status may say.
func TestWhatDoctorSaysOfAKeeper(t *testing.T) {
	now := time.Now()
	for name, c := range map[string]struct {
		s        keeperState
		none     []string
		findings []string
	}{
		"kept":       {keeperState{region: "us", state: act.State{Custody: "kept", Breaker: "watching", Why: []string{"no witness"}}}, nil, nil},
		"for trying": {keeperState{region: "us", child: true, state: act.State{Custody: "none", Why: []string{"a", "b"}}}, []string{"a", "b"}, nil},
		"asleep":     {keeperState{region: "us", child: true, asleep: true}, []string{"The keeper is run by serve, under its own user."}, nil},
		"child away": {keeperState{region: "us", child: true, err: errors.New("x")}, []string{"The keeper is run by serve, under its own user."}, nil},
		"away":       {keeperState{region: "us", err: errors.New("x")}, nil, nil},
		"frozen":     {keeperState{region: "us", state: act.State{Frozen: "an old copy", Breaker: "tripped"}}, nil, []string{"us: frozen: an old copy", "us: the breaker is tripped, because too many credentials were opened in a minute"}},
		"for good": {keeperState{region: "us", state: act.State{Frozen: "cut", ForGood: true, Breaker: "tripped", BreakerWhy: "the ledger does not open"}}, nil,
			[]string{"us: frozen for good: cut", "us: the breaker is tripped, because the ledger does not open"}},
		"rotation": {keeperState{region: "us", state: act.State{Rotation: "12 of 40", Breaker: "campaign"}}, nil, []string{"us: the breaker is in the state campaign", "us: KEK rotation: 12 of 40"}},
		"standbys": {keeperState{region: "us", state: act.State{Breaker: "watching", StandbyDriver: "file", StandbyAway: "the KEK of standbys is away: x",
			Alarms: []act.Alarm{{At: now, Kind: "standby", Text: "the same"}}}}, nil,
			[]string{"us: the KEK of standbys is away: x; standbys are neither made nor used, and a replacement gets a new identity"}},
		"alarms": {keeperState{region: "us", state: act.State{Alarms: []act.Alarm{
			{At: now.Add(-time.Hour), Kind: "decoy", Text: "x"}, {At: now.Add(-25 * time.Hour), Kind: "rate", Text: "y"}}}}, nil, []string{"us: alarm decoy: x (raised " + now.Add(-time.Hour).UTC().Format(time.RFC3339) + "; doctor shows it for a day)"}},
	} {
		if got := c.s.none(); !slices.Equal(got, c.none) {
			t.Errorf("%s: none because of %q, want %q", name, got, c.none)
		}
		if got := c.s.findings(); !slices.Equal(got, c.findings) {
			t.Errorf("%s: %q, want %q", name, got, c.findings)
		}
	}
	for want, all := range map[bool][]keeperState{
		true: {{state: act.State{Custody: "kept"}}},
		false: {{state: act.State{Custody: "none"}}, {state: act.State{Custody: "kept", StandbyDriver: "transit"}}, {asleep: true, child: true},
			{err: errors.New("away"), state: act.State{Custody: "kept"}}},
	} {
		for _, s := range all {
			if s.together() != want {
				t.Errorf("%+v: standbys lie with the rest: %v", s, !want)
			}
		}
	}
	f := keeperState{region: "us", err: errors.New("no answer")}.figure()
	if f.Region != "us" || !strings.Contains(f.Away, "no answer") {
		t.Errorf("%+v", f)
	}
	f = keeperState{region: "us", state: act.State{Frozen: "f", Breaker: "tripped", Alarms: []act.Alarm{{Kind: "decoy", Tenant: "acme", Text: "x"}}}}.figure()
	if f.Away != "" || f.Frozen != "f" || f.Breaker != "tripped" || len(f.Recent) != 1 || f.Recent[0].Tenant != "acme" {
		t.Errorf("%+v", f)
	}
}

// What doctor has done about a keeper that does nothing names the order for it,
// or that there is none.
func TestWayOutOfAKeeper(t *testing.T) {
	for name, c := range map[string]struct {
		state     act.State
		want, not []string
	}{
		"well":               {act.State{Breaker: "watching"}, nil, []string{"order"}},
		"openings":           {act.State{Breaker: "tripped"}, []string{"--act open-credential", "order make lift-breaker --region us"}, []string{"thaw"}},
		"tripped otherwise":  {act.State{Breaker: "tripped", BreakerWhy: "edited"}, []string{"order make lift-breaker --region us"}, []string{"open-credential", "thaw"}},
		"frozen":             {act.State{Breaker: "watching", Frozen: "f"}, []string{"order make thaw --region us"}, []string{"lift-breaker"}},
		"frozen and tripped": {act.State{Breaker: "tripped", Frozen: "f"}, []string{"order make thaw --region us", "order make lift-breaker --region us"}, nil},
		"for good":           {act.State{Breaker: "tripped", Frozen: "f", ForGood: true}, []string{"no order thaws this", "put a database"}, []string{"order make"}},
	} {
		way := keeperState{region: "us", state: c.state}.way()
		for _, want := range c.want {
			if !strings.Contains(way, want) {
				t.Errorf("%s: %q lacks %q", name, way, want)
			}
		}
		for _, not := range c.not {
			if strings.Contains(way, not) {
				t.Errorf("%s: %q says %q", name, way, not)
			}
		}
	}
}
