package deliver

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestIdlePool(t *testing.T) {
	var gone []*conn
	p := newIdlePool(5*time.Second, func(c *conn) { gone = append(gone, c) })
	now := time.Now()
	a, b, other := &conn{way: wayTo("acme", "m", "x")}, &conn{way: wayTo("acme", "m", "x")}, &conn{way: wayTo("zenith", "m", "x")}
	p.put(a, now)
	p.put(b, now.Add(time.Second))
	p.put(other, now)
	if got := p.take(a.sameness); got != b {
		t.Error("the connection used last is not the first to be used again")
	}
	if got := p.take(wayTo("acme", "m", "y").sameness); got != nil {
		t.Error("a connection to another host was given out")
	}
	p.put(b, now.Add(2*time.Second))
	p.end(now.Add(time.Second))
	if len(gone) != 2 || p.count != 1 {
		t.Errorf("%d connections were ended, %d are left", len(gone), p.count)
	}
	if got := p.evict("x"); got != nil {
		t.Error("evict took one to another network") // the address of a way names its network too
	}
	if got := p.evict(b.sameness.address); got != b || p.count != 0 || len(p.conns) != 0 {
		t.Errorf("evict gave %v and left %d", got, p.count)
	}
	p.close()
	p.put(a, now)
	if len(gone) != 3 {
		t.Error("a closed pool keeps connections")
	}
}

func TestIdlePoolIsBounded(t *testing.T) {
	ended := 0
	p := newIdlePool(time.Second, func(*conn) { ended++ })
	for range maxIdle + 10 {
		p.put(&conn{way: wayTo("acme", "m", "x")}, time.Now())
	}
	if p.count != maxIdle || ended != 10 {
		t.Errorf("%d are kept, %d were ended", p.count, ended)
	}
}

func TestIdlePoolSweeps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gone := make(chan *conn, 1)
		p := newIdlePool(4*time.Second, func(c *conn) { gone <- c })
		go p.sweep(t.Context())
		begun := time.Now()
		p.put(&conn{way: wayTo("acme", "m", "x")}, begun)
		<-gone
		if d := time.Since(begun); d < 4*time.Second || d > 6*time.Second {
			t.Errorf("ended after %v", d)
		}
	})
}
