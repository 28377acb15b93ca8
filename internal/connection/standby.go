package connection

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/keeper/act"
)

// pace is how standbys are spread over quiet time, by the clock that no jump
// of the time of day moves.
type pace struct {
	rest   time.Duration // between two connections of a region, half to one and a half of it
	settle time.Duration // after a connection was added
	public time.Duration // between two of a region that a public authority issues
}

// quietPace leaves a public authority's fifty certificates a domain and week to
// those who need one now: a region's standbys take 21 of them.
func quietPace() pace { return pace{15 * time.Second, 10 * time.Minute, 8 * time.Hour} }

// standbys are the connections that want one.
type standbys struct {
	pace pace
	mu   sync.Mutex
	due  map[place]bool
	next map[Keeper]time.Time // when a region's public authority may be asked
}

// wantStandby has a connection's standbys looked at in quiet time.
func (r *Registry) wantStandby(p place) {
	r.standby.mu.Lock()
	defer r.standby.mu.Unlock()
	if r.standby.due == nil {
		r.standby.due = map[place]bool{}
	}
	r.standby.due[p] = true
}

// keepStandbys gives one connection of each region its standbys at a time,
// with rests between, until ctx ends.
func (r *Registry) keepStandbys(ctx context.Context) {
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
			return
		case <-time.After(r.standby.pace.rest/2 + rand.N(r.standby.pace.rest)):
		}
		var all sync.WaitGroup
		for _, e := range r.takeStandbys(time.Now()) {
			all.Go(func() {
				if err := r.standbyOf(ctx, e); err != nil && ctx.Err() == nil {
					r.c.Log.Warn("a connection has no standby identity yet", "tenant", e.Tenant, "connection", e.Name, "error", err)
				}
			})
		}
		all.Wait()
	}
}

// takeStandbys are the connections to look at now, one of each region. Who
// looks in vain is named again by the next Care.
func (r *Registry) takeStandbys(now time.Time) map[Keeper]*entry {
	r.standby.mu.Lock()
	defer r.standby.mu.Unlock()
	if r.standby.next == nil {
		r.standby.next = map[Keeper]time.Time{}
	}
	found := map[Keeper]*entry{}
	for p := range r.standby.due { // in no order, so that no tenant is always last
		e := r.entry(p.tenant, p.name)
		if e == nil || !e.hasIdentity() {
			delete(r.standby.due, p)
			continue
		}
		k, err := r.c.Keepers(e.Tenant)
		if err != nil || found[k] != nil || !r.settled(e) {
			continue
		}
		if e.public() {
			if _, known := r.standby.next[k]; !known { // a restart does not shorten the rest
				r.standby.next[k] = now.Add(r.standby.pace.public)
			}
			if now.Before(r.standby.next[k]) {
				continue
			}
			r.standby.next[k] = now.Add(r.standby.pace.public)
		}
		found[k] = e
		delete(r.standby.due, p)
	}
	return found
}

// public reports whether a public authority issues for a connection.
func (e *entry) public() bool { return e.Issuer != "" && e.Issuer != "builtin" }

// settled reports that a connection was not added just now. One from the
// future was added before the clock went back.
func (r *Registry) settled(e *entry) bool {
	age := r.now().Sub(e.CreatedAt)
	return age < 0 || age >= r.standby.pace.settle
}

// standbyOf gives a connection the standbys that it lacks. A change of the
// connection comes first, also before one that has begun here.
func (r *Registry) standbyOf(ctx context.Context, e *entry) error {
	ctx, cancel := context.WithTimeout(ctx, stepTime)
	defer cancel()
	at := place{e.Tenant, e.Name}
	unlock, err := r.busy.lock(ctx, at)
	if err != nil {
		return err
	}
	defer unlock()
	defer r.busy.interruptible(at, cancel)()
	if p, err := r.underWay(ctx, e.Tenant, e.Name); err != nil || p != nil {
		return err // its end asks for standbys again
	}
	k, all, err := r.identities(ctx, e)
	for _, purpose := range e.purposes() {
		if err == nil {
			err = r.tendStandby(ctx, k, e, purpose, all)
		}
	}
	return err
}

func (r *Registry) tendStandby(ctx context.Context, k Keeper, e *entry, purpose string, all []act.Identity) error {
	plan := planStandby(ofPurpose(all, purpose), r.now(), r.c.Standby)
	if err := r.untell(ctx, k, e, all, plan); err != nil {
		return err
	}
	if err := endAll(ctx, k, plan.spare); err != nil || plan.issue == nil {
		return err
	}
	if why, err := standbysAway(ctx, k); err != nil || why != "" {
		return err // people are told by the keeper; the next Care asks again
	}
	plan.issue.Issuer, plan.issue.Standby = e.issuerOf(purpose), true
	made, err := k.IssueIdentity(ctx, e.Tenant, e.Name, purpose, *plan.issue)
	if err != nil || made.State != act.Issued || plan.old == nil {
		return err
	}
	return endAll(ctx, k, []act.Identity{*plan.old})
}

// standbysAway is "", or why a keeper neither makes nor uses standbys now.
func standbysAway(ctx context.Context, k Keeper) (string, error) {
	s, err := k.Status(ctx)
	return s.StandbyAway, err
}

