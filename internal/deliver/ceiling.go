package deliver

import (
	"context"
	"slices"
	"sync"
	"time"
)

// firstConnections is how many connections a host gets of which nothing is
// known: slots are few, and hosts that say nothing would take them all.
const firstConnections = 5

// longestLine is how many wait for a place at one host: a part of the slots, so
// that others have the rest.
const longestLine = 100

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
	waiting    []chan struct{} // those who want a place, in turn
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
		if h.open == 0 && len(h.waiting) == 0 {
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

// change does something to a host and wakes as many of those who wait for a
// place there as there are places now.
func (c *ceiling) change(address string, f func(*host)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	h := c.at(address)
	f(h)
	n := min(len(h.waiting), max(0, h.room-h.open))
	for _, w := range h.waiting[:n] {
		close(w)
	}
	h.waiting = slices.Delete(h.waiting, 0, n)
}

// wait returns when there may be a place at the host, or patience is at an
// end. It returns false at once when enough others wait: each of them holds a
// slot, and what they hold others cannot use.
func (c *ceiling) wait(ctx context.Context, address string, patience time.Duration) bool {
	more, ok := c.queue(address)
	if more == nil {
		return ok
	}
	t := time.NewTimer(patience)
	defer t.Stop()
	select {
	case <-more:
		return true
	case <-t.C:
	case <-ctx.Done():
	}
	c.leave(address, more)
	return true
}

// queue gets in line for a place; no channel when there is one already, or
// (false) when the line is long.
func (c *ceiling) queue(address string) (more chan struct{}, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	h := c.at(address)
	switch {
	case h.open < h.room:
		return nil, true
	case len(h.waiting) >= longestLine:
		return nil, false
	}
	more = make(chan struct{})
	h.waiting = append(h.waiting, more)
	return more, true
}

// leave gets out of line. Who was called in the same moment passes it on.
func (c *ceiling) leave(address string, more chan struct{}) {
	c.change(address, func(h *host) {
		h.waiting = slices.DeleteFunc(h.waiting, func(w chan struct{}) bool { return w == more })
	})
}
