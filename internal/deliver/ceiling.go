package deliver

import (
	"context"
	"sync"
	"time"
)

// firstConnections is how many connections a host gets of which nothing is
// known: slots are few, and hosts that say nothing would take them all.
const firstConnections = 5

// ceiling bounds how many connections one remote address has, over all
// destinations: hundreds of domains may share one host. A host that answers
// gets one more with each transaction up to the limit; one that does not gets
// half as many.
type ceiling struct {
	limit int

	mu    sync.Mutex
	hosts map[string]*host
}

// host is what is known of one remote address.
type host struct {
	open, room int
	more       chan struct{} // closed when there may be a place; nil when nobody waits
}

// place is one connection's share of a ceiling.
type place struct {
	ceiling *ceiling
	address string
}

func newCeiling(limit int) *ceiling {
	return &ceiling{limit: limit, hosts: make(map[string]*host)}
}

// at is what is known of an address. The lock is held.
func (c *ceiling) at(address string) *host {
	h := c.hosts[address]
	if h == nil {
		c.forget()
		h = &host{room: min(c.limit, firstConnections)}
		c.hosts[address] = h
	}
	return h
}

// forget keeps the table bounded: what is known of hosts without connections
// is worth little. The lock is held.
func (c *ceiling) forget() {
	if len(c.hosts) < maxRoutes {
		return
	}
	for address, h := range c.hosts {
		if h.open == 0 && h.more == nil {
			delete(c.hosts, address)
		}
	}
}

// take gets a place, nil when there is none.
func (c *ceiling) take(address string) *place {
	c.mu.Lock()
	defer c.mu.Unlock()
	h := c.at(address)
	if h.open >= h.room {
		return nil
	}
	h.open++
	return &place{c, address}
}

// free gives the place back.
func (p *place) free() {
	p.ceiling.change(p.address, func(h *host) { h.open-- })
}

// answered notes a transaction that the host has answered.
func (p *place) answered() {
	p.ceiling.change(p.address, func(h *host) { h.room = min(p.ceiling.limit, h.room+1) })
}

// silent notes a connection that the host did not let us have, or let starve.
func (p *place) silent() {
	p.ceiling.change(p.address, func(h *host) { h.room = max(1, h.room/2) })
}

// change does something to a host and wakes those who wait for a place there,
// if there is one now.
func (c *ceiling) change(address string, f func(*host)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	h := c.at(address)
	f(h)
	if h.more != nil && h.open < h.room {
		close(h.more)
		h.more = nil
	}
}

// wait returns when there may be a place at the host, or patience is at an
// end.
func (c *ceiling) wait(ctx context.Context, address string, patience time.Duration) {
	c.mu.Lock()
	h := c.at(address)
	if h.open < h.room {
		c.mu.Unlock()
		return
	}
	if h.more == nil {
		h.more = make(chan struct{})
	}
	more := h.more
	c.mu.Unlock()
	t := time.NewTimer(patience)
	defer t.Stop()
	select {
	case <-more:
	case <-t.C:
	case <-ctx.Done():
	}
}
