package smtp

import (
	"net"
	"sync"
	"time"
)

// door is one listener with the connections that came through it.
type door struct {
	server   *Server
	listener net.Listener
	rules    Listener

	mu     sync.Mutex
	closed bool
	count  int   // connections that hold a place
	silent chain // those that have not said a whole command yet, oldest first
	idle   chain // those that have, but no MAIL, oldest first
	mailed chain
}

func newDoor(s *Server, l net.Listener, rules Listener) *door {
	rules.TLS = noting(rules.TLS)
	return &door{server: s, listener: l, rules: rules.orDefaults()}
}

// admit starts a dialog, or refuses it at once when the door is full: that
// costs no session.
func (d *door) admit(nc net.Conn) {
	if c := d.place(nc); c != nil {
		d.server.hands.give(c)
		return
	}
	d.refuse(nc)
}

// place makes a dialog and enters it among the silent ones, if there is room
// or room can be made; nil otherwise.
func (d *door) place(nc net.Conn) *dialog {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.server.stopping.Load() {
		return nil
	}
	if d.rules.MaxConns > 0 && d.count >= d.rules.MaxConns && !d.evictLocked() {
		return nil
	}
	c := newDialog(d, nc)
	d.count++
	d.silent.add(c)
	d.server.dialogs.Add(1)
	return c
}

// refuse says 421 in clear and closes. A fresh socket has room for it, so the
// write does not wait; a client that expects TLS is just closed.
func (d *door) refuse(nc net.Conn) {
	if !d.rules.ImplicitTLS {
		_ = nc.SetWriteDeadline(time.Now().Add(time.Second))
		_, _ = nc.Write([]byte("421 4.3.2 too many connections, try again later\r\n"))
	}
	_ = nc.Close()
}

// evict makes room for a new connection where EvictSilent allows it.
func (d *door) evict() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.evictLocked()
}

// evictLocked sends the oldest silent connection away, if it has been silent
// for long enough, or else the oldest that has talked without sending mail.
// Its place is free from now on.
func (d *door) evictLocked() bool {
	c := d.silent.first
	if !due(c, d.rules.EvictSilent) {
		c = d.idle.first
		if !due(c, d.rules.EvictIdle) {
			return false
		}
	}
	c.chain.remove(c)
	c.evicted = true
	d.count--
	c.wake()
	return true
}

// due reports whether a connection has been in its chain for so long.
func due(c *dialog, age time.Duration) bool {
	return age > 0 && c != nil && time.Since(c.since) >= age
}

// heard moves c to those that have said something. It reports false when c
// has been evicted meanwhile.
func (d *door) heard(c *dialog) bool { return d.promote(c, &d.idle) }

// mails moves c to those that have begun to send, who keep their places.
func (d *door) mails(c *dialog) bool { return d.promote(c, &d.mailed) }

func (d *door) promote(c *dialog, to *chain) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if c.evicted {
		return false
	}
	c.chain.remove(c)
	to.add(c)
	c.since = time.Now()
	return true
}

// leave ends c's stay.
func (d *door) leave(c *dialog) {
	d.mu.Lock()
	if !c.evicted {
		c.chain.remove(c)
		d.count--
	}
	empty := d.closed && d.count == 0
	d.mu.Unlock()
	if empty {
		d.server.forget(d)
	}
	d.server.dialogs.Done()
}

// crowded reports that the door is more than half full.
func (d *door) crowded() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.rules.MaxConns > 0 && d.count > d.rules.MaxConns/2
}

// each calls f for every connection.
func (d *door) each(f func(*dialog)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, first := range []*dialog{d.silent.first, d.idle.first, d.mailed.first} {
		for c := first; c != nil; c = c.after {
			f(c)
		}
	}
}

// wait pauses the accept loop, less long when the server is shut down.
func (d *door) wait(pause time.Duration) {
	t := time.NewTimer(pause)
	defer t.Stop()
	select {
	case <-t.C:
	case <-d.server.ctx.Done():
	}
}

// chain is a list of dialogs that are linked through themselves, so that
// keeping them in order allocates nothing.
type chain struct{ first, last *dialog }

func (l *chain) add(c *dialog) {
	c.chain, c.before, c.after = l, l.last, nil
	if l.last == nil {
		l.first = c
	} else {
		l.last.after = c
	}
	l.last = c
}

func (l *chain) remove(c *dialog) {
	if c.before == nil {
		l.first = c.after
	} else {
		c.before.after = c.after
	}
	if c.after == nil {
		l.last = c.before
	} else {
		c.after.before = c.before
	}
	c.before, c.after, c.chain = nil, nil, nil
}
