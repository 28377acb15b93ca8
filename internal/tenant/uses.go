package tenant

import (
	"context"
	"sync"
	"time"
)

// useInterval is how often last uses are written down at most.
const useInterval = time.Minute

// use is one last use that the database does not know yet.
type use struct {
	token bool // a token's id, else a submitter's user name
	id    string
}

// uses collects last uses in memory: writing one at each use would turn every
// reading request into a commit. The first use after a quiet time arms a timer.
type uses struct {
	write func(ctx context.Context, at map[use]int64) error

	mu     sync.Mutex
	dirty  map[use]int64 // microseconds
	timer  *time.Timer
	closed bool
}

func newUses(write func(context.Context, map[use]int64) error) *uses {
	return &uses{write: write, dirty: make(map[use]int64)}
}

func (u *uses) note(what use, at int64) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.dirty[what] = at
	if u.timer == nil && !u.closed {
		u.timer = time.AfterFunc(useInterval, func() { _ = u.flush(context.Background()) })
	}
}

// flush writes what there is; what fails is noted again unless newer.
func (u *uses) flush(ctx context.Context) error {
	u.mu.Lock()
	batch := u.dirty
	u.dirty = make(map[use]int64)
	if u.timer != nil {
		u.timer.Stop()
		u.timer = nil
	}
	u.mu.Unlock()
	if len(batch) == 0 {
		return nil
	}
	err := u.write(ctx, batch)
	if err == nil {
		return nil
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	for what, at := range batch {
		if _, newer := u.dirty[what]; !newer {
			u.dirty[what] = at
		}
	}
	return err
}

func (u *uses) close(ctx context.Context) error {
	u.mu.Lock()
	u.closed = true
	u.mu.Unlock()
	return u.flush(ctx)
}
