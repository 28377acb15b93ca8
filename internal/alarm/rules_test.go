package alarm

import (
	"testing"
	"time"
)

func at(min int) time.Time {
	return time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC).Add(time.Duration(min) * time.Minute)
}

func keys(list []Alarm) []string {
	var k []string
	for _, a := range list {
		k = append(k, a.Key)
	}
	return k
}

func ptr[T any](v T) *T { return &v }

func TestRules(t *testing.T) {
	now := at(0)
	for name, c := range map[string]struct {
		f    Figures
		want string
	}{
		"nothing":             {Figures{FreeBytes: 1 << 40}, ""},
		"old mail":            {Figures{FreeBytes: 1 << 40, OldestReady: ptr(at(-16))}, "queue-age"},
		"mail at the mark":    {Figures{FreeBytes: 1 << 40, OldestReady: ptr(at(-15))}, ""},
		"disk":                {Figures{FreeBytes: 1 << 29}, "disk"},
		"disk unknown":        {Figures{FreeBytes: -1}, ""},
		"route up":            {Figures{FreeBytes: -1, Routes: []Route{{Destination: "d", State: "up"}}}, ""},
		"route down shortly":  {Figures{FreeBytes: -1, Routes: []Route{{Destination: "d", State: "down", Since: ptr(at(-9))}}}, ""},
		"route down":          {Figures{FreeBytes: -1, Routes: []Route{{Destination: "d", State: "down", Since: ptr(at(-10))}}}, "route-down d"},
		"route stopped":       {Figures{FreeBytes: -1, Routes: []Route{{Destination: "d", State: "stopped", Since: ptr(at(0))}}}, "route-stopped d"},
		"certificate in time": {Figures{FreeBytes: -1, Certificates: []Certificate{{"mx", at(15 * 24 * 60)}}}, ""},
		"certificate ends":    {Figures{FreeBytes: -1, Certificates: []Certificate{{"mx", at(13 * 24 * 60)}}}, "certificate mx"},
		"certificate ended":   {Figures{FreeBytes: -1, Certificates: []Certificate{{"mx", at(-1)}}}, "certificate mx"},
	} {
		t.Run(name, func(t *testing.T) {
			got := Rules{}.filled().judge(c.f, now)
			if c.want == "" && len(got) > 0 || c.want != "" && (len(got) != 1 || got[0].Key != c.want) {
				t.Fatalf("got %q, want %q", keys(got), c.want)
			}
			for _, a := range got {
				if a.Detail == "" || a.Fix == "" {
					t.Errorf("%s lacks words: %+v", a.Key, a)
				}
			}
		})
	}
}

// watchRate feeds one count a minute and returns at which minutes it spiked.
func watchRate(counts []uint64) (spikes []int) {
	var r rates
	for i, c := range counts {
		for _, a := range r.judge(Rules{}.filled(), Figures{Accepted: c}, at(i)) {
			if a.Key == "spike-accepted" {
				spikes = append(spikes, i)
			}
		}
	}
	return spikes
}

// growing is n minutes at a speed, after what there is.
func growing(counts []uint64, n int, speed uint64) []uint64 {
	var last uint64
	if len(counts) > 0 {
		last = counts[len(counts)-1]
	}
	for range n {
		last += speed
		counts = append(counts, last)
	}
	return counts
}

func TestSpike(t *testing.T) {
	steady := growing(nil, 60, 100)
	if s := watchRate(steady); s != nil {
		t.Errorf("a steady rate spiked at %v", s)
	}
	if s := watchRate(growing(steady, 1, 5000)); len(s) != 1 || s[0] != 60 {
		t.Errorf("a burst spiked at %v, want [60]", s)
	}
	if s := watchRate(growing(growing(nil, 60, 10), 1, 290)); s != nil {
		t.Errorf("a burst below the minimum spiked at %v", s)
	}
	if s := watchRate(growing(growing(nil, 5, 10), 1, 50_000)); s != nil {
		t.Errorf("a burst spiked before anything was usual, at %v", s)
	}
	restarted := append(growing(nil, 60, 1_000_000), growing(nil, 5, 1_000_000)...)
	if s := watchRate(restarted); s != nil {
		t.Errorf("a restart of the counters spiked at %v", s)
	}
	lasting := watchRate(growing(steady, 3000, 5000))
	if len(lasting) == 0 || lasting[len(lasting)-1] == len(steady)+2999 {
		t.Errorf("a new usual rate is never learned: %d spikes", len(lasting))
	}
}
