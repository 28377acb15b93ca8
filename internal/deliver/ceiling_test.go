package deliver

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

func TestCeiling(t *testing.T) {
	c := newCeiling(2)
	a, b := c.take("x"), c.take("x")
	if a == nil || b == nil || c.take("x") != nil {
		t.Fatal("the ceiling of 2 is not kept")
	}
	if c.take("y") == nil {
		t.Error("another host is refused")
	}
	a.free()
	if c.take("x") == nil {
		t.Error("a place that was freed is not given out")
	}
}

func TestCeilingWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCeiling(1)
		p := c.take("x")
		begun := time.Now()
		c.wait(t.Context(), "x", time.Second)
		if d := time.Since(begun); d != time.Second {
			t.Errorf("waited %v for a place that never came", d)
		}
		time.AfterFunc(300*time.Millisecond, p.free)
		begun = time.Now()
		c.wait(t.Context(), "x", time.Second)
		if d := time.Since(begun); d != 300*time.Millisecond {
			t.Errorf("waited %v for a place that came after 300 ms", d)
		}
		c.wait(t.Context(), "x", time.Hour) // there is room: returns at once
		c.take("x")
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		c.wait(ctx, "x", time.Hour)
		if d := time.Since(begun); d != 300*time.Millisecond {
			t.Errorf("a wait went on after its context, or in spite of room: %v", d)
		}
		if len(c.open) != 1 {
			t.Errorf("hosts without connections are remembered: %v", c.open)
		}
	})
}
