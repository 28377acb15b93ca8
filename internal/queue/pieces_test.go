package queue

import (
	"testing"
	"time"
)

// A piece takes as many items as there is time for, within bounds.
func TestPieces(t *testing.T) {
	const fixed = time.Millisecond // of every commit
	settle := func(each time.Duration) int {
		p := newPieces(200)
		for range 50 {
			p.learn(p.most, fixed+time.Duration(p.most)*each)
		}
		return p.most
	}
	for _, c := range []struct {
		each        time.Duration
		least, most int
	}{
		{10 * time.Microsecond, 200, 200},
		{50 * time.Microsecond, 60, 110},
		{time.Second, 20, 20},
	} {
		if got := settle(c.each); got < c.least || got > c.most {
			t.Errorf("with %v an item: %d items, not %d to %d", c.each, got, c.least, c.most)
		}
	}
	p := newPieces(200)
	if p.learn(3, time.Millisecond); p.most != 50 {
		t.Errorf("a piece that was not full taught something: %d", p.most)
	}
}

// Who waits is there, and for a moment after his reply.
func TestClients(t *testing.T) {
	var c clients
	if c.here() {
		t.Error("nobody has come, and somebody is there")
	}
	c.come()
	c.come()
	c.leave()
	if !c.here() {
		t.Error("somebody waits, and nobody is there")
	}
	c.leave()
	if !c.here() {
		t.Error("the last reply was given this moment, and nobody is there")
	}
	c.last.Store(time.Now().Add(-time.Second).UnixNano())
	if c.here() {
		t.Error("the last reply was given long ago, and somebody is there")
	}
}
