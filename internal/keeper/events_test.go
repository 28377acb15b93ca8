package keeper

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/keeper/act"
	"github.com/sallyport-mail/sallyport/internal/keeper/wire"
	"github.com/sallyport-mail/sallyport/internal/ledger"
)

func (r *rig) events(events ...act.Event) error {
	_, err := r.EnterEvents(context.Background(), someone(), act.Events{Context: act.Context{Region: "us", Purpose: "ledger", Trace: "t"}, Events: events})
	return err
}

// asserted are the entries of events.
func (r *rig) asserted(t testing.TB) []ledger.Entry {
	t.Helper()
	return slices.DeleteFunc(r.entries(t), func(e ledger.Entry) bool { return e.Source != ledger.Asserted })
}

// Each event is entered once, by however many it is brought at a time, and
// after a restart.
func TestEventsOnce(t *testing.T) {
	eachRig(t, func(t *testing.T, r *rig) {
		const many = 40
		var all sync.WaitGroup
		for range 8 {
			all.Go(func() {
				for i := 0; i < many; i += 10 {
					var batch []act.Event
					for n := i; n < i+15 && n < many; n++ {
						batch = append(batch, act.Event{Key: fmt.Sprint("audit ", n), Time: time.Unix(int64(n), 0), Actor: "token:1", Act: "tenant.add", Tenant: "acme"})
					}
					if err := r.events(batch...); err != nil {
						t.Error(err)
					}
				}
			})
		}
		all.Wait()
		r.end()
		r = r.again(t)
		if err := r.events(act.Event{Key: "audit 3", Actor: "token:1", Act: "tenant.add"}); err != nil {
			t.Error(err)
		}
		seen := map[string]int{}
		for _, e := range r.asserted(t) {
			if e.Tenant != "acme" {
				t.Errorf("%+v", e)
			}
			seen[e.Key]++
		}
		if len(seen) != many {
			t.Errorf("%d events of %d", len(seen), many)
		}
		for key, n := range seen {
			if n != 1 {
				t.Errorf("%s is there %d times", key, n)
			}
		}
	})
}

// No event stands in the way of those behind it.
func TestEventsThatTheLedgerRefuses(t *testing.T) {
	r := newRig(t)
	long := strings.Repeat("ü", 2000)
	bad := []act.Event{
		{},
		{Key: "no actor", Act: "x", Time: time.Now()},
		{Key: "control\x00\n", Actor: "a\nb", Act: "x\x1b[31m", Time: time.Now()},
		{Key: long, Actor: long, Act: long, Tenant: long, Connection: long, Subject: long, Purpose: long, Outcome: long, Time: time.Now()},
		{Key: "year", Actor: "a", Act: "x", Time: time.Date(12026, 1, 1, 0, 0, 0, 0, time.UTC)},
		{Key: "before", Actor: "a", Act: "x", Time: time.Date(1900, 1, 1, 0, 0, 0, 0, time.UTC)},
		{Key: "bytes", Actor: "a\xff", Act: "x", Outcome: "\xff\xfe", Time: time.Now()},
	}
	for range 2 {
		if err := r.events(append(bad, act.Event{Key: "good", Actor: "token:1", Act: "x", Outcome: "fine", Time: time.Now()})...); err != nil {
			t.Fatal(err)
		}
	}
	all := r.asserted(t)
	// The first has no key and no time: its sum is the same each time too.
	if len(all) != len(bad)+1 {
		t.Fatalf("%d entries", len(all))
	}
	for i, e := range all[:len(bad)] {
		if !strings.Contains(e.Outcome, "changed to be entered") || e.Key == "" {
			t.Errorf("event %d: %+v", i, e)
		}
	}
	if last := all[len(bad)]; last.Key != "good" || last.Outcome != "fine" {
		t.Errorf("%+v", last)
	}
	if err := r.events(make([]act.Event, maxEvents+1)...); !fault.Is(err, fault.Invalid) {
		t.Errorf("too many: %v", err)
	}
	// As much as one request can hold, of what JSON makes six of.
	var most []act.Event
	for i := range 450 {
		s := strings.Repeat("<", 720)
		most = append(most, act.Event{Key: fmt.Sprint("most", i), Actor: "a", Act: "x", Time: time.Now(), Subject: s, Outcome: s, Purpose: s})
	}
	if err := r.events(most...); err != nil {
		t.Errorf("many long ones: %v", err)
	}
	if got := len(r.asserted(t)); got != len(bad)+1+450 {
		t.Errorf("%d entries", got)
	}
}

func FuzzEvent(f *testing.F) {
	f.Add("k", "actor", "act", "tenant", "subject", "outcome", int64(0))
	f.Add("", "\x00", "\xff", strings.Repeat("x", 1025), "ü", strings.Repeat("é", 600), int64(1<<50))
	k := &Keeper{}
	k.c.Now = time.Now
	f.Fuzz(func(t *testing.T, key, actor, name, tenant, subject, outcome string, at int64) {
		e := k.assertedAs(act.Event{Key: key, Actor: actor, Act: name, Tenant: tenant, Subject: subject, Outcome: outcome, Time: time.Unix(at, 0)})
		for _, s := range []string{e.Actor, e.Act, e.Tenant, e.Key} {
			if s != cleanName(s) || len(s) > maxField {
				t.Errorf("%q is no name", s)
			}
		}
		if e.Actor == "" || e.Act == "" || e.Key == "" || len(e.Subject) > maxField || len(e.Outcome) > maxField || e.Time.UTC().Year() < 1970 || e.Time.UTC().Year() > 9999 {
			t.Errorf("%+v", e)
		}
	})
}

// A flood of refusals is one entry of each kind, with their number, and never
// holds the wire up.
// Who asks in the name of many tenants has some of them told apart, and the rest
// together.
func TestRefusedTenants(t *testing.T) {
	r := newRig(t)
	const many = 200
	for i := range many {
		r.Refused(wire.Refusal{Peer: wire.Peer{Local: true, UID: 33}, Act: "open-credential", Context: act.Context{Tenant: fmt.Sprint("t", i)}, Reason: "beyond"})
	}
	r.end()
	r = r.again(t)
	named, together, sum := 0, int64(0), int64(0)
	for _, e := range r.entries(t) {
		switch {
		case !strings.HasPrefix(e.Outcome, refused):
			continue
		case e.Tenant != "":
			named++
		default:
			together += e.Count
		}
		sum += e.Count
	}
	if named != maxRefusedTenants || together != many-maxRefusedTenants || sum != many {
		t.Errorf("%d tenants are named, %d of %d refusals are told together", named, together, sum)
	}
}

func TestRefusals(t *testing.T) {
	r := newRig(t)
	const many = 5000
	for i := range many {
		r.Refused(wire.Refusal{Peer: wire.Peer{Local: true, UID: 33, PID: int32(i)}, Act: "open-credential\x00", Context: about("x\x01"), Reason: "the act is beyond what this peer may ask for"})
	}
	r.Refused(wire.Refusal{Reason: "this user may not connect"})
	within(t, "the alarm", func() bool { return r.hasAlarm(alarmRefused) })
	r.end()
	r = r.again(t)
	sum, n := int64(0), 0
	for _, e := range r.entries(t) {
		if !strings.HasPrefix(e.Outcome, refused) {
			continue
		}
		sum += e.Count
		n++
		if e.Source != ledger.Witnessed {
			t.Errorf("%+v", e)
		}
	}
	if sum != many+1 {
		t.Errorf("%d refusals of %d are entered", sum, many+1)
	}
	if n > 3 {
		t.Errorf("%d entries", n)
	}
}
