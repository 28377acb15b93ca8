package deliver

import (
	"context"
	"sync"
	"time"
)

// ceiling bounds how many connections one remote address has, over all
// destinations: hundreds of domains may share one host.
type ceiling struct {
	limit int

	mu    sync.Mutex
	open  map[string]int
	freed map[string]chan struct{} // closed at the next place that becomes free
}

// place is one connection's share of a ceiling.
type place struct {
	ceiling *ceiling
	host    string
}

func newCeiling(limit int) *ceiling {
	return &ceiling{limit: limit, open: make(map[string]int), freed: make(map[string]chan struct{})}
}

// take gets a place, nil when there is none.
func (c *ceiling) take(host string) *place {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.open[host] >= c.limit {
		return nil
	}
	c.open[host]++
	return &place{c, host}
}

// free gives the place back and wakes those who wait for one.
func (p *place) free() {
	c := p.ceiling
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.open[p.host]--; c.open[p.host] <= 0 {
		delete(c.open, p.host)
	}
	if ch := c.freed[p.host]; ch != nil {
		close(ch)
		delete(c.freed, p.host)
	}
}

// wait returns when a place at the host may have become free, or patience is
// at an end.
func (c *ceiling) wait(ctx context.Context, host string, patience time.Duration) {
	c.mu.Lock()
	if c.open[host] < c.limit {
		c.mu.Unlock()
		return
	}
	ch := c.freed[host]
	if ch == nil {
		ch = make(chan struct{})
		c.freed[host] = ch
	}
	c.mu.Unlock()
	t := time.NewTimer(patience)
	defer t.Stop()
	select {
	case <-ch:
	case <-t.C:
	case <-ctx.Done():
	}
}
