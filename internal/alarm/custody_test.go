package alarm

import (
	"slices"
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
			if a.Detail == "" || a.Fix == "" || a.Detail == "older" {
				t.Errorf("%s: %+v", name, a)
			}
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}
