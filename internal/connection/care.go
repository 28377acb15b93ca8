package connection

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
)

const (
	careEvery   = time.Hour              // between two looks at all identities
	firstRest   = 200 * time.Millisecond // between two tries of a step that waits
	longestRest = 30 * time.Second
	stepTime    = 2 * time.Minute
)

// keyed is a lock for each connection.
type keyed struct {
	mu    sync.Mutex
	held  map[place]chan struct{}
	steps map[place]context.CancelFunc // the step under way, which gives way to who asks
}

// interruptible notes the step that holds a connection's lock.
func (b *keyed) interruptible(p place, cancel context.CancelFunc) (done func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.steps == nil {
		b.steps = map[place]context.CancelFunc{}
	}
	b.steps[p] = cancel
	return func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		delete(b.steps, p)
	}
}

// urgent is lock for who does not wait until a step under way is over: it is
// cut off, and done again later if need be.
func (b *keyed) urgent(ctx context.Context, p place) (unlock func(), err error) {
	b.mu.Lock()
	if cancel := b.steps[p]; cancel != nil {
		cancel()
	}
	b.mu.Unlock()
	return b.lock(ctx, p)
}

// lock waits for a connection's lock until ctx ends.
func (b *keyed) lock(ctx context.Context, p place) (unlock func(), err error) {
	for {
		b.mu.Lock()
		if b.held == nil {
			b.held = map[place]chan struct{}{}
		}
		done, taken := b.held[p]
		if !taken {
			done = make(chan struct{})
			b.held[p] = done
			b.mu.Unlock()
			return func() {
				b.mu.Lock()
				delete(b.held, p)
				b.mu.Unlock()
				close(done)
			}, nil
		}
		b.mu.Unlock()
		select {
		case <-done:
		case <-ctx.Done():
			return nil, fault.New(fault.Later, "", "the connection is being changed").WithHint("Try again in a moment.")
		}
	}
}

// kick has Run look for changes of identity at once.
func (r *Registry) kick() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// Run goes on with changes of identity that are under way, and renews what is
// about to end, until ctx ends.
func (r *Registry) Run(ctx context.Context) error {
	if r.c.Keepers == nil {
		<-ctx.Done()
		return nil
	}
	var all sync.WaitGroup
	defer all.Wait()
	all.Go(func() { r.keepCare(ctx) })
	all.Go(func() { r.keepStandbys(ctx) })
	var mu sync.Mutex
	driven := map[string]bool{}
	unreadyRest := firstRest
	for {
		rest := longestRest
		if r.finish(ctx) {
			unreadyRest = firstRest
		} else {
			rest = unreadyRest
			unreadyRest = min(2*unreadyRest, longestRest)
		}
		open, err := r.openReplacements(ctx)
		if err != nil && ctx.Err() == nil {
			r.c.Log.Error("changes of identity cannot be read", "error", err)
		}
		for _, p := range open {
			mu.Lock()
			busy := driven[p.ID]
			driven[p.ID] = true
			mu.Unlock()
			if busy {
				continue
			}
			all.Go(func() {
				r.drive(ctx, p.Tenant, p.Connection)
				mu.Lock()
				delete(driven, p.ID)
				mu.Unlock()
				if ctx.Err() == nil {
					r.kick() // another may have begun meanwhile
				}
			})
		}
		select {
		case <-ctx.Done():
			return nil
		case <-r.wake:
		case <-time.After(rest):
		}
	}
}

// drive goes through a connection's change until it is over or ctx ends. A
// step that waits or fails is tried again after a rest that grows.
func (r *Registry) drive(ctx context.Context, tenant, name string) {
	rest := firstRest
	for ctx.Err() == nil {
		before, over, err := r.step(ctx, tenant, name)
		if over {
			return
		}
		if err == nil {
			rest = firstRest
			continue
		}
		var w *waits
		if !errors.As(err, &w) && ctx.Err() == nil {
			r.c.Log.Warn("a change of identity does not go on", "tenant", tenant, "connection", name, "state", before, "error", err)
		}
		select {
		case <-ctx.Done():
		case <-r.hurry(place{tenant, name}):
			rest = firstRest
		case <-time.After(rest):
			rest = min(2*rest, longestRest)
		}
	}
}

