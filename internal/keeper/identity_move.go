package keeper

import (
	"context"
	"strconv"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/keeper/act"
	"github.com/sallyport-mail/sallyport/internal/keeper/wire"
	"github.com/sallyport-mail/sallyport/internal/store"
)

// way is one identity's way from one state to another.
type way struct {
	id       string
	from, to act.IdentityState
}

// moved is how a way stands in an entry.
func moved(id string, from, to act.IdentityState) string {
	return id + " " + string(from) + "→" + string(to)
}

// plan are the ways that one move takes, the one that was asked for first.
type plan struct {
	of   *identity
	ways []way
}

func (p plan) subject() string {
	s := ""
	for i, w := range p.ways {
		if i > 0 {
			s += ", "
		}
		s += moved(w.id, w.from, w.to)
	}
	return s
}

// MoveIdentity brings an identity into another state. Without a tenant it is of
// one of our host names, which is given another one at once when it loses its
// active one.
func (k *Keeper) MoveIdentity(ctx context.Context, p wire.Peer, q act.Move) (act.Identity, error) {
	got, err := k.moveIdentity(ctx, p, q)
	if err == nil && q.Tenant == "" && k.isHost(q.Connection) {
		if e := k.tendHost(ctx, q.Connection); e != nil {
			k.c.Log.Warn("keeper: a host was not given another certificate", "host", q.Connection, "error", e)
		}
	}
	return got, err
}

// tenantOf is whose a request's rows are.
func tenantOf(c act.Context) string {
	if c.Tenant == "" {
		return hostsTenant
	}
	return c.Tenant
}

func (k *Keeper) moveIdentity(ctx context.Context, p wire.Peer, q act.Move) (act.Identity, error) {
	defer k.places.lock(tenantOf(q.Context), q.Connection)()
	plan, planErr := k.planMove(ctx, q)
	subject := plan.subject()
	if planErr != nil {
		subject = q.Identity + " →" + string(q.To)
	}
	got, err := carryOut(ctx, k, task{peer: p, name: act.MoveIdentity, about: q.Context, subject: clip(subject)}, func(ctx context.Context) (act.Identity, error) {
		if planErr != nil {
			return act.Identity{}, planErr
		}
		if err := k.move(ctx, plan); err != nil {
			return act.Identity{}, err
		}
		r, err := k.row(ctx, selectByID, q.Identity)
		if err != nil {
			return act.Identity{}, err
		}
		return r.told(), nil
	})
	if err == nil && ended(q.To) {
		// An old copy put back would give a stolen identity its life again: that it
		// has none is signed and shown to the witnesses at once.
		k.ledger.SignSoon()
	}
	return got, err
}

// planMove finds out what a move would do, or why it may not be.
func (k *Keeper) planMove(ctx context.Context, q act.Move) (plan, error) {
	if err := ours(q.Context); err != nil {
		return plan{}, err
	}
	r, err := k.row(ctx, selectByID, q.Identity)
	if err != nil {
		return plan{}, err
	}
	if !r.of(tenantOf(q.Context), q.Connection, q.Purpose) {
		return plan{}, fault.New(fault.Denied, "keeper.Move", "the identity is not of this connection and purpose").
			WithHint("Ask for an identity of the connection itself; if nobody did this by mistake, treat the gateway as taken over.")
	}
	if err := mayMove(r.state, q.To); err != nil {
		return plan{}, err
	}
	if r.state == act.Wanted && q.To == act.Issued {
		return plan{}, fault.New(fault.Conflict, "keeper.Move", "only its issuer makes an identity issued").WithHint("Issue another one.")
	}
	p := plan{of: r, ways: []way{{r.id, r.state, q.To}}}
	return p, k.gates(ctx, &p)
}

// gates holds the limit of two that are accepted at a time, and makes the one
// that was active give way.
func (k *Keeper) gates(ctx context.Context, p *plan) error {
	const op = "keeper.Move"
	first := p.ways[0]
	if !shown(first.to) {
		return nil
	}
	rows, err := k.door.Query(ctx, selectPlace, p.of.tenant, p.of.connection, p.of.purpose)
	if err != nil {
		return err
	}
	defer rows.Close()
	n := 1
	for rows.Next() {
		var one identity
		if err := rows.Scan(&one.id, &one.epoch, &one.name, &one.state); err != nil {
			return store.Fault(op, err)
		}
		if one.id == first.id || !shown(one.state) {
			continue
		}
		n++
		if one.state == act.Active && first.to == act.Active {
			p.ways = append(p.ways, way{one.id, act.Active, act.Retiring})
		}
	}
	if n > mostShown {
		return fault.New(fault.Conflict, op, "a partner would be shown "+strconv.Itoa(n)+" identities, and it is two at most").
			WithHint("Retire the one that is retiring, or take the staged one back, first.")
	}
	return store.Fault(op, rows.Err())
}

// move takes the ways of a plan, all or none.
func (k *Keeper) move(ctx context.Context, p plan) error {
	// Dropped whatever becomes of the commit: nobody may know.
	defer k.signers.drop(p.of.tenant, p.of.connection)
	now := k.now().UnixMicro()
	next, err := k.sealedOf(ctx, p)
	if err != nil {
		return err
	}
	return k.door.Change(ctx, func(tx store.KeeperTx) error {
		for i, w := range p.ways {
			var n int64
			var err error
			if h := next[i].handle; h != nil {
				n, err = tx.Exec(updateTaken, string(w.to), now, next[i].marker, h, w.id, string(w.from))
			} else {
				n, err = tx.Exec(updateState, string(w.to), now, next[i].marker, w.id, string(w.from))
			}
			if err != nil {
				return err
			}
			if n != 1 {
				return fault.New(fault.Conflict, "keeper.Move", "the identity has changed meanwhile").WithHint("Look at its state and try again: identity show.")
			}
		}
		return nil
	})
}

// resealed is what a row gets with its next state.
type resealed struct {
	marker []byte
	handle []byte // of a standby that is taken into use; nil: it stays
}

// sealedOf is what a plan's rows get. A marker that does not open stops it
// before a standby's key is opened.
func (k *Keeper) sealedOf(ctx context.Context, p plan) ([]resealed, error) {
	next := make([]resealed, len(p.ways))
	for i, w := range p.ways {
		r, err := k.row(ctx, selectByID, w.id)
		if err == nil {
			next[i].marker, err = k.remark(ctx, r, w.to)
		}
		if err == nil && takesOut(r, w.to) {
			next[i].handle, err = k.standbys.takeOut(ctx, r)
		}
		if err != nil {
			return nil, err
		}
	}
	return next, nil
}
