package deliver

import (
	"context"
	"fmt"
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

// places takes all there are.
func places(c *ceiling, address string) (all []*place) {
	for p := c.take(address); p != nil; p = c.take(address) {
		all = append(all, p)
	}
	return all
}

func TestCeilingLearns(t *testing.T) {
	c := newCeiling(40)
	all := places(c, "x")
	if len(all) != firstConnections {
		t.Fatalf("an unknown host gets %d connections", len(all))
	}
	for range 100 {
		all[0].answered()
	}
	if all = append(all, places(c, "x")...); len(all) != 40 {
		t.Errorf("a host that answers gets %d connections", len(all))
	}
	for range 3 {
		all[0].silent()
	}
	for _, p := range all {
		p.free()
	}
	if all = places(c, "x"); len(all) != 5 {
		t.Errorf("a host that was silent three times gets %d connections", len(all))
	}
	for range 10 {
		all[0].silent()
	}
	for _, p := range all {
		p.free()
	}
	if all = places(c, "x"); len(all) != 1 {
		t.Errorf("a host that is always silent gets %d connections", len(all))
	}
}

func TestCeilingIsBounded(t *testing.T) {
	c := newCeiling(40)
	for i := range 2 * maxRoutes {
		c.take(fmt.Sprint(i)).free()
	}
	if len(c.hosts) > maxRoutes {
		t.Errorf("%d hosts are remembered", len(c.hosts))
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
	})
}

// Who waits for a host is called in turn, one for each place; the line is not
// longer than it may be, and who leaves it takes no place along.
func TestCeilingLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCeiling(1)
		p := c.take("x")
		var called []int
		for i := range longestLine {
			go func() {
				if i == 0 {
					c.wait(t.Context(), "x", time.Second) // has no patience
					return
				}
				c.wait(t.Context(), "x", time.Hour)
				called = append(called, i)
			}()
			synctest.Wait()
		}
		if c.wait(t.Context(), "x", time.Hour) {
			t.Error("the line has no end")
		}
		time.Sleep(2 * time.Second)
		for range 3 {
			p.free()
			synctest.Wait()
			p = c.take("x")
		}
		if fmt.Sprint(called) != "[1 2 3]" {
			t.Errorf("three places called %v", called)
		}
		for len(called) < longestLine-1 {
			p.free()
			synctest.Wait()
			p = c.take("x")
		}
	})
}
