package keeper

import (
	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/keeper/act"
)

// step is a row of the table of an identity's life.
type step struct{ from, to act.IdentityState }

// life is the whole table; docs/states.md shows it. Staged may go back to
// issued, and retiring to active, as long as the partner accepts both: that is
// how a replacement is undone. Nothing leads back from retired or compromised.
func life() []step {
	return []step{
		{act.Wanted, act.Issued},
		{act.Wanted, act.Retired},
		{act.Issued, act.Staged},
		{act.Issued, act.Active}, // the first of a connection, and a renewal under the same name
		{act.Issued, act.Retired},
		{act.Staged, act.Issued},
		{act.Staged, act.Active},
		{act.Staged, act.Retired},
		{act.Active, act.Retiring},
		{act.Retiring, act.Active},
		{act.Retiring, act.Retired},
		{act.Active, act.Retired}, // the connection is released
		{act.Wanted, act.Compromised},
		{act.Issued, act.Compromised},
		{act.Staged, act.Compromised},
		{act.Active, act.Compromised},
		{act.Retiring, act.Compromised},
		{act.Retired, act.Compromised}, // what is learnt later
	}
}

// mayMove reports whether the table has a way.
func mayMove(from, to act.IdentityState) error {
	for _, s := range life() {
		if s.from == from && s.to == to {
			return nil
		}
	}
	return fault.New(fault.Conflict, "keeper.Move", "an identity that is "+string(from)+" does not become "+string(to)).
		WithHint("Look at its state first: identity show.")
}

// ended reports a state that nothing leads back from.
func ended(s act.IdentityState) bool { return s == act.Retired || s == act.Compromised }

// shown reports whether a partner may be shown an identity in that state.
func shown(s act.IdentityState) bool {
	return s == act.Staged || s == act.Active || s == act.Retiring
}
