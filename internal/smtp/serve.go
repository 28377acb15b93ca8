package smtp

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Server serves any number of listeners with one Backend.
type Server struct {
	Backend Backend
	Log     *slog.Logger
	Now     func() time.Time

	once     sync.Once
	pool     *sync.Pool // of *buffer
	ctx      context.Context
	cancel   context.CancelFunc
	stopping atomic.Bool
	mu       sync.Mutex
	doors    map[*door]struct{}
	ended    map[string]struct{} // SHA-256 of our certificates that no connection may go on with
	dialogs  sync.WaitGroup
	hands    hands
}

// Waits of the accept loop when the system has no descriptors left.
const (
	acceptPause    = 5 * time.Millisecond
	maxAcceptPause = time.Second
)

func (s *Server) start() {
	s.once.Do(func() {
		s.pool = newBufferPool()
		s.ctx, s.cancel = context.WithCancel(context.Background())
		s.hands.waiting, s.hands.end = make(chan *dialog), s.ctx.Done()
		s.doors = make(map[*door]struct{})
		s.ended = make(map[string]struct{})
		if s.Now == nil {
			s.Now = time.Now
		}
		if s.Log == nil {
			s.Log = slog.New(slog.DiscardHandler)
		}
	})
}

// Serve accepts connections on l until it is closed or Shutdown is called.
// Then it returns nil; connections that are open go on.
func (s *Server) Serve(l net.Listener, rules Listener) error {
	s.start()
	d := newDoor(s, l, rules)
	if !s.add(d) {
		return l.Close()
	}
	defer s.remove(d)
	pause := acceptPause
	for {
		nc, err := l.Accept()
		if err == nil {
			pause = acceptPause
			d.admit(nc)
			continue
		}
		if s.stopping.Load() || errors.Is(err, net.ErrClosed) {
			return nil
		}
		if !isTemporary(err) {
			return err
		}
		// Out of descriptors, most likely: make room, and wait for it.
		s.Log.Warn("accept failed", "listener", rules.Name, "error", err)
		d.evict()
		d.wait(pause)
		pause = min(2*pause, maxAcceptPause)
	}
}

// Listen listens as suits this room: without keep-alive probes, which cost four
// system calls a connection and tell nothing that the timeouts do not.
func Listen(ctx context.Context, network, address string) (net.Listener, error) {
	config := net.ListenConfig{KeepAlive: -1}
	return config.Listen(ctx, network, address)
}

// isTemporary reports errors of accept that pass: no descriptors or memory
// left, a connection that was reset before it was accepted.
func isTemporary(err error) bool {
	var t interface{ Temporary() bool }
	return errors.As(err, &t) && t.Temporary()
}

func (s *Server) add(d *door) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopping.Load() {
		return false
	}
	s.doors[d] = struct{}{}
	return true
}

// remove forgets a door that accepts no more. Its connections are known to
// Shutdown until they end.
func (s *Server) remove(d *door) {
	d.mu.Lock()
	d.closed = true
	empty := d.count == 0
	d.mu.Unlock()
	if empty {
		s.forget(d)
	}
}

func (s *Server) forget(d *door) {
	s.mu.Lock()
	delete(s.doors, d)
	s.mu.Unlock()
}

// Shutdown stops accepting, lets sessions that are in DATA or BDAT finish
// until ctx ends, tells the others 421 4.3.2 and closes them.
func (s *Server) Shutdown(ctx context.Context) error {
	s.start()
	s.mu.Lock()
	s.stopping.Store(true)
	open := make([]*door, 0, len(s.doors))
	for d := range s.doors {
		open = append(open, d)
	}
	s.mu.Unlock()
	for _, d := range open {
		_ = d.listener.Close() // its error would be that it is closed
		d.each((*dialog).wake)
	}
	done := make(chan struct{})
	go func() {
		s.dialogs.Wait()
		close(done)
	}()
	select {
	case <-done:
		s.cancel()
		return nil
	case <-ctx.Done():
	}
	s.cancel()
	for _, d := range open {
		d.each((*dialog).abort)
	}
	return ctx.Err()
}