// ready is what follows and can be used now, nil for none.
func (c *change) ready(ctx context.Context, p Pair) (*act.Identity, error) {
	for {
		next := c.follows(p)
		if next == nil || !next.Apart {
			return next, nil
		}
		usable, err := c.takeOut(ctx, next)
		if err != nil || usable {
			return next, err
		}
		if c.unready == nil {
			c.unready = map[string]bool{}
		}
		c.unready[next.ID] = true
	}
}

// takeOut stages a standby that lies apart; false when the keeper can't open it
// now. A keeper that is away itself says so to what follows.
func (c *change) takeOut(ctx context.Context, i *act.Identity) (bool, error) {
	if i.State == act.Wanted { // its key signs the request for the certificate
		why, err := standbysAway(ctx, c.k)
		return why == "", err
	}
	err := c.move(ctx, i.ID, act.Staged)
	if fault.Is(err, fault.Later) && ctx.Err() == nil {
		c.c.Log.Warn("a standby can't be used now, so a new identity is asked for", "tenant", c.e.Tenant, "connection", c.e.Name, "identity", i.ID, "error", err)
		return false, nil
	}
	return err == nil, err
}

// untell has Microsoft take the active identity alone, where changes that were
// given up had told it of another. Other partners are told by people.
func (r *Registry) untell(ctx context.Context, k Keeper, e *entry, all []act.Identity, plan standbyPlan) error {
	told := slices.DeleteFunc(slices.Clone(plan.spare), func(i act.Identity) bool { return i.State != act.Staged && i.State != act.Retiring })
	if e.Kind != KindM365 || len(told) == 0 {
		return nil
	}
	const op = "connection.Standby"
	m, err := r.microsoft(op, e)
	if err != nil {
		return err
	}
	if told[0].Purpose == PurposeApp {
		for _, i := range told {
			if err := m.dropKey(ctx, plan.shown.ID, i.Chain[0]); err != nil {
				return err
			}
		}
		return nil
	}
	c := &change{Registry: r, e: e, k: k, all: all, p: &Replacement{}}
	_, err = c.admit(ctx, m, plan.shown.Name)
	return err
}

func endAll(ctx context.Context, k Keeper, list []act.Identity) error {
	for _, i := range list {
		if _, err := k.MoveIdentity(ctx, i, act.Retired); err != nil {
			return err
		}
	}
	return nil
}

// standbyPlan is what a connection's standby of one purpose needs.
type standbyPlan struct {
	shown *act.Identity  // the active one
	spare []act.Identity // to be retired: no change will use them
	issue *act.Issue     // to be issued; nil for nothing
	old   *act.Identity  // to be retired once that is there
}

// leaveFree are the identities beyond which no standby is made, so that a
// renewal fits in the four that the keeper allows.
const leaveFree = 3

// planStandby is for the identities of one purpose while no change is under
// way. Beside the active one it keeps, of those that are not shown, the one of a
// later epoch that lasts longest; others were left by changes that were given
// up. It issues where a standby is wanted.
func planStandby(mine []act.Identity, now time.Time, wanted bool) (p standbyPlan) {
	if p.shown = pick(mine, act.Active); p.shown == nil {
		return p
	}
	var best, coming *act.Identity
	newest, unended := uint64(0), 0
	for n := range mine {
		i := &mine[n]
		newest = max(newest, i.Epoch)
		if i.State == act.Retired || i.State == act.Compromised {
			continue
		}
		unended++
		hidden := i.State == act.Issued || i.State == act.Wanted
		switch fits := hidden && i.Epoch > p.shown.Epoch && !tainted(mine, i.Epoch); {
		case i.ID == p.shown.ID:
		case !fits:
			p.spare = append(p.spare, *i)
		case i.State == act.Wanted:
			coming = i
		case best == nil:
			best = i
		case i.NotAfter.After(best.NotAfter):
			p.spare = append(p.spare, *best)
			best = i
		default:
			p.spare = append(p.spare, *i)
		}
	}
	if !wanted || best != nil && !ageing(*best, now) || coming != nil || unended-len(p.spare) >= leaveFree {
		return p
	}
	p.old, p.issue = best, &act.Issue{Epoch: newest + 1}
	if best != nil {
		p.issue = &act.Issue{Renew: best.Epoch}
	}
	return p
}

// empty reports that nothing is to be done.
func (p standbyPlan) empty() bool { return len(p.spare) == 0 && p.issue == nil }

// ageing reports an identity with less than a third of its life left, or one
// that does not count yet: it was made while the clock was ahead.
func ageing(i act.Identity, now time.Time) bool {
	return !counts(i, now) || i.NotAfter.Sub(now) < i.NotAfter.Sub(i.NotBefore)/3
}

// counts reports a certificate that is in its time.
func counts(i act.Identity, now time.Time) bool {
	return !now.Before(i.NotBefore) && now.Before(i.NotAfter)
}

// tainted reports that an identity of an epoch is compromised. Partners match
// the name, which is the epoch's, so that none of it is used any more.
func tainted(mine []act.Identity, epoch uint64) bool {
	for _, i := range mine {
		if i.Epoch == epoch && i.State == act.Compromised {
			return true
		}
	}
	return false
}

// lookForStandby notes a connection whose standbys need something.
func (r *Registry) lookForStandby(e *entry, all []act.Identity) {
	for _, purpose := range e.purposes() {
		if !planStandby(ofPurpose(all, purpose), r.now(), r.c.Standby).empty() {
			r.wantStandby(place{e.Tenant, e.Name})
		}
	}
}
