package queue

import "time"

// probesASecond is how many destinations in trouble are tried in one second, at
// most: a probe costs about as much as a message, and when a whole network is
// away there may be tens of thousands of them.
const probesASecond = 100

// probes spreads the next tries of destinations in trouble.
type probes struct {
	planned map[int64]int // how many, by second
}

// next is at, or the same moment of the first second after it that has room
// for one more probe.
func (p *probes) next(at time.Time) time.Time {
	if p.planned == nil {
		p.planned = map[int64]int{}
	}
	for p.planned[at.Unix()] >= probesASecond {
		at = at.Add(time.Second)
	}
	p.planned[at.Unix()]++
	return at
}

// forget drops what was planned for the past.
func (p *probes) forget(now time.Time) {
	for second := range p.planned {
		if second < now.Unix() {
			delete(p.planned, second)
		}
	}
}
