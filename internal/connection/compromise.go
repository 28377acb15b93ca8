package connection

import (
	"context"
	"slices"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/keeper/act"
	"github.com/sallyport-mail/sallyport/internal/store"
	"github.com/sallyport-mail/sallyport/internal/tenant"
)

// repointTime is how long the caller of Compromise waits for the partner to be
// told; what is not done then goes on by itself.
const repointTime = 20 * time.Second

// custodian acts for changes that answer a compromise which nobody has recorded.
const custodian = tenant.Actor("system:custody")

// Compromise ends the use of an identity at once: the keeper refuses it from
// then on, and the partner is pointed at another one alone: at the active one
// where that is good, else at the next epoch. What has to wait (for the partner,
// or his administrator) goes on by itself and stands in the answer.
func (r *Registry) Compromise(ctx context.Context, a tenant.Actor, tenant, id string) (Replacement, error) {
	const op = "connection.Compromise"
	i, k, err := r.identity(ctx, op, tenant, id)
	if err != nil {
		return Replacement{}, err
	}
	// The refusal waits for nothing; what follows from it is written down next,
	// or by the next look at the identities should we die in between.
	var refused error
	if i.State != act.Compromised {
		_, refused = k.MoveIdentity(ctx, i, act.Compromised)
	}
	e := r.entry(i.Tenant, i.Connection)
	if e == nil || i.Purpose != PurposeClient && i.Purpose != PurposeApp {
		return standing(i), wrap(op, refused)
	}
	r.forget(e)
	p, err := r.answer(ctx, a, e, i)
	if err != nil {
		return Replacement{}, wrap(op, err)
	}
	if refused != nil {
		r.kick()
		return Replacement{}, wrap(op, (&fault.Error{Kind: fault.KindOf(refused), Op: "", Err: refused}).WithHint("It is done as soon as the keeper lets it. "+fault.HintOf(refused)))
	}
	if !p.State.ended() {
		p = r.repointNow(ctx, e, p)
	}
	return p, nil
}

// standing is the answer for an identity that no connection of ours shows: it
// is enough that nothing ever will.
func standing(i act.Identity) Replacement {
	p := Replacement{Tenant: i.Tenant, Connection: i.Connection, Kind: KindCompromise, State: Done, Identities: []Pair{},
		Steps: []ReplacementStep{}, Notes: []string{}, Refused: -1, DelayedMax: -1}
	p.add(i)
	p.From = i.Name
	return p
}

// repointNow goes on with a change as far as that is possible without waiting.
// New connections wait meanwhile: between two identities mail would be refused
// for nothing.
func (r *Registry) repointNow(ctx context.Context, e *entry, p Replacement) Replacement {
	at := place{e.Tenant, e.Name}
	if p.pair(PurposeClient) != nil {
		r.shut(at, repointTime)
	}
	limit, cancel := context.WithTimeout(ctx, repointTime)
	defer cancel()
	for limit.Err() == nil {
		if _, over, err := r.step(limit, e.Tenant, e.Name); over || err != nil {
			break
		}
	}
	r.kick()
	if last, err := r.Replacement(context.WithoutCancel(ctx), e.Tenant, e.Name); err == nil {
		return last
	}
	return p
}

// answer writes down what is to be done about a compromised identity, taking
// over the change that is under way. One that was answered before stays so.
func (r *Registry) answer(ctx context.Context, a tenant.Actor, e *entry, i act.Identity) (Replacement, error) {
	unlock, err := r.busy.urgent(ctx, place{e.Tenant, e.Name})
	if err != nil {
		return Replacement{}, err
	}
	defer unlock()
	return r.answerLocked(ctx, a, e, i)
}

func (r *Registry) answerLocked(ctx context.Context, a tenant.Actor, e *entry, i act.Identity) (Replacement, error) {
	answers, err := r.compromises(ctx, e)
	if err != nil {
		return Replacement{}, err
	}
	if had := answerTo(answers, i.ID); had != nil {
		err := r.c.DB.For(e.Tenant).Change(ctx, func(tx store.TenantTx) error {
			return tx.Audit(r.event(a, "connection.compromise.again", e.Tenant, e.Name, had.ID)) // whoever was first, this one asked too
		})
		if err != nil {
			return Replacement{}, err
		}
		if last := answers[len(answers)-1]; !last.State.ended() || had.State == Failed {
			return last, nil // which has taken it over
		}
		return *had, nil
	}
	open, err := r.underWay(ctx, e.Tenant, e.Name)
	if err != nil {
		return Replacement{}, err
	}
	p := r.newReplacement(a, e, KindCompromise)
	p.add(i)
	switch {
	case r.hidden(ctx, e, i, open):
		p.end(r.now())
		p.Notes = append(p.Notes, "No partner was ever told of it: nothing is changed there.")
		open = nil // it goes on
	case open != nil:
		p.takeOver(open)
		open.Notes = append(open.Notes, "It was given up: identity "+i.ID+" is compromised. What it had begun goes on with that.")
	}
	if err := r.insertReplacement(ctx, a, &p, open); err != nil {
		return Replacement{}, err
	}
	r.endSessions(e, i.SHA256)
	r.wantStandby(place{e.Tenant, e.Name}) // it may have been one
	return p, nil
}

