package custodian

import (
	"context"
	"slices"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/keeper/act"
)

// moves are the keeper's table (internal/keeper/state.go).
func moves() map[act.IdentityState][]act.IdentityState {
	return map[act.IdentityState][]act.IdentityState{
		act.Wanted:   {act.Retired, act.Compromised},
		act.Issued:   {act.Staged, act.Active, act.Retired, act.Compromised},
		act.Staged:   {act.Issued, act.Active, act.Retired, act.Compromised},
		act.Active:   {act.Retiring, act.Retired, act.Compromised},
		act.Retiring: {act.Active, act.Retired, act.Compromised},
		act.Retired:  {act.Compromised},
	}
}

// MoveIdentity is of connection.Keeper.
func (c *Keeper) MoveIdentity(_ context.Context, of act.Identity, to act.IdentityState) (act.Identity, error) {
	unlock, err := c.lock()
	if err != nil {
		return act.Identity{}, err
	}
	defer unlock()
	h, err := c.find(of.ID)
	if err != nil {
		return act.Identity{}, err
	}
	if !slices.Contains(moves()[h.State], to) {
		return act.Identity{}, fault.New(fault.Conflict, "keeper", "an identity that is "+string(h.State)+" does not become "+string(to))
	}
	err = c.move(h, to)
	return h.Identity, err
}

// move holds the two gates, and has the active one give way.
func (c *Keeper) move(h *Held, to act.IdentityState) error {
	others := c.shownBeside(h)
	if isShown(to) && len(others) > 1 {
		return fault.New(fault.Conflict, "keeper", "a partner would be shown three identities, and it is two at most")
	}
	if h.Apart && isShown(to) {
		if c.awayWhy != "" {
			return fault.New(fault.Later, "keeper", c.awayWhy)
		}
		h.Apart = false
	}
	for _, o := range others {
		if to == act.Active && o.State == act.Active {
			o.State = act.Retiring
		}
	}
	h.State = to
	return nil
}

func isShown(s act.IdentityState) bool {
	return s == act.Staged || s == act.Active || s == act.Retiring
}

// shownBeside are the other identities of a place that a partner may be shown.
func (c *Keeper) shownBeside(h *Held) (others []*Held) {
	for _, o := range c.all {
		if o != h && o.Tenant == h.Tenant && o.Connection == h.Connection && o.Purpose == h.Purpose && isShown(o.State) {
			others = append(others, o)
		}
	}
	return others
}
