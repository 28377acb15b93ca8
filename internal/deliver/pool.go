package deliver

import (
	"context"
	"sync"
	"time"
)

// idlePool keeps connections that no slot is using, for a short while.
type idlePool struct {
	keep time.Duration
	quit func(*conn)

	mu     sync.Mutex
	conns  map[sameness][]*conn // the longest idle first
	count  int
	closed bool
}

func newIdlePool(keep time.Duration, quit func(*conn)) *idlePool {
	return &idlePool{keep: keep, quit: quit, conns: make(map[sameness][]*conn)}
}

// put takes a connection in, or ends it when there are too many.
func (p *idlePool) put(c *conn, now time.Time) {
	c.since = now
	p.mu.Lock()
	full := p.closed || p.count >= maxIdle
	if !full {
		p.conns[c.sameness] = append(p.conns[c.sameness], c)
		p.count++
	}
	p.mu.Unlock()
	if full {
		p.quit(c)
	}
}

// take gives out the connection that was used last of those that are the
// same, nil when there is none. The caller checks that it lives.
func (p *idlePool) take(s sameness) *conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	list := p.conns[s]
	if len(list) == 0 {
		return nil
	}
	c := list[len(list)-1]
	p.set(s, list[:len(list)-1])
	return c
}

// set stores what is left of a list that lost one. The lock is held.
func (p *idlePool) set(s sameness, list []*conn) {
	p.count--
	if len(list) == 0 {
		delete(p.conns, s)
		return
	}
	list[:cap(list)][len(list)] = nil
	p.conns[s] = list
}

// evict ends one idle connection to a host, so that another one may be opened
// there; false when there is none.
func (p *idlePool) evict(host string) *conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	for s, list := range p.conns {
		if s.address == host {
			c := list[len(list)-1]
			p.set(s, list[:len(list)-1])
			return c
		}
	}
	return nil
}

// ending takes out the connections whose identity is over.
func (p *idlePool) ending() []*conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []*conn
	for s, list := range p.conns {
		kept := list[:0:0]
		for _, c := range list {
			if c.ending.Load() {
				out = append(out, c)
			} else {
				kept = append(kept, c)
			}
		}
		p.count -= len(list) - len(kept)
		if len(kept) == 0 {
			delete(p.conns, s)
		} else {
			p.conns[s] = kept
		}
	}
	return out
}

// sweep ends what has been idle for too long, until ctx ends.
func (p *idlePool) sweep(ctx context.Context) {
	t := time.NewTicker(max(p.keep/4, 10*time.Millisecond))
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-t.C:
			p.end(now.Add(-p.keep))
		}
	}
}

// end says QUIT on the connections that were put in before.
func (p *idlePool) end(before time.Time) {
	p.mu.Lock()
	var old []*conn
	for s, list := range p.conns {
		n := 0
		for n < len(list) && list[n].since.Before(before) {
			n++
		}
		if n == 0 {
			continue
		}
		old = append(old, list[:n]...)
		p.count -= n
		if n == len(list) {
			delete(p.conns, s)
		} else {
			p.conns[s] = append([]*conn(nil), list[n:]...)
		}
	}
	p.mu.Unlock()
	for _, c := range old {
		p.quit(c)
	}
}

// close ends all, and everything that is put in from now on.
func (p *idlePool) close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.end(time.Now().Add(time.Hour))
}
