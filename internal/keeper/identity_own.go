package keeper

import (
	"context"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/ledger"
)

// ownAct is an act that the keeper does by itself, asked by nobody.
type ownAct struct {
	name, tenant, connection, purpose, subject string
}

func (a ownAct) entry(outcome string) ledger.Entry {
	return ledger.Entry{Source: ledger.Witnessed, Actor: "keeper", Act: a.name, Tenant: a.tenant, Connection: a.connection,
		Subject: clip(a.subject), Purpose: a.purpose, Outcome: outcome}
}

// own does an act of the keeper's own between the same two entries as one that
// was asked for.
func (k *Keeper) own(ctx context.Context, a ownAct, do func(context.Context) error) error {
	if err := k.mayAct(); err != nil {
		return err
	}
	index, err := k.ledger.Append(ctx, a.entry(begun))
	if err != nil {
		return noEntry(err)
	}
	err = do(ctx)
	after := a.entry(carried)
	after.Of, after.Time = &index, k.now()
	if err != nil {
		after.Outcome = clip(failed + fault.Sentence(err))
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), outcomeTime)
	defer cancel()
	if _, e := k.ledger.Append(last, after); e != nil {
		k.c.Log.Error("keeper: an outcome was not entered", "act", a.name, "of", index, "error", e)
		k.out.add(after) // it is tried again
	}
	return err
}
