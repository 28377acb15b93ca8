package tenant

import (
	"sync"
	"time"
)

const (
	throttleFree   = 5 // wrong passwords without a delay
	throttleMax    = time.Minute
	throttleForget = 15 * time.Minute
	throttleSize   = 100_000
)

// throttle makes guessing slow: after some wrong passwords for one user each
// further one doubles the time until the next is looked at. A client whose
// password is remembered as right is not affected, so that a guesser cannot
// lock it out.
type throttle struct {
	mu    sync.Mutex
	users map[[32]byte]failures
}

type failures struct {
	count int
	last  time.Time
}

func (f failures) delay() time.Duration {
	n := f.count - throttleFree
	if n < 0 {
		return 0
	}
	// 1 s, 2 s, 4 s … 1 min; the shift is bounded before it is made.
	return min(time.Second<<min(n, 6), throttleMax)
}

// wait says how long this user's next try has to wait.
func (t *throttle) wait(who [32]byte, now time.Time) time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	f, ok := t.users[who]
	if !ok {
		return 0
	}
	if now.Sub(f.last) > throttleForget {
		delete(t.users, who)
		return 0
	}
	return f.last.Add(f.delay()).Sub(now)
}

func (t *throttle) fail(who [32]byte, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.users) >= throttleSize {
		t.prune(now)
	}
	f := t.users[who]
	t.users[who] = failures{count: f.count + 1, last: now}
}

func (t *throttle) prune(now time.Time) {
	for who, f := range t.users {
		if now.Sub(f.last) > throttleForget {
			delete(t.users, who)
		}
	}
	for who := range t.users {
		if len(t.users) <= throttleSize-throttleSize/8 {
			return
		}
		delete(t.users, who)
	}
}

func (t *throttle) clear(who [32]byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.users, who)
}
