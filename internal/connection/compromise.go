package connection

import (
	"context"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/keeper/act"
	"github.com/sallyport-mail/sallyport/internal/tenant"
)

// repointTime is how long the caller of Compromise waits for the partner to be
// told; what is not done then goes on by itself.
const repointTime = 20 * time.Second

// Compromise ends the use of an identity at once: the keeper refuses it from
// then on, the connection gets the next epoch, and the partner is pointed at
// that one alone. What has to wait (for the partner, or his administrator) goes
// on by itself and stands in the answer.
func (r *Registry) Compromise(ctx context.Context, a tenant.Actor, tenant, id string) (Replacement, error) {
	const op = "connection.Compromise"
	i, k, err := r.identity(ctx, op, tenant, id)
	if err != nil {
		return Replacement{}, err
	}
	e := r.entry(i.Tenant, i.Connection)
	inUse := i.State == act.Active || i.State == act.Retiring || i.State == act.Staged || i.State == act.Compromised
	if e == nil || i.Purpose != PurposeClient && i.Purpose != PurposeApp || !inUse {
		// Nothing shows it: it is enough that nothing ever will.
		if i.State != act.Compromised {
			_, err = k.MoveIdentity(ctx, i, act.Compromised)
			r.wantStandby(place{i.Tenant, i.Connection}) // it may have been one
		}
		return Replacement{Tenant: i.Tenant, Connection: i.Connection, Kind: KindCompromise, State: Done, From: i.Name,
			Identities: []Pair{{Purpose: i.Purpose, From: i.ID, FromSHA: i.SHA256, FromName: i.Name, Epoch: i.Epoch}}, Steps: []ReplacementStep{}, Notes: []string{}, Refused: -1, DelayedMax: -1}, wrap(op, err)
	}
	if i.State == act.Compromised {
		all, err := k.ListIdentities(ctx, e.Tenant, e.Name)
		last, none := r.Replacement(ctx, e.Tenant, e.Name)
		if err != nil || none == nil && active(all, i.Purpose) != nil && last.State.ended() {
			return last, wrap(op, err)
		}
	}
	// The refusal waits for nothing; what follows from it is written down next.
	var refused error
	if i.State != act.Compromised {
		_, refused = k.MoveIdentity(ctx, i, act.Compromised)
		r.forget(e)
	}
	p, err := r.startCompromise(ctx, a, e, i, refused)
	if err != nil {
		return Replacement{}, wrap(op, err)
	}
	open := r.shut(place{e.Tenant, e.Name})
	defer open()
	limit, cancel := context.WithTimeout(ctx, repointTime)
	defer cancel()
	for limit.Err() == nil {
		_, over, err := r.step(limit, e.Tenant, e.Name)
		if over || err != nil {
			break
		}
	}
	r.kick()
	if last, err := r.Replacement(context.WithoutCancel(ctx), e.Tenant, e.Name); err == nil {
		p = last
	}
	return p, nil
}

// startCompromise writes down what is to be done, taking over a change that is
// under way. refused is why the keeper does not refuse the identity yet.
func (r *Registry) startCompromise(ctx context.Context, a tenant.Actor, e *entry, i act.Identity, refused error) (Replacement, error) {
	unlock, err := r.busy.urgent(ctx, place{e.Tenant, e.Name})
	if err != nil {
		return Replacement{}, err
	}
	defer unlock()
	open, err := r.underWay(ctx, e.Tenant, e.Name)
	if err != nil {
		return Replacement{}, err
	}
	if open != nil {
		if pair := open.pair(i.Purpose); open.Kind == KindCompromise && pair != nil && pair.From == i.ID {
			return *open, nil
		}
		open.Notes = append(open.Notes, "It was given up: identity "+i.ID+" is compromised.")
		if err := r.advance(ctx, open, onGiveUp); err != nil {
			return Replacement{}, err
		}
	}
	p := r.newReplacement(a, e, KindCompromise)
	p.add(i)
	if err := r.insertReplacement(ctx, a, &p); err != nil {
		return Replacement{}, err
	}
	if refused != nil {
		r.kick()
		return p, (&fault.Error{Kind: fault.KindOf(refused), Op: "", Err: refused}).WithHint("It will be done as soon as the keeper answers: see that it runs.")
	}
	r.endSessions(e, i.SHA256)
	return p, nil
}

// shut has new connections by this one wait until open is called: between two
// identities mail would be refused for nothing.
func (r *Registry) shut(p place) (open func()) {
	done := make(chan struct{})
	r.mu.Lock()
	if r.shutters == nil {
		r.shutters = map[place]chan struct{}{}
	}
	r.shutters[p] = done
	r.mu.Unlock()
	return func() {
		r.mu.Lock()
		if r.shutters[p] == done {
			delete(r.shutters, p)
		}
		r.mu.Unlock()
		close(done)
	}
}

// passes waits while a connection is shut, until ctx ends.
func (r *Registry) passes(ctx context.Context, p place) {
	r.mu.RLock()
	done := r.shutters[p]
	r.mu.RUnlock()
	if done == nil {
		return
	}
	select {
	case <-done:
	case <-ctx.Done():
	}
}