// step does one step of a connection's change; over when there is none.
func (r *Registry) step(ctx context.Context, tenant, name string) (at ReplacementState, over bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, stepTime)
	defer cancel()
	unlock, err := r.busy.lock(ctx, place{tenant, name})
	if err != nil {
		return "", false, err
	}
	defer unlock()
	defer r.busy.interruptible(place{tenant, name}, cancel)()
	p, err := r.underWay(ctx, tenant, name)
	if err != nil || p == nil {
		return "", err == nil, err
	}
	e := r.entry(tenant, name)
	if e == nil {
		return p.State, false, r.advance(ctx, p, onGiveUp)
	}
	return p.State, false, r.stepOf(ctx, e, p)
}

func (r *Registry) stepOf(ctx context.Context, e *entry, p *Replacement) error {
	k, all, err := r.identities(ctx, e)
	if err != nil {
		return errors.Join(err, r.note(ctx, p, "waiting for the keeper: "+fault.Sentence(err), fault.HintOf(err)))
	}
	lost, err := r.unanswered(ctx, e, all)
	if err == nil && lost != nil {
		_, err = r.answerLocked(ctx, custodian, e, *lost)
		return err
	}
	if err != nil {
		return err
	}
	c := &change{Registry: r, e: e, k: k, all: all, p: p}
	if err := r.pause(p, "before"); err != nil {
		return err
	}
	on, err := c.step(ctx)
	if err != nil {
		var w *waits
		what, fix := "trying again: "+fault.Sentence(err), fault.HintOf(err)
		if errors.As(err, &w) {
			what, fix = w.what, w.fix
		}
		return errors.Join(err, r.note(context.WithoutCancel(ctx), p, what, fix))
	}
	if err := r.pause(p, "after"); err != nil {
		return err
	}
	return r.advance(ctx, p, on)
}

// pause is where tests stop a change as a kill would.
func (r *Registry) pause(p *Replacement, when string) error {
	if r.stop == nil {
		return nil
	}
	return r.stop(p.State, when)
}

// hurry is closed when the next try of a step need not be waited for.
func (r *Registry) hurry(p place) <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.hurried == nil {
		r.hurried = map[place]chan struct{}{}
	}
	if r.hurried[p] == nil {
		r.hurried[p] = make(chan struct{})
	}
	return r.hurried[p]
}

// Hurry has a change that waits try again at once: its partner has just been
// told.
func (r *Registry) Hurry(tenant, name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if done := r.hurried[place{tenant, name}]; done != nil {
		close(done)
		delete(r.hurried, place{tenant, name})
	}
}

// OnRetire names who holds connections with our identities: end ends the idle
// ones of a connection that show the certificate, and says how many carry a
// message, to end after it.
func (r *Registry) OnRetire(end func(tenant, connection, sha256 string) (left int)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.enders = append(r.enders, end)
}

// OnReturn names who is to know that an identity whose connections were ended
// is the active one again: a replacement was led back.
func (r *Registry) OnReturn(back func(sha256 string)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.returners = append(r.returners, back)
}

func (r *Registry) keepSessions(sha256 string) {
	r.mu.RLock()
	returners := r.returners
	r.mu.RUnlock()
	for _, back := range returners {
		back(sha256)
	}
}

func (r *Registry) endSessions(e *entry, sha256 string) (left int) {
	r.mu.RLock()
	enders := r.enders
	r.mu.RUnlock()
	for _, end := range enders {
		left += end(e.Tenant, e.Name, sha256)
	}
	return left
}
