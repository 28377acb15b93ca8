package directory

import (
	"sync"
	"time"

	"github.com/sallyport-mail/sallyport/internal/smtp"
)

const (
	idleTime = 5 * time.Second
	idleMost = 2 // kept for one address
)

// idle keeps connections for the next question: addresses of one message are
// asked about one after another.
type idle struct {
	mu     sync.Mutex
	kept   map[key][]*resting
	closed bool
	leave  sync.WaitGroup // farewells under way

	turn  uint64
	busy  map[*use]bool
	from  map[place]uint64  // sessions of earlier turns show an identity that is over
	ended map[string]uint64 // certificates that are over, and since which turn
}

// place is a tenant's connection.
type place struct{ tenant, connection string }

// use is a session that is being dialled, or asked over.
type use struct {
	place
	turn uint64 // when it was dialled
}

const maxEnded = 10_000 // as in deliver

// key is what must be equal for a connection to be used again.
type key struct{ tenant, connection, address, rule string }

// resting is a connection that waits, and the timer that ends its waiting.
type resting struct {
	client *smtp.Client
	use    *use
	timer  *time.Timer
}

func newIdle() *idle {
	return &idle{kept: make(map[key][]*resting), busy: make(map[*use]bool), from: make(map[place]uint64), ended: make(map[string]uint64)}
}

// begin notes a session that is about to be dialled.
func (i *idle) begin(where key) *use {
	i.mu.Lock()
	defer i.mu.Unlock()
	u := &use{place{where.tenant, where.connection}, i.turn}
	i.busy[u] = true
	return u
}

// done forgets a session that is not kept.
func (i *idle) done(u *use) {
	i.mu.Lock()
	defer i.mu.Unlock()
	delete(i.busy, u)
}

// take returns a connection that can be used, nil when there is none.
func (i *idle) take(where key) (*smtp.Client, *use) {
	for {
		r := i.pop(where)
		if r == nil {
			return nil, nil
		}
		r.timer.Stop()
		if r.client.Alive() {
			return r.client, r.use
		}
		i.done(r.use)
		r.client.Close()
	}
}

// end ends the idle sessions of a tenant's connection, whose certificate is
// over, and has those that are asked over end with their question: left is how
// many. Sessions that were dialled since the first call are not counted.
func (i *idle) end(tenant, connection, sha256 string) (left int) {
	i.mu.Lock()
	defer i.mu.Unlock()
	at := place{tenant, connection}
	since, known := i.ended[sha256]
	if !known {
		if len(i.ended) >= maxEnded {
			clear(i.ended)
		}
		i.turn++
		since = i.turn
		i.ended[sha256], i.from[at] = since, since
	}
	i.endIdle(at, since)
	for u := range i.busy {
		if u.place == at && u.turn < since {
			left++
		}
	}
	return left
}

// back forgets that a certificate was over: it is shown again, and its next end
// counts anew.
func (i *idle) back(sha256 string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	delete(i.ended, sha256)
}

// endIdle ends those that rest. The lock is held.
func (i *idle) endIdle(at place, before uint64) {
	for where, list := range i.kept {
		if where.tenant != at.tenant || where.connection != at.connection {
			continue
		}
		var stay []*resting
		for _, r := range list {
			if r.use.turn >= before {
				stay = append(stay, r)
				continue
			}
			r.timer.Stop()
			i.leave.Go(func() { r.client.Quit() })
		}
		i.set(where, stay)
	}
}

func (i *idle) pop(where key) *resting {
	i.mu.Lock()
	defer i.mu.Unlock()
	list := i.kept[where]
	if len(list) == 0 {
		return nil
	}
	last := list[len(list)-1]
	i.set(where, list[:len(list)-1])
	i.busy[last.use] = true
	return last
}

func (i *idle) set(where key, list []*resting) {
	if len(list) == 0 {
		delete(i.kept, where)
		return
	}
	i.kept[where] = list
}

// put keeps a connection for a while, unless what it shows is over.
func (i *idle) put(where key, c *smtp.Client, u *use) {
	i.mu.Lock()
	defer i.mu.Unlock()
	delete(i.busy, u)
	if i.closed || u.turn < i.from[u.place] || len(i.kept[where]) >= idleMost {
		i.leave.Go(func() { c.Quit() }) // which waits briefly for the server's word
		return
	}
	r := &resting{client: c, use: u}
	r.timer = time.AfterFunc(idleTime, func() { i.expire(where, r) })
	i.kept[where] = append(i.kept[where], r)
}

// expire ends a connection that nobody has taken.
func (i *idle) expire(where key, r *resting) {
	i.mu.Lock()
	found := false
	list := i.kept[where]
	for at := range list {
		if list[at] == r {
			i.set(where, append(list[:at:at], list[at+1:]...))
			found = true
			i.leave.Add(1)
			break
		}
	}
	i.mu.Unlock()
	if found {
		defer i.leave.Done()
		r.client.Quit()
	}
}

func (i *idle) close() {
	i.mu.Lock()
	i.closed = true
	all := i.kept
	i.kept = make(map[key][]*resting)
	i.mu.Unlock()
	for _, list := range all {
		for _, r := range list {
			r.timer.Stop()
			r.client.Close()
		}
	}
	i.leave.Wait()
}
