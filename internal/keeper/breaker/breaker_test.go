package breaker

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/keeper/act"
	"github.com/sallyport-mail/sallyport/internal/keeper/operator"
)

// rig is a breaker of 5 a minute with a clock and two operators.
type rig struct {
	*Breaker
	clock    time.Time
	kept     []Snapshot
	fail     error
	ann, bob *operator.Key
	verifier *operator.Verifier
}

type anyNonce struct{}

func (anyNonce) Spend(context.Context, [16]byte, time.Time) error { return nil }

func newRig(t *testing.T, s Snapshot) *rig {
	t.Helper()
	r := &rig{clock: time.Date(2026, 5, 4, 3, 2, 1, 0, time.UTC)}
	var keys []*operator.Key
	for _, name := range []string{"ann", "bob"} {
		k, err := operator.NewKey(filepath.Join(t.TempDir(), "operator.key"), name)
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, k)
	}
	r.ann, r.bob = keys[0], keys[1]
	now := func() time.Time { return r.clock }
	rules := map[string]operator.Rule{operator.LiftBreaker: {Signers: 1}, operator.OpenCampaign: {Signers: 1}, operator.Thaw: {Signers: 1}}
	v, err := operator.NewVerifier(operator.Config{
		Region: "us", Operators: []operator.Public{r.ann.Public(), r.bob.Public()}, Rules: rules, Nonces: anyNonce{}, Now: now,
	})
	if err != nil {
		t.Fatal(err)
	}
	r.verifier = v
	r.Breaker, err = New(Config{Region: "us", Limit: 5, Now: now, Changed: func(s Snapshot) error {
		r.kept = append(r.kept, s)
		return r.fail
	}}, s)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *rig) order(t *testing.T, act string, parameters map[string]string, keys ...*operator.Key) operator.Verified {
	t.Helper()
	raw, err := operator.Sign(operator.New(act, "us", "all", parameters, r.clock.Add(time.Hour)), keys[0])
	for _, k := range keys[1:] {
		if err == nil {
			raw, err = operator.Cosign(raw, k, func(operator.Order) bool { return true })
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	v, err := r.verifier.Verify(t.Context(), raw)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func (r *rig) campaign(t *testing.T, rate string, life time.Duration) operator.Verified {
	t.Helper()
	return r.order(t, operator.OpenCampaign, map[string]string{RateParameter: rate, UntilParameter: r.clock.Add(life).Format(time.RFC3339)}, r.ann, r.bob)
}

// open opens n and returns how many were refused.
func (r *rig) open(n int) (refused int) {
	for range n {
		if r.Open() != nil {
			refused++
		}
	}
	return refused
}

// TestEveryPair walks each state with each event: what is not in the table is
// refused and changes nothing.
func TestEveryPair(t *testing.T) {
	in := map[change]bool{}
	for _, c := range table() {
		in[c] = true
	}
	moved := 0
	for _, from := range []State{Watching, Campaign, Tripped} {
		for _, e := range []Event{Within, Beyond, Authorise, Over, Lift} {
			r := newRig(t, Snapshot{State: from, Rate: 5, Until: time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)})
			err := r.drive(t, e)
			got := r.Now().State
			to, ok := next(from, e)
			switch {
			case ok && (got != to || !in[change{from, e, to}]):
				t.Errorf("%s after %s became %s, not %s", from, e, got, to)
			case !ok && (!fault.Is(err, fault.Conflict) || got != from):
				t.Errorf("%s after %s became %s: %v", from, e, got, err)
			}
			if ok {
				moved++
			}
		}
	}
	if moved != len(table()) {
		t.Errorf("%d rows were walked of %d", moved, len(table()))
	}
}

// drive makes an event happen through the public verbs where there is one.
func (r *rig) drive(t *testing.T, e Event) error {
	switch e {
	case Within:
		return r.Open()
	case Beyond:
		r.buckets[r.last%window] = 5
		return r.Open()
	case Authorise:
		return r.Authorise(r.campaign(t, "5", time.Hour))
	case Lift:
		return r.Lift(r.order(t, operator.LiftBreaker, nil, r.ann, r.bob))
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.move(Over, Snapshot{})
}

func TestTripsAndStays(t *testing.T) {
	r := newRig(t, Snapshot{})
	if n := r.open(5); n != 0 {
		t.Fatalf("%d refused within the limit", n)
	}
	err := r.Open()
	if !fault.Is(err, fault.Later) || fault.HintOf(err) == "" {
		t.Fatalf("%v", err)
	}
	if len(r.kept) != 1 || r.kept[0].State != Tripped {
		t.Errorf("kept %+v", r.kept)
	}
	for _, jump := range []time.Duration{time.Hour, -48 * time.Hour, 24 * time.Hour} {
		r.clock = r.clock.Add(jump)
		if r.open(3) != 3 {
			t.Errorf("opens after a jump of %s", jump)
		}
	}
	again := newRig(t, r.kept[0])
	if again.open(1) != 1 {
		t.Error("opens after a start")
	}
	if len(r.kept) != 1 {
		t.Errorf("told %d times of one trip", len(r.kept))
	}
}

func TestWindowSlides(t *testing.T) {
	r := newRig(t, Snapshot{})
	for range 60 {
		if r.open(1) != 0 {
			t.Fatal("refused five a minute")
		}
		r.clock = r.clock.Add(12 * time.Second)
	}
	r.open(5)
	r.clock = r.clock.Add(-24 * time.Hour)
	if r.open(1) != 1 {
		t.Error("a clock that jumped back gave new openings")
	}
}

func TestLiftTakesTwo(t *testing.T) {
	r := newRig(t, Snapshot{State: Tripped})
	for name, v := range map[string]operator.Verified{
		"one":          r.order(t, operator.LiftBreaker, nil, r.ann),
		"another act":  r.order(t, operator.Thaw, nil, r.ann, r.bob),
		"a campaign's": r.campaign(t, "5", time.Hour),
		"no order":     {},
	} {
		if err := r.Lift(v); !fault.Is(err, fault.Denied) || fault.HintOf(err) == "" {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := r.Lift(r.order(t, operator.LiftBreaker, nil, r.ann, r.bob)); err != nil || r.open(5) != 0 {
		t.Errorf("two: %v", err)
	}
}

func TestCampaign(t *testing.T) {
	r := newRig(t, Snapshot{})
	for name, p := range map[string]map[string]string{
		"no rate":   {UntilParameter: r.clock.Add(time.Hour).Format(time.RFC3339)},
		"no end":    {RateParameter: "5"},
		"two days":  {RateParameter: "5", UntilParameter: r.clock.Add(48 * time.Hour).Format(time.RFC3339)},
		"boundless": {RateParameter: "100001", UntilParameter: r.clock.Add(time.Hour).Format(time.RFC3339)},
	} {
		if err := r.Authorise(r.order(t, operator.OpenCampaign, p, r.ann, r.bob)); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := r.Authorise(r.campaign(t, "100", 10*time.Minute)); err != nil {
		t.Fatal(err)
	}
	if n := r.open(100); n != 0 {
		t.Errorf("%d refused within the campaign", n)
	}
	r.clock = r.clock.Add(10 * time.Minute)
	if r.open(5) != 0 || r.Now().State != Watching || r.open(1) != 1 {
		t.Errorf("after its end it is %s", r.Now().State)
	}
}

// TestUnkeptTripStands: when the state can't be kept the opening is refused,
// and the breaker is tripped all the same.
func TestUnkeptTripStands(t *testing.T) {
	r := newRig(t, Snapshot{})
	r.fail = errors.New("disk full")
	if r.open(6) != 1 || r.Now().State != Tripped {
		t.Errorf("%+v", r.Now())
	}
}

// TestStatesDocumented compares docs/states.md with the table.
func TestStatesDocumented(t *testing.T) {
	var want strings.Builder
	want.WriteString("| from | event | to |\n|---|---|---|\n")
	for _, c := range table() {
		want.WriteString("| " + string(c.from) + " | " + string(c.event) + " | " + string(c.to) + " |\n")
	}
	doc, err := os.ReadFile("../../../docs/states.md")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(doc), want.String()) {
		t.Errorf("docs/states.md has not this table:\n%s", want.String())
	}
}

func TestWatch(t *testing.T) {
	clock := time.Date(2026, 5, 4, 3, 2, 1, 0, time.UTC)
	w := NewWatch(map[act.Name]Rate{act.AssertClient: {PerMinute: 6, Burst: 3}}, func() time.Time { return clock })
	note := func() bool { return w.Note(act.AssertClient, "acme", "mailbox") }
	for range 3 {
		if note() {
			t.Fatal("an alarm within the burst")
		}
	}
	if !note() || note() {
		t.Error("one alarm, and not two within the minute")
	}
	if w.Note(act.AssertClient, "other", "mailbox") || w.Note(act.Status, "", "") {
		t.Error("an alarm for another")
	}
	clock = clock.Add(10 * time.Second)
	if note() {
		t.Error("an alarm for what the rate allows")
	}
	clock = clock.Add(time.Minute)
	for range 3 {
		note()
	}
	if !note() {
		t.Error("no second alarm after the minute")
	}
}

func TestWatchIsBounded(t *testing.T) {
	clock := time.Date(2026, 5, 4, 3, 2, 1, 0, time.UTC)
	w := NewWatch(map[act.Name]Rate{act.AssertClient: {PerMinute: 6, Burst: 3}}, func() time.Time { return clock })
	for i := range maxWatched + 10 {
		w.Note(act.AssertClient, "acme", time.Duration(i).String())
	}
	if len(w.asked) > maxWatched {
		t.Errorf("%d are watched", len(w.asked))
	}
}

// A clock that is set back prolongs no campaign, also not for the next
// process; one that jumps ahead ends it.
func TestCampaignAndClock(t *testing.T) {
	for name, jump := range map[string]time.Duration{"back": -24 * time.Hour, "ahead": 24 * time.Hour} {
		for _, again := range []bool{false, true} {
			r := newRig(t, Snapshot{})
			if err := r.Authorise(r.campaign(t, "100", 10*time.Minute)); err != nil {
				t.Fatal(err)
			}
			if n := r.open(50); n != 0 {
				t.Fatalf("%d refused within the campaign", n)
			}
			r.clock = r.clock.Add(-backStep / 2) // as time servers do
			if r.open(1) != 0 || r.Now().State != Campaign {
				t.Errorf("a small step ended it: %+v", r.Now())
			}
			r.clock = r.clock.Add(jump)
			if again {
				var err error
				if r.Breaker, err = New(r.c, r.Now()); err != nil {
					t.Fatal(err)
				}
			}
			if n := r.open(6); n != 1 || r.Now().State != Tripped {
				t.Errorf("%s, another process %v: %d refused, %+v", name, again, n, r.Now())
			}
		}
	}
}

// By the clock that does not jump a campaign ends although the time of day was
// set back.
func TestCampaignEndsByMonotonic(t *testing.T) {
	b := &Breaker{s: Snapshot{State: Campaign, Since: time.Now(), Until: time.Now().Add(time.Hour)}, ends: time.Now()}
	if !b.over(time.Now().Add(time.Second)) {
		t.Error("it goes on")
	}
	b.ends = time.Now().Add(time.Hour)
	if b.over(time.Now()) {
		t.Error("it ended early")
	}
}

// A watch goes on when its clock was set back: it tells again, and it fills.
func TestWatchAndClock(t *testing.T) {
	clock := time.Date(2026, 5, 4, 3, 2, 1, 0, time.UTC)
	w := NewWatch(map[act.Name]Rate{act.AssertClient: {PerMinute: 6, Burst: 3}}, func() time.Time { return clock })
	note := func() bool { return w.Note(act.AssertClient, "acme", "mailbox") }
	for range 3 {
		note()
	}
	if !note() {
		t.Fatal("no alarm")
	}
	clock = clock.Add(-24 * time.Hour)
	if !note() || note() {
		t.Error("set back, and one alarm is not told")
	}
	clock = clock.Add(10 * time.Second)
	if note() {
		t.Error("set back, and nothing fills any more")
	}
}

// Ten changes of a connection in a row are what somebody does who tries it out;
// a loop is not.
func TestRatesOfChanges(t *testing.T) {
	clock := time.Date(2026, 5, 4, 3, 2, 1, 0, time.UTC)
	w := NewWatch(nil, func() time.Time { return clock })
	change := map[act.Name]int{act.IssueIdentity: 4, act.MoveIdentity: 6, act.ProvePossession: 2, act.AssertClient: 2}
	for n := range 10 {
		for name, times := range change {
			for range times {
				if w.Note(name, "acme", "mailbox") {
					t.Errorf("%s raises an alarm in change %d", name, n+1)
				}
			}
		}
		clock = clock.Add(3 * time.Second)
	}
	for name := range change {
		told := false
		for range 120 {
			told = w.Note(name, "globex", "mailbox") || told
			clock = clock.Add(time.Second / 2)
		}
		if !told {
			t.Errorf("%s, twice a second for a minute, raises no alarm", name)
		}
	}
}
