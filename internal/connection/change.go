package connection

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/store"
	"github.com/sallyport-mail/sallyport/internal/tenant"
)

func wrap(op string, err error) error { return fault.Wrap(fault.KindOf(err), op, err) }

func missing(op, tenant, name string) error {
	return fault.New(fault.Missing, op, "tenant "+tenant+" has no connection "+name).WithHint("List its connections to see their names.")
}

func (r *Registry) event(a tenant.Actor, act, tenant, name, subject string) store.Event {
	return store.Event{
		Time: r.now(), Actor: string(a), Act: act, Tenant: tenant, Connection: name, Subject: subject, Outcome: "done",
	}
}

// Add makes a connection.
func (r *Registry) Add(ctx context.Context, a tenant.Actor, c Connection) (Connection, error) {
	const op = "connection.Add"
	e, err := check(op, c)
	if err == nil {
		err = r.insert(ctx, op, a, e)
	}
	if err != nil {
		return Connection{}, err
	}
	if r.c.Keepers != nil && e.hasIdentity() {
		if err := r.ensure(ctx, e, true); err != nil {
			// Nobody has used it: it goes as it came.
			ctx := context.WithoutCancel(ctx)
			if e2 := errors.Join(r.remove(ctx, op, a, e.Tenant, e.Name), r.release(ctx, e)); e2 != nil {
				r.c.Log.Error("a connection without an identity is left", "tenant", e.Tenant, "connection", e.Name, "error", e2)
			}
			return Connection{}, wrap(op, err)
		}
	}
	return e.view(), nil
}

// insert makes a checked connection durable, and known.
func (r *Registry) insert(ctx context.Context, op string, a tenant.Actor, e *entry) error {
	defer r.lock(e.Tenant)()
	if len(e.claims) > 0 {
		r.claim.Lock()
		defer r.claim.Unlock()
	}
	if err := r.checkPlace(op, e); err != nil {
		return err
	}
	if err := r.checkClaims(op, e); err != nil {
		return err
	}
	e.CreatedAt, e.Health, e.health = r.now(), Health{}, new(atomic.Pointer[Health])
	spec, err := e.encode()
	if err != nil {
		return wrap(op, err)
	}
	err = r.c.DB.For(e.Tenant).Change(ctx, func(tx store.TenantTx) error {
		if _, err := tx.Exec(insertConnection, e.Name, e.State, spec, e.CreatedAt.UnixMicro()); err != nil {
			return conflict(err, op, "the name "+e.Name+" is already in use")
		}
		for _, c := range e.claims {
			if _, err := tx.Exec(insertClaim, e.Name, c.kind, c.value); err != nil {
				return conflict(err, op, fault.Sentence(claimed(op, c)))
			}
		}
		return tx.Audit(r.event(a, "connection.add", e.Tenant, e.Name, e.Kind+" "+e.Direction))
	})
	if err != nil {
		return wrap(op, err)
	}
	r.publish(e.Tenant, e.Name, e)
	return nil
}

// conflict gives a unique violation words.
func conflict(err error, op, text string) error {
	if fault.Is(err, fault.Conflict) {
		return fault.New(fault.Conflict, op, text)
	}
	return err
}

// checkPlace sees that the tenant exists, that the domains are its own and
// that no other connection serves them.
func (r *Registry) checkPlace(op string, e *entry) error {
	if _, ok := r.c.Tenants.Tenant(e.Tenant); !ok {
		return fault.New(fault.Missing, op, "tenant "+e.Tenant+" does not exist").WithHint("List the tenants to see their names.")
	}
	if e.Direction != DirectionOutbound {
		for _, name := range e.Domains {
			if d, ok := r.c.Tenants.Domain(name); !ok || d.Tenant != e.Tenant {
				return invalid(op, "domain "+name+" is not a domain of tenant "+e.Tenant, "Add the domain first.")
			}
		}
	}
	r.mu.RLock()
	defer r.mu.RUnlock()
	t := r.tenants[e.Tenant]
	if t == nil {
		return nil
	}
	if t.entry(e.Name) != nil {
		return fault.New(fault.Conflict, op, "connection "+e.Name+" exists already").
			WithHint("Choose another name, or remove that one; one that is the same passes with --if-absent.")
	}
	switch {
	case e.Direction != DirectionOutbound:
		return t.inbound.checkFree(op, e, "an inbound connection")
	case len(e.Hosts) > 0:
		return t.outbound.checkFree(op, e, "an outbound connection with a host")
	}
	return nil
}

// checkFree refuses a second connection for the same domains.
func (c *choice) checkFree(op string, e *entry, what string) error {
	if len(e.Domains) == 0 && c.other != nil {
		return fault.New(fault.Conflict, op, fmt.Sprintf("tenant %s has %s already: %s", e.Tenant, what, c.other.Name)).
			WithHint("Remove that one, or say with --domain which domains this one serves.")
	}
	for _, d := range e.Domains {
		if other := c.named[d]; other != nil {
			return fault.New(fault.Conflict, op, fmt.Sprintf("domain %s is served by connection %s already", d, other.Name)).
				WithHint("Name each domain at one connection only.")
		}
	}
	return nil
}

