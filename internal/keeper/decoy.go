package keeper

import (
	"context"
	"crypto/rand"
	"encoding/json"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/keeper/act"
	"github.com/sallyport-mail/sallyport/internal/keeper/operator"
	"github.com/sallyport-mail/sallyport/internal/keeper/seal"
	"github.com/sallyport-mail/sallyport/internal/keeper/wire"
	"github.com/sallyport-mail/sallyport/internal/store"
)

// notDecoy refuses a decoy, and raises the alarm: nothing legitimate uses one.
// The answer says nothing that a thief does not know.
func (k *Keeper) notDecoy(op string, dk *seal.DataKey, c credentialKey, r credentialRow) error {
	b, err := bindingOf(r.binding)
	if err != nil {
		return err
	}
	decoy, err := readMarker(dk, k.place(c, seal.Marker, b), r.marker)
	if err != nil || !decoy {
		return err
	}
	k.alarm(alarmDecoy, c.tenant, "the decoy "+c.String()+" was asked for: whoever did that has a list that was stolen, or is inside")
	return fault.New(fault.Denied, op, "the credential of "+c.tenant+"/"+c.connection+" is not given out").
		WithHint("Ask the keeper's operators.")
}

// plantDecoy makes a credential that nothing legitimate will ever use. It is
// bound and set as any other is, with the same two entries; its password comes
// back once, to be made known to the partner that shall tell of its use.
func (k *Keeper) plantDecoy(ctx context.Context, p wire.Peer, trace string, o operator.Order) (act.Ordered, error) {
	const op = "keeper.PlantDecoy"
	user := o.Parameters["user"]
	if kind := o.Parameters["kind"]; kind != "credential" || user == "" {
		return act.Ordered{}, fault.New(fault.Invalid, op, "a decoy is of the kind credential, and has a user").
			WithHint("Sign an order with the parameters tenant, connection, host, port, kind and user.")
	}
	c := credentialKey{o.Parameters["tenant"], o.Parameters["connection"], purposeAuth}
	b, err := orderedBinding(o)
	if err != nil {
		return act.Ordered{}, err
	}
	if c.tenant == "" || c.connection == "" {
		return act.Ordered{}, fault.New(fault.Invalid, op, "the order names no tenant and connection").WithHint("Sign one with both.")
	}
	about := act.Context{Region: k.c.Region, Tenant: c.tenant, Connection: c.connection, Purpose: "binding", Trace: trace}
	bound, err := json.Marshal(b)
	if err != nil {
		return act.Ordered{}, fault.Wrap(fault.Internal, op, err)
	}
	_, err = carryOut(ctx, k, task{peer: p, name: act.BindConnection, about: about}, func(ctx context.Context) (act.Done, error) {
		err := k.door.Change(ctx, func(tx store.KeeperTx) error {
			_, err := tx.Exec(insertBound, c.tenant, c.connection, string(bound), k.now().UnixMicro())
			return err
		})
		if fault.Is(err, fault.Conflict) {
			err = fault.New(fault.Conflict, op, "there is a connection of that name").WithHint("Name one that there is not.")
		}
		return act.Done{}, err
	})
	if err != nil {
		return act.Ordered{}, err
	}
	password := rand.Text()
	about.Purpose = c.purpose
	_, err = carryOut(ctx, k, task{peer: p, name: act.SetCredential, about: about}, func(ctx context.Context) (act.Done, error) {
		return act.Done{}, k.setCredential(ctx, c, act.Credential{User: user, Password: password}, true)
	})
	if err != nil {
		return act.Ordered{}, err
	}
	return act.Ordered{Text: "planted: let the partner know user and password, and tell of their use", Secret: password}, nil
}

// releaseDecoy takes one away again.
func (k *Keeper) releaseDecoy(ctx context.Context, p wire.Peer, trace string, o operator.Order) (act.Ordered, error) {
	const op = "keeper.ReleaseDecoy"
	c := credentialKey{o.Parameters["tenant"], o.Parameters["connection"], purposeAuth}
	about := act.Context{Region: k.c.Region, Tenant: c.tenant, Connection: c.connection, Purpose: "binding", Trace: trace}
	_, err := carryOut(ctx, k, task{peer: p, name: act.ReleaseConnection, about: about}, func(ctx context.Context) (act.Done, error) {
		r, err := k.credentialRow(ctx, op, c)
		if err != nil {
			return act.Done{}, err
		}
		dk, err := k.seals.key(ctx, c.tenant)
		if err != nil {
			return act.Done{}, err
		}
		b, err := bindingOf(r.binding)
		if err != nil {
			return act.Done{}, err
		}
		decoy, err := readMarker(dk, k.place(c, seal.Marker, b), r.marker)
		if err != nil {
			return act.Done{}, err
		}
		if !decoy {
			return act.Done{}, fault.New(fault.Conflict, op, "the credential is in use").WithHint("Remove it as any other.")
		}
		return act.Done{}, k.door.Change(ctx, func(tx store.KeeperTx) error {
			if _, err := tx.Exec(deleteCredential, c.tenant, c.connection, c.purpose); err != nil {
				return err
			}
			_, err := tx.Exec(deleteBound, c.tenant, c.connection)
			return err
		})
	})
	if err != nil {
		return act.Ordered{}, err
	}
	return act.Ordered{Text: "released"}, nil
}
