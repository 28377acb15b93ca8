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
}

// key is what must be equal for a connection to be used again.
type key struct{ tenant, connection, address, rule string }

// resting is a connection that waits, and the timer that ends its waiting.
type resting struct {
	client *smtp.Client
	timer  *time.Timer
}

func newIdle() *idle { return &idle{kept: make(map[key][]*resting)} }

// take returns a connection that can be used, nil when there is none.
func (i *idle) take(where key) *smtp.Client {
	for {
		r := i.pop(where)
		if r == nil {
			return nil
		}
		r.timer.Stop()
		if r.client.Alive() {
			return r.client
		}
		r.client.Close()
	}
}

// end ends the idle connections of a tenant's connection: its identity is
// another one now.
func (i *idle) end(tenant, connection string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	for where, list := range i.kept {
		if where.tenant != tenant || where.connection != connection {
			continue
		}
		for _, r := range list {
			r.timer.Stop()
			i.leave.Go(func() { r.client.Quit() })
		}
		delete(i.kept, where)
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
	return last
}

func (i *idle) set(where key, list []*resting) {
	if len(list) == 0 {
		delete(i.kept, where)
		return
	}
	i.kept[where] = list
}

// put keeps a connection for a while.
func (i *idle) put(where key, c *smtp.Client) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.closed || len(i.kept[where]) >= idleMost {
		i.leave.Go(func() { c.Quit() }) // which waits briefly for the server's word
		return
	}
	r := &resting{client: c}
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
