package keeper

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/keeper/act"
	"github.com/sallyport-mail/sallyport/internal/keeper/operator"
	"github.com/sallyport-mail/sallyport/internal/keeper/wire"
	"github.com/sallyport-mail/sallyport/internal/store"
)

// nonces are the orders that were carried out.
type nonces struct{ door store.KeeperDoor }

// nonceRest is how long a nonce stays after its order has ended: longer than a
// clock may jump ahead and back.
const nonceRest = 30 * 24 * time.Hour

// Spend is of operator.Nonces.
func (n nonces) Spend(ctx context.Context, nonce [16]byte, notAfter time.Time) error {
	err := n.door.Change(ctx, func(tx store.KeeperTx) error {
		if _, err := tx.Exec(sweepNonces, notAfter.Add(-nonceRest).UnixMicro()); err != nil {
			return err
		}
		_, err := tx.Exec(insertNonce, hex.EncodeToString(nonce[:]), notAfter.UnixMicro())
		return err
	})
	if fault.Is(err, fault.Conflict) {
		return fault.New(fault.Conflict, "keeper.Spend", "the order was carried out already").WithHint("Sign a new one.")
	}
	return err
}

func (k *Keeper) openOrders(context.Context) error {
	var err error
	k.orders, err = operator.NewVerifier(operator.Config{Region: k.c.Region, Operators: k.c.Operators, Nonces: nonces{k.door}, Now: k.c.Now})
	return err
}

// Order is of wire.Acts. There are two entries before an order is carried out:
// that it was handed in, and then, when it counts, who signed it.
func (k *Keeper) Order(ctx context.Context, p wire.Peer, q act.SignedOrder) (act.Ordered, error) {
	const op = "keeper.Order"
	if err := k.readable(op); err != nil {
		return act.Ordered{}, err
	}
	o, err := operator.Read(q.Order)
	subject := "what is no order"
	if err == nil {
		subject = told(o)
	}
	return carryOut(ctx, k, task{peer: p, name: act.Order, about: q.Context, subject: clip(subject), whenFrozen: true}, func(ctx context.Context) (act.Ordered, error) {
		if err != nil {
			return act.Ordered{}, err
		}
		if err := k.mayOrder(o); err != nil {
			return act.Ordered{}, err
		}
		v, err := k.orders.Verify(ctx, q.Order)
		if fault.Is(err, fault.Conflict) { // somebody hands in an old one
			return act.Ordered{}, (&fault.Error{Kind: fault.Denied, Op: op, Err: errors.New(fault.Sentence(err))}).WithHint(fault.HintOf(err))
		}
		if err != nil {
			return act.Ordered{}, err
		}
		return k.ordered(ctx, p, q.Trace, v)
	})
}

// mayOrder lets a frozen keeper take those orders alone that end it.
func (k *Keeper) mayOrder(o operator.Order) error {
	if o.Act == operator.Thaw || o.Act == operator.Restore {
		return nil
	}
	return k.mayAct()
}

// ordered carries out an order that counts.
func (k *Keeper) ordered(ctx context.Context, p wire.Peer, trace string, v operator.Verified) (act.Ordered, error) {
	o := v.Order()
	t := task{peer: p, name: act.Name(o.Act), actor: "operators " + strings.Join(v.Signers(), ", "), subject: clip(told(o)), whenFrozen: true,
		about: act.Context{Region: k.c.Region, Purpose: "operator", Trace: trace}}
	if !hidden(o) {
		t.about.Tenant, t.about.Connection = cleanName(o.Parameters["tenant"]), cleanName(o.Parameters["connection"])
	}
	return carryOut(ctx, k, t, func(ctx context.Context) (act.Ordered, error) {
		switch o.Act {
		case operator.OpenCampaign:
			return done("the campaign is open", k.breaker.Authorise(v))
		case operator.LiftBreaker:
			return done("the breaker is watching again", k.breaker.Lift(v))
		case operator.Thaw:
			return k.thaw(ctx, o)
		case operator.Restore:
			return k.takeAsIs(ctx)
		case operator.RotateKEK:
			return k.rotate(ctx, o)
		case operator.ChangeBinding:
			return k.changeBinding(ctx, o)
		case operator.PlantDecoy:
			return k.plantDecoy(ctx, p, trace, o)
		case operator.ReleaseDecoy:
			return k.releaseDecoy(ctx, p, trace, o)
		}
		return act.Ordered{}, fault.New(fault.Denied, "keeper.Order", "the keeper carries out no "+strconv.Quote(o.Act)).
			WithHint("Look at the list of orders in docs/keys.md.")
	})
}

func done(text string, err error) (act.Ordered, error) {
	if err != nil {
		return act.Ordered{}, err
	}
	return act.Ordered{Text: text}, nil
}

// hidden reports whether the ledger must not tell what an order is of: who
// reads it would know the decoys.
func hidden(o operator.Order) bool {
	return o.Act == operator.PlantDecoy || o.Act == operator.ReleaseDecoy
}

// told is an order in the words of an entry.
func told(o operator.Order) string {
	if hidden(o) {
		sum := sha256.Sum256(o.Bytes())
		return o.Act + " " + hex.EncodeToString(sum[:])
	}
	s := o.Act
	if o.Subject != "" {
		s += " " + o.Subject
	}
	for _, name := range slices.Sorted(maps.Keys(o.Parameters)) {
		s += " " + name + "=" + o.Parameters[name]
	}
	return s
}

// changeBinding gives a connection another partner. What is sealed for it is
// sealed anew, in the same commit.
func (k *Keeper) changeBinding(ctx context.Context, o operator.Order) (act.Ordered, error) {
	const op = "keeper.ChangeBinding"
	tenant, connection := o.Parameters["tenant"], o.Parameters["connection"]
	if o.Parameters[operator.TenantsParameter] != "1" {
		return act.Ordered{}, fault.New(fault.Denied, op, "an order changes the binding of one tenant's connection, and this one says another number").
			WithHint("Sign one with the parameter tenants=1 for each.")
	}
	b, err := orderedBinding(o)
	if err != nil {
		return act.Ordered{}, err
	}
	credentials, err := k.resealCredentials(ctx, tenant, connection)
	if err != nil {
		return act.Ordered{}, err
	}
	return done("the connection "+tenant+"/"+connection+" is bound to "+b.Host, k.rebind(ctx, tenant, connection, b, credentials))
}

// orderedBinding reads a binding from an order's parameters. What the order
// does not name is empty.
func orderedBinding(o operator.Order) (act.Binding, error) {
	p := o.Parameters
	b := act.Binding{Host: p["host"], ServerName: p["server_name"], CA: p["ca"], Pin: p["pin"],
		Authority: p["authority"], EntraTenant: p["entra_tenant"], App: p["app"], AppObject: p["app_object"]}
	port, err := strconv.ParseUint(p["port"], 10, 16)
	b.Port = uint16(port)
	if err != nil || port == 0 || b.Host == "" {
		return b, fault.New(fault.Invalid, "keeper.Order", "a binding has a host and a port").
			WithHint("Sign an order with the parameters host and port, and what else the binding has: it is replaced as a whole.")
	}
	return b, nil
}
