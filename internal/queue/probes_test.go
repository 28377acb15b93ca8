package queue

import (
	"testing"
	"testing/synctest"
	"time"
)

// However many destinations are in trouble, no second has more probes than it
// may, and none is sooner than it should be.
func TestProbesAreSpread(t *testing.T) {
	var p probes
	begin := time.Date(2026, 3, 1, 12, 0, 0, 500_000_000, time.UTC)
	seconds := map[int64]int{}
	const many = 10*probesASecond + 1
	for range many {
		at := p.next(begin)
		if at.Before(begin) {
			t.Fatalf("%v is before %v", at, begin)
		}
		seconds[at.Unix()]++
	}
	for s, n := range seconds {
		if n > probesASecond {
			t.Errorf("%d probes in second %d", n, s)
		}
	}
	if len(seconds) != 11 {
		t.Errorf("spread over %d seconds", len(seconds))
	}
	if at := p.next(begin.Add(time.Minute)); !at.Equal(begin.Add(time.Minute)) {
		t.Errorf("where there is room it is %v", at)
	}
	p.forget(begin.Add(time.Hour))
	if len(p.planned) != 0 {
		t.Errorf("%d seconds are remembered", len(p.planned))
	}
}

// A slot that cannot be used comes back later each time, up to some seconds,
// and soon again once one could be used.
func TestSkipsGrow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &destination{}
		var last time.Duration
		for i := range 10 {
			d.skip(time.Now())
			wait := time.Until(time.UnixMicro(d.pause))
			if i < 6 && wait <= last || wait > 10*time.Second {
				t.Errorf("skip %d waits %v after %v", i, wait, last)
			}
			last = wait
			time.Sleep(wait) // until then no slot is given, and another skip is the same one
		}
	})
}
