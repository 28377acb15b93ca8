package keeper

import (
	"context"
	"crypto/rand"

	"github.com/oklog/ulid/v2"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/keeper/act"
	"github.com/sallyport-mail/sallyport/internal/keeper/operator"
	"github.com/sallyport-mail/sallyport/internal/keeper/seal"
	"github.com/sallyport-mail/sallyport/internal/keeper/sign"
	"github.com/sallyport-mail/sallyport/internal/keeper/wire"
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

// noDecoys refuses to end a connection that is a decoy's.
func (k *Keeper) noDecoys(ctx context.Context, tenant, connection string) error {
	const op = "keeper.Release"
	for _, purpose := range []string{purposeAuth, purposeAdmin} {
		c := credentialKey{tenant, connection, purpose}
		r, err := k.credentialRow(ctx, op, c)
		if fault.Is(err, fault.Missing) {
			continue
		}
		if err != nil {
			return err
		}
		dk, err := k.seals.key(ctx, tenant)
		if err != nil {
			return err
		}
		if err := k.notDecoy(op, dk, c, r); err != nil {
			return err
		}
	}
	all, err := k.rows(ctx, selectConnection, tenant, connection)
	if err != nil {
		return err
	}
	for _, r := range all {
		decoy, err := k.isDecoy(ctx, r)
		if err != nil {
			return err
		}
		if decoy {
			k.alarm(alarmDecoy, tenant, "the decoy identity "+r.id+" was to be released: whoever did that has a list that was stolen, or is inside")
			return fault.New(fault.Denied, op, "the connection "+tenant+"/"+connection+" is not released").WithHint("Ask the keeper's operators.")
		}
	}
	return nil
}

// decoyOrder is what an order to plant or release a decoy says.
type decoyOrder struct {
	tenant, connection string
	identity           bool // it is one, not a credential
	user               string
	binding            act.Binding
}

func readDecoyOrder(o operator.Order) (decoyOrder, error) {
	const op = "keeper.PlantDecoy"
	d := decoyOrder{tenant: o.Parameters["tenant"], connection: o.Parameters["connection"], user: o.Parameters["user"]}
	kind := o.Parameters["kind"]
	d.identity = kind == "identity"
	if d.tenant == "" || d.connection == "" || !d.identity && (kind != "credential" || d.user == "") {
		return d, fault.New(fault.Invalid, op, "a decoy is of the kind identity, or of the kind credential with a user, and has a tenant and a connection").
			WithHint("Sign an order with the parameters tenant, connection, host, port, kind and user.")
	}
	var err error
	d.binding, err = orderedBinding(o)
	return d, err
}

// plantDecoy makes a credential or an identity that nothing legitimate will
// ever use. It is bound and made as any other is, with the same entries; a
// password comes back once, to be made known to the partner that shall tell of
// its use.
func (k *Keeper) plantDecoy(ctx context.Context, p wire.Peer, trace string, o operator.Order) (act.Ordered, error) {
	const op = "keeper.PlantDecoy"
	d, err := readDecoyOrder(o)
	if err != nil {
		return act.Ordered{}, err
	}
	about := act.Context{Region: k.c.Region, Tenant: d.tenant, Connection: d.connection, Purpose: "binding", Trace: trace}
	if _, err := k.bindingText(ctx, d.tenant, d.connection); !fault.Is(err, fault.Missing) {
		if err != nil {
			return act.Ordered{}, err
		}
		return act.Ordered{}, fault.New(fault.Conflict, op, "there is a connection of that name").WithHint("Name one that there is not.")
	}
	if _, err := k.BindConnection(ctx, p, act.Bind{Context: about, Binding: d.binding}); err != nil {
		return act.Ordered{}, err
	}
	if d.identity {
		return k.plantIdentity(ctx, p, about)
	}
	about.Purpose = purposeAuth
	password := rand.Text()
	_, err = carryOut(ctx, k, task{peer: p, name: act.SetCredential, about: about}, func(ctx context.Context) (act.Done, error) {
		return act.Done{}, k.setCredential(ctx, keyOf(about), act.Credential{User: d.user, Password: password}, true)
	})
	if err != nil {
		return act.Ordered{}, err
	}
	return k.planted(ctx, act.Ordered{Text: "planted: let the partner know user and password, and report their use", Secret: password}, about)
}

// plantIdentity makes an active identity of a connection that there is only
// for it.
func (k *Keeper) plantIdentity(ctx context.Context, p wire.Peer, about act.Context) (act.Ordered, error) {
	about.Purpose = string(sign.TLSClient)
	w := wish{id: ulid.Make().String(), seat: seat{about.Tenant, about.Connection, about.Purpose}, epoch: 1, decoy: true}
	r, err := carryOut(ctx, k, task{peer: p, name: act.IssueIdentity, about: about, subject: w.id}, func(ctx context.Context) (*identity, error) {
		return k.issue(ctx, w, &k.authority)
	})
	if err != nil {
		return act.Ordered{}, err
	}
	if _, err := k.MoveIdentity(ctx, p, act.Move{Context: about, Identity: r.id, To: act.Active}); err != nil {
		return act.Ordered{}, err
	}
	return k.planted(ctx, act.Ordered{Text: "planted: let the partner know the certificate of the SHA-256 " + r.sha256 + " and the name " + r.name + ", and report its use"}, about)
}

// planted adds the code with which the partner reports.
func (k *Keeper) planted(ctx context.Context, o act.Ordered, about act.Context) (act.Ordered, error) {
	var err error
	o.Report, err = k.reportCode(ctx, tripwire{about.Tenant, about.Connection})
	return o, err
}

// releaseDecoy takes one away again.
func (k *Keeper) releaseDecoy(ctx context.Context, p wire.Peer, trace string, o operator.Order) (act.Ordered, error) {
	const op = "keeper.ReleaseDecoy"
	tenant, connection := o.Parameters["tenant"], o.Parameters["connection"]
	about := act.Context{Region: k.c.Region, Tenant: tenant, Connection: connection, Purpose: "binding", Trace: trace}
	_, err := carryOut(ctx, k, task{peer: p, name: act.ReleaseConnection, about: about}, func(ctx context.Context) (act.Done, error) {
		decoys, err := k.decoysOf(ctx, tenant, connection)
		if err == nil && decoys == 0 {
			err = fault.New(fault.Conflict, op, "the connection has no decoy, or is in use").WithHint("Look at its name; release it as any other.")
		}
		if err != nil {
			return act.Done{}, err
		}
		return act.Done{}, k.releaseAll(ctx, tenant, connection)
	})
	return done("released", err)
}

// decoysOf counts what a connection has, when all of it are decoys.
func (k *Keeper) decoysOf(ctx context.Context, tenant, connection string) (int, error) {
	n := 0
	c := credentialKey{tenant, connection, purposeAuth}
	r, err := k.credentialRow(ctx, "keeper.ReleaseDecoy", c)
	if err != nil && !fault.Is(err, fault.Missing) {
		return 0, err
	}
	if err == nil {
		dk, err := k.seals.key(ctx, tenant)
		if err != nil {
			return 0, err
		}
		b, err := bindingOf(r.binding)
		if err != nil {
			return 0, err
		}
		decoy, err := readMarker(dk, k.place(c, seal.Marker, b), r.marker)
		if err != nil || !decoy {
			return 0, err
		}
		n++
	}
	all, err := k.rows(ctx, selectConnection, tenant, connection)
	for _, r := range all {
		if err != nil {
			break
		}
		var decoy bool
		if decoy, err = k.isDecoy(ctx, r); err == nil && !decoy {
			return 0, nil
		}
		n++
	}
	return n, err
}