// stored is what the database keeps of a connection as one text.
type stored struct {
	Connection
	Found string `json:"found_connector,omitempty"` // of an m365 one, as Exchange has it
}

// encode is the spec as it is stored.
func (e *entry) encode() (string, error) {
	c := stored{e.Connection, e.foundConnector()}
	c.Health = Health{}
	b, err := json.Marshal(c)
	return string(b), err
}

// SetState enables or disables a connection. While it is disabled mail for it
// waits, and its claims stay its own and prove nothing.
func (r *Registry) SetState(ctx context.Context, a tenant.Actor, tenant, name, state string) (Connection, error) {
	const op = "connection.SetState"
	if state != Enabled && state != Disabled {
		return Connection{}, invalid(op, fmt.Sprintf("there is no state %q", state), "Give enabled or disabled.")
	}
	defer r.lock(tenant)()
	old := r.entry(tenant, name)
	if old == nil {
		return Connection{}, missing(op, tenant, name)
	}
	err := r.c.DB.For(tenant).Change(ctx, func(tx store.TenantTx) error {
		if _, err := tx.Exec(updateState, name, state); err != nil {
			return err
		}
		return tx.Audit(r.event(a, "connection."+strings.TrimSuffix(state, "d"), tenant, name, ""))
	})
	if err != nil {
		return Connection{}, wrap(op, err)
	}
	e := *old
	e.State = state
	r.publish(tenant, name, &e)
	return e.view(), nil
}

// Remove ends a connection, its claims, its identities and the password it had.
// Mail that is queued for it waits until it is sent another way. A keeper that
// is away keeps the connection: its identities must not outlive it unseen.
func (r *Registry) Remove(ctx context.Context, a tenant.Actor, tenant, name string) error {
	const op = "connection.Remove"
	e := r.entry(tenant, name)
	if e == nil {
		return missing(op, tenant, name)
	}
	unlock, err := r.busy.urgent(ctx, place{tenant, name})
	if err != nil {
		return wrap(op, err)
	}
	defer unlock()
	if err := r.release(ctx, e); err != nil {
		return wrap(op, err)
	}
	return r.remove(ctx, op, a, tenant, name)
}

// remove is Remove but for what the keeper holds.
func (r *Registry) remove(ctx context.Context, op string, a tenant.Actor, tenant, name string) error {
	defer r.lock(tenant)()
	if r.entry(tenant, name) == nil {
		return missing(op, tenant, name)
	}
	err := r.c.DB.For(tenant).Change(ctx, func(tx store.TenantTx) error {
		for _, q := range []store.TenantSQL{deleteClaims, deleteReplacements, deleteConnection} {
			if _, err := tx.Exec(q, name); err != nil {
				return err
			}
		}
		return tx.Audit(r.event(a, "connection.remove", tenant, name, ""))
	})
	if err != nil {
		return wrap(op, err)
	}
	r.publish(tenant, name, nil)
	r.forgetSecret(ctx, tenant, name)
	return nil
}

// forgetSecret removes a password that nothing refers to any more.
func (r *Registry) forgetSecret(ctx context.Context, tenant, name string) {
	if r.c.Credentials == nil {
		return
	}
	err := r.c.Credentials.RemoveCredential(ctx, tenant, name)
	if err != nil && !fault.Is(err, fault.Missing) {
		r.c.Log.Error("a removed connection's password is still there", "tenant", tenant, "connection", name, "error", err)
	}
}

// removeAll is the tenant registry's hook.
func (r *Registry) removeAll(tx store.TenantTx) error {
	for _, q := range []store.TenantSQL{deleteAllClaims, deleteAllReplacements, deleteAll} {
		if _, err := tx.Exec(q); err != nil {
			return err
		}
	}
	return nil
}

// forgetTenant drops from memory what removeAll dropped from the database.
func (r *Registry) forgetTenant(tenant, domain string) {
	if domain != "" {
		return
	}
	for _, c := range r.List(tenant) {
		e := r.entry(tenant, c.Name)
		r.publish(tenant, c.Name, nil)
		r.forgetSecret(context.Background(), tenant, c.Name)
		if e != nil {
			if err := r.release(context.Background(), e); err != nil {
				r.c.Log.Error("a removed tenant's identities are still in custody", "tenant", tenant, "connection", c.Name, "error", err)
			}
		}
	}
}

// Identical reports whether two connections say the same, whatever has
// happened to them since.
func Identical(a, b Connection) bool {
	x, errX := check("connection.Identical", a)
	y, errY := check("connection.Identical", b)
	if errX != nil || errY != nil {
		return false
	}
	// What was found out when the connection was made was not asked for.
	if x.Kind == KindM365 && a.AppID == "" {
		x.AppID, x.AppObject = y.AppID, y.AppObject
	}
	if x.Kind == KindM365 && a.Connector == "" {
		x.Connector = y.Connector
	}
	for _, e := range []*entry{x, y} {
		e.State, e.CreatedAt = "", a.CreatedAt
	}
	one, errX := x.encode()
	two, errY := y.encode()
	return errX == nil && errY == nil && one == two && slices.Equal(x.claims, y.claims)
}
