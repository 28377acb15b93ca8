package deliver

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// gate holds the deliverer back while outcomes cannot be recorded: one slot is
// taken from time to time, to see whether they can again.
type gate struct {
	closed atomic.Bool

	mu     sync.Mutex
	opened chan struct{} // closed when the gate opens; nil while it is open
}

// probeEvery is how often a slot is let through a closed gate.
const probeEvery = time.Second

func (g *gate) shut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.opened == nil {
		g.opened = make(chan struct{})
		g.closed.Store(true)
	}
}

// open costs next to nothing when the gate is open, as it nearly always is.
func (g *gate) open() {
	if !g.closed.Load() {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.opened != nil {
		close(g.opened)
		g.opened = nil
		g.closed.Store(false)
	}
}

// pass waits until the gate opens, or it is time for a probe.
func (g *gate) pass(ctx context.Context) (probe bool) {
	if !g.closed.Load() {
		return false
	}
	g.mu.Lock()
	opened := g.opened
	g.mu.Unlock()
	if opened == nil {
		return false
	}
	t := time.NewTimer(probeEvery)
	defer t.Stop()
	select {
	case <-opened:
		return false
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
