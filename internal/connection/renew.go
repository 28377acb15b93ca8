package connection

import (
	"context"
	"fmt"
	"hash/fnv"
	"slices"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/keeper/act"
	"github.com/sallyport-mail/sallyport/internal/tenant"
)

const caretaker = tenant.Actor("system:renewal")

// renewAt is when an identity is renewed: at two thirds of its life, earlier
// by up to a twentieth so that those issued together are not renewed together,
// or when the issuer says, should that be sooner (RFC 9773).
func renewAt(i act.Identity) time.Time {
	life := i.NotAfter.Sub(i.NotBefore)
	h := fnv.New32a()
	h.Write([]byte(i.ID))
	at := i.NotBefore.Add(life*2/3 - time.Duration(float64(life)/20*float64(h.Sum32())/(1<<32)))
	if i.Announced != nil && i.Announced.Before(at) {
		return *i.Announced
	}
	return at
}

// overdue reports an identity whose renewal is late: a person should look.
func overdue(i act.Identity, now time.Time) bool {
	life, left := i.NotAfter.Sub(i.NotBefore), i.NotAfter.Sub(now)
	return left < min(life/3-life/20, 21*24*time.Hour)
}

// keepCare looks at all identities now and then.
func (r *Registry) keepCare(ctx context.Context) {
	t := time.NewTicker(careEvery)
	defer t.Stop()
	for {
		if err := r.Care(ctx); err != nil && ctx.Err() == nil {
			r.c.Log.Error("identities could not be looked at", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

// Care gives connections the identities that they lack, and begins renewals
// that are due. Run does it by itself.
func (r *Registry) Care(ctx context.Context) error {
	var first error
	late := []string{}
	for _, c := range r.List("") {
		e := r.entry(c.Tenant, c.Name)
		if e == nil || !e.hasIdentity() {
			continue
		}
		words, err := r.careOf(ctx, e)
		late = append(late, words...)
		if err != nil && first == nil {
			first = fmt.Errorf("connection %s of %s: %w", e.Name, e.Tenant, err)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	r.mu.Lock()
	r.late = late
	r.mu.Unlock()
	return first
}

// careOf looks after one connection, and says which of its identities are late.
func (r *Registry) careOf(ctx context.Context, e *entry) (late []string, err error) {
	_, all, err := r.identities(ctx, e)
	if err != nil {
		return nil, err
	}
	if begun, err := r.answerLost(ctx, e, all); err != nil || begun {
		return nil, err
	}
	due := false
	for _, purpose := range e.purposes() {
		i := active(all, purpose)
		if i == nil {
			return late, r.ensure(ctx, e, false)
		}
		due = due || !r.now().Before(renewAt(*i))
		if overdue(*i, r.now()) {
			late = append(late, fmt.Sprintf("%s of %s (%s) ends %s", e.Name, e.Tenant, purpose, i.NotAfter.UTC().Format(time.DateOnly)))
		}
	}
	if !due {
		r.lookForStandby(e, all)
		return late, nil
	}
	_, err = r.StartReplacement(ctx, caretaker, e.Tenant, e.Name, KindRenew)
	return late, err
}

// answerLost begins what a compromised identity asks for, where whoever had the
// keeper refuse it died before that was written down.
func (r *Registry) answerLost(ctx context.Context, e *entry, all []act.Identity) (begun bool, err error) {
	lost, err := r.unanswered(ctx, e, all)
	if err != nil || lost == nil {
		return false, err
	}
	if _, err := r.answer(ctx, custodian, e, *lost); err != nil {
		return false, err
	}
	r.kick()
	return true, nil
}

// Late are the connections whose identities should have been renewed, as Care
// last saw them, in words; for doctor and the alarm.
func (r *Registry) Late() []string {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return slices.Clone(r.late)
}

// Pending are the changes under way that wait for something, in words.
func (r *Registry) Pending(ctx context.Context) ([]string, error) {
	open, err := r.openReplacements(ctx)
	if err != nil {
		return nil, wrap("connection.Pending", err)
	}
	var words []string
	for _, p := range open {
		if p.Waiting != "" {
			words = append(words, fmt.Sprintf("%s of %s since %s: %s", p.Connection, p.Tenant, p.ChangedAt.UTC().Format(time.RFC3339), p.Waiting))
		}
	}
	return words, nil
}

// Rotate renews the identity's connection under the same name, or under the
// next one with epoch.
func (r *Registry) Rotate(ctx context.Context, a tenant.Actor, tenant, id string, epoch bool) (Replacement, error) {
	i, _, err := r.identity(ctx, "connection.Rotate", tenant, id)
	if err != nil {
		return Replacement{}, err
	}
	if i.State != act.Active {
		return Replacement{}, fault.New(fault.Conflict, "connection.Rotate", "identity "+i.ID+" is "+string(i.State)+", not active").
			WithHint("Rotate the active one: sallyport identity list.")
	}
	kind := KindRenew
	if epoch {
		kind = KindReplace
	}
	return r.StartReplacement(ctx, a, i.Tenant, i.Connection, kind)
}
