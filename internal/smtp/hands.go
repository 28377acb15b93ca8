package smtp

import (
	"sync/atomic"
	"time"
)

// hands are the goroutines that serve dialogs. One that has ended its dialog
// waits a while for another: its stack has grown to what a dialog needs, and a
// new one would be copied three times on the way there.
type hands struct {
	waiting chan *dialog
	end     <-chan struct{} // the server was shut down
	resting atomic.Int32
}

const (
	mostResting = 64
	restFor     = time.Second
)

// give has c served by a hand that rests, or by a new one.
func (h *hands) give(c *dialog) {
	select {
	case h.waiting <- c:
	default:
		go h.work(c)
	}
}

func (h *hands) work(c *dialog) {
	for c != nil {
		c.serve()
		c = h.rest()
	}
}

// rest waits for the next dialog; nil when none came, or enough others wait.
func (h *hands) rest() *dialog {
	defer h.resting.Add(-1)
	if h.resting.Add(1) > mostResting {
		return nil
	}
	t := time.NewTimer(restFor)
	defer t.Stop()
	select {
	case c := <-h.waiting:
		return c
	case <-t.C:
		return nil
	case <-h.end:
		return nil
	}
}
