package alarm

import (
	"slices"
	"strings"
	"testing"
	"time"
)

func TestCustody(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	recent := []Notable{
		{At: now.Add(-time.Minute), Kind: "decoy", Tenant: "acme", Text: "newest"},
		{At: now.Add(-2 * time.Minute), Kind: "decoy", Tenant: "acme", Text: "older"},
		{At: now.Add(-3 * time.Minute), Kind: "refused", Text: "x"},
		{At: now.Add(-2 * time.Hour), Kind: "rate", Tenant: "acme", Text: "long ago"},
	}
	for name, c := range map[string]struct {
		custody Custody
		want    []string
	}{
		"well":    {Custody{Region: "us", Breaker: "watching"}, nil},
		"away":    {Custody{Region: "us", Away: "no answer", Breaker: "tripped"}, []string{"keeper-away us"}},
		"frozen":  {Custody{Region: "us", Frozen: "an old copy"}, []string{"keeper-frozen us"}},
		"tripped": {Custody{Region: "us", Breaker: "tripped"}, []string{"breaker us"}},
		"raised":  {Custody{Region: "us", Recent: recent}, []string{"keeper-decoy us acme", "keeper-refused us"}},
	} {
		var got []string
		for _, a := range (Rules{}).filled().judge(Figures{FreeBytes: -1, Custody: []Custody{c.custody}}, now) {
			got = append(got, a.Key)
			if a.Detail == "" || a.Fix == "" || strings.HasPrefix(a.Detail, "older") {
				t.Errorf("%s: %+v", name, a)
			}
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

// What a keeper raises while nobody asks it is told when somebody does, once,
// and for an hour; also when it is away in between.
func TestHeardLate(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	decoy := Notable{At: now.Add(-5 * time.Hour), Kind: "decoy", Tenant: "acme", Text: "asked for"}
	old := Notable{At: now.Add(-25 * time.Hour), Kind: "rate", Text: "of yesterday"}
	fresh := Notable{At: now.Add(3 * time.Hour), Kind: "decoy", Tenant: "acme", Text: "asked for again"}
	var raised []int
	w, err := New(Config{Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		after  time.Duration
		recent []Notable
		away   string
		told   int
		raised int
	}{
		{0, []Notable{decoy, old}, "", 1, 1},
		{30 * time.Second, []Notable{decoy, old}, "", 0, 1},
		{time.Minute, nil, "no answer", 0, 1},
		{time.Minute, []Notable{decoy, old}, "", 0, 1},
		{2 * time.Hour, []Notable{decoy, old}, "", 0, 0},
		{4 * time.Hour, []Notable{fresh, decoy, old}, "", 1, 1},
		{30 * time.Second, []Notable{fresh, decoy, old}, "", 0, 1},
		{2 * time.Hour, []Notable{fresh, decoy, old}, "", 0, 0},
	} {
		now = now.Add(step.after)
		all := []Custody{{Region: "us", Away: step.away, Recent: slices.Clone(step.recent)}}
		w.heard.note(all, now)
		n := w.book.update(all[0].judge(now), now)
		told := 0
		for _, a := range n.Raised {
			if a.Key == "keeper-decoy us acme" {
				told++
			}
		}
		raised = append(raised, len(w.Raised()))
		if told != step.told || raised[len(raised)-1] != step.raised {
			t.Errorf("at %s: told %d, raised %v; want %+v", now.Format("15:04"), told, w.Raised(), step)
		}
	}
}

// The breaker's alarm says why it is tripped, and what lifts it.
func TestBreakerAlarm(t *testing.T) {
	for name, c := range map[string]struct {
		custody     Custody
		detail, fix string
		not         string
	}{
		"openings":        {Custody{}, "too many credentials of us were opened", "order make lift-breaker --region us", "thaw"},
		"another reason":  {Custody{BreakerWhy: "its state was edited"}, "is opened, because its state was edited", "order make lift-breaker --region us", "who opened"},
		"frozen":          {Custody{BreakerWhy: "its state was edited", Frozen: "edited"}, "because its state was edited", "after the thaw", "who opened"},
		"frozen for good": {Custody{BreakerWhy: "the ledger does not open", Frozen: "x", ForGood: true}, "because the ledger does not open", "put back", "two operators"},
	} {
		c.custody.Region, c.custody.Breaker = "us", "tripped"
		all := c.custody.judge(time.Now())
		a := all[len(all)-1]
		if a.Key != "breaker us" || !strings.Contains(a.Detail, c.detail) || !strings.Contains(a.Fix, c.fix) || strings.Contains(a.Detail+a.Fix, c.not) {
			t.Errorf("%s: %+v", name, a)
		}
		if c.custody.Frozen != "" && strings.Contains(all[0].Fix, "no order") != c.custody.ForGood {
			t.Errorf("%s: %+v", name, all[0])
		}
	}
}

// What has no end of its own says when it was raised, and until when it is shown:
// an hour from when it was heard of.
func TestShownUntil(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	n := Notable{At: now.Add(-5 * time.Hour), Kind: "rate", Text: "often", heard: now.Add(-20 * time.Minute)}
	c := Custody{Region: "us", Recent: []Notable{n}}
	if got := c.judge(now); len(got) != 1 || got[0].Detail != "often (raised 2026-03-01T07:00:00Z; shown until 2026-03-01T12:40:00Z)" {
		t.Errorf("%+v", got)
	}
	if got := c.judge(now.Add(41 * time.Minute)); len(got) != 0 {
		t.Errorf("%+v", got)
	}
}