// end makes a change that has nothing to do one that is done.
func (p *Replacement) end(now time.Time) {
	p.State = Done
	p.Steps = append(p.Steps, ReplacementStep{Done, now})
}

// takeOver goes on with what another change has begun, so that none of its
// purposes stays half changed. One that was to be undone is led back.
func (p *Replacement) takeOver(open *Replacement) {
	for _, pair := range open.Identities {
		if open.State == Undoing {
			pair = pair.back()
		}
		if mine := p.pair(pair.Purpose); mine != nil {
			if pair.To != mine.From {
				mine.To = pair.To
			}
			continue
		}
		answers := open.Kind == KindCompromise && !pair.Taken
		if pair.To == "" && !answers {
			continue // nothing had begun
		}
		pair.Taken = !answers
		if pair.Purpose == PurposeClient {
			p.From = pair.FromName
		}
		p.Identities = append(p.Identities, pair)
	}
}

// back is the way from the new identity to the one before.
func (p Pair) back() Pair {
	p.From, p.FromSHA, p.FromName, p.To, p.ToSHA, p.ToName = p.To, p.ToSHA, p.ToName, p.From, p.FromSHA, p.FromName
	return p
}

// hidden reports an identity that no partner was told of: a standby, of which
// no change under way has made use. i is as it was before it was compromised.
func (r *Registry) hidden(ctx context.Context, e *entry, i act.Identity, open *Replacement) bool {
	if i.State != act.Issued && i.State != act.Wanted || open != nil && open.names(i.ID) {
		return false
	}
	_, all, err := r.identities(ctx, e)
	now, shown := byID(all, i.ID), active(all, i.Purpose)
	return err == nil && now != nil && now.State == act.Compromised && shown != nil && shown.Epoch != i.Epoch
}

// names reports whether a change is from or to an identity.
func (p *Replacement) names(id string) bool {
	return slices.ContainsFunc(p.Identities, func(pair Pair) bool { return pair.From == id || pair.To == id })
}

// compromises are a connection's changes because of compromised identities, in
// order of time.
func (r *Registry) compromises(ctx context.Context, e *entry) ([]Replacement, error) {
	rows, err := r.c.DB.For(e.Tenant).Query(ctx, allReplacements, e.Name)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var all []Replacement
	for rows.Next() {
		p, err := r.readReplacement(rows)
		if err != nil {
			return nil, err
		}
		if p.Kind == KindCompromise {
			all = append(all, *p)
		}
	}
	return all, store.Fault("", rows.Err())
}

// answerTo is the change that answers the compromise of an identity.
func answerTo(answers []Replacement, id string) *Replacement {
	for n := range answers {
		for _, pair := range answers[n].Identities {
			if pair.From == id && !pair.Taken {
				return &answers[n]
			}
		}
	}
	return nil
}

// unanswered is a compromised identity about which nothing was written down,
// nil for none: whoever had the keeper refuse it died right after.
func (r *Registry) unanswered(ctx context.Context, e *entry, all []act.Identity) (*act.Identity, error) {
	lost := compromised(all)
	if len(lost) == 0 {
		return nil, nil
	}
	answers, err := r.compromises(ctx, e)
	for n := range lost {
		if err == nil && answerTo(answers, lost[n].ID) == nil {
			return &lost[n], nil
		}
	}
	return nil, err
}

// compromised are the identities that partners are to refuse.
func compromised(all []act.Identity) []act.Identity {
	return slices.DeleteFunc(slices.Clone(all), func(i act.Identity) bool {
		return i.State != act.Compromised || i.Purpose != PurposeClient && i.Purpose != PurposeApp
	})
}

// inherit writes down that what was compromised before a connection was added
// was an earlier one's of the same name: nothing is to be done about it here.
func (r *Registry) inherit(ctx context.Context, e *entry, have []act.Identity) error {
	old := compromised(have)
	if len(old) == 0 {
		return nil
	}
	p := r.newReplacement(custodian, e, KindCompromise)
	for _, i := range old {
		p.add(i)
	}
	p.end(r.now())
	p.Notes = append(p.Notes, "They were an earlier connection's of this name.")
	return r.insertReplacement(ctx, custodian, &p, nil)
}

// shutter keeps new connections by one of ours waiting.
type shutter struct{ done chan struct{} }

// shut has new connections by this one wait until unshut, for so long at most.
func (r *Registry) shut(p place, limit time.Duration) {
	s := &shutter{make(chan struct{})}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.shutters == nil {
		r.shutters = map[place]*shutter{}
	}
	if before := r.shutters[p]; before != nil {
		close(before.done)
	}
	r.shutters[p] = s
	time.AfterFunc(limit, func() { r.unshutOnly(p, s) })
}

// unshut lets them go on.
func (r *Registry) unshut(p place) { r.unshutOnly(p, nil) }

// unshutOnly is unshut where the shutter is that one, or any for nil.
func (r *Registry) unshutOnly(p place, only *shutter) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s := r.shutters[p]; s != nil && (only == nil || s == only) {
		close(s.done)
		delete(r.shutters, p)
	}
}

// passes waits while a connection is shut, until ctx ends.
func (r *Registry) passes(ctx context.Context, p place) {
	for ctx.Err() == nil {
		r.mu.RLock()
		s := r.shutters[p]
		r.mu.RUnlock()
		if s == nil {
			return
		}
		select {
		case <-s.done:
		case <-ctx.Done():
		}
	}
}
