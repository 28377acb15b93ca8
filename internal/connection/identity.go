package connection

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/keeper/act"
)

// Identity is a key and certificate of a connection, as it is shown: never
// with the key, which stays with the keeper.
type Identity struct {
	ID          string     `json:"id"`
	Tenant      string     `json:"tenant"`
	Connection  string     `json:"connection"`
	Purpose     string     `json:"purpose"` // smtp-client, smtp-server, entra-app, dkim or arc
	Epoch       uint64     `json:"epoch"`
	Name        string     `json:"name"`
	State       string     `json:"state"`
	NotBefore   time.Time  `json:"not_before"`
	NotAfter    time.Time  `json:"not_after"`
	SHA256      string     `json:"sha256"` // of the certificate, hex
	Issuer      string     `json:"issuer"`
	Driver      string     `json:"driver"`
	RenewAt     *time.Time `json:"renew_at"` // when it is renewed by itself
	Apart       bool       `json:"apart"`    // a standby whose key lies under the keeper's second KEK
	Explanation string     `json:"explanation"`
	// Decoy is always false: which ones are, only the keeper can tell, and does
	// not.
	Decoy bool `json:"decoy"`
	// Of one that is looked at by itself: its chain, and the root that a partner
	// has to trust who verifies it, both PEM. null in a listing.
	Certificate *string `json:"certificate"`
	Root        *string `json:"root"`
}

func shownIdentity(i act.Identity) Identity {
	v := Identity{
		ID: i.ID, Tenant: i.Tenant, Connection: i.Connection, Purpose: i.Purpose, Epoch: i.Epoch, Name: i.Name, State: string(i.State),
		NotBefore: i.NotBefore, NotAfter: i.NotAfter, SHA256: i.SHA256, Issuer: i.Issuer, Driver: i.Driver, Explanation: i.Explanation, Apart: i.Apart,
	}
	if i.State == act.Active {
		at := renewAt(i)
		v.RenewAt = &at
	}
	return v
}

// keepers are the different keepers of the tenants that have connections.
func (r *Registry) keepers(op string) ([]Keeper, error) {
	if r.c.Keepers == nil {
		return nil, nil
	}
	r.mu.RLock()
	names := make([]string, 0, len(r.tenants))
	for name := range r.tenants {
		names = append(names, name)
	}
	r.mu.RUnlock()
	slices.Sort(names)
	var all []Keeper
	seen := map[Keeper]bool{}
	for _, name := range names {
		k, err := r.c.Keepers(name)
		if err != nil {
			return nil, wrap(op, err)
		}
		if !seen[k] {
			seen[k] = true
			all = append(all, k)
		}
	}
	return all, nil
}

// Identities are those of a tenant's connections, or of all tenants' when it
// is "", in the order of their ids. Without a keeper there are none.
func (r *Registry) Identities(ctx context.Context, tenant string) ([]Identity, error) {
	const op = "connection.Identities"
	from, err := r.keepers(op)
	if tenant != "" && r.c.Keepers != nil {
		var k Keeper
		k, err = r.custody(op, tenant)
		from = []Keeper{k}
	}
	if err != nil {
		return nil, err
	}
	var all []Identity
	for _, k := range from {
		list, err := k.ListIdentities(ctx, tenant, "")
		if err != nil {
			return nil, wrap(op, err)
		}
		for _, i := range list {
			if tenant == "" || i.Tenant == tenant {
				all = append(all, shownIdentity(i))
			}
		}
	}
	slices.SortFunc(all, func(a, b Identity) int { return strings.Compare(a.ID, b.ID) })
	return all, nil
}

// Identity is one identity; of the tenant, where that is not "". Kind missing
// otherwise.
func (r *Registry) Identity(ctx context.Context, tenant, id string) (Identity, error) {
	const op = "connection.Identity"
	i, k, err := r.identity(ctx, op, tenant, id)
	if err != nil {
		return Identity{}, err
	}
	v := shownIdentity(i)
	chain := ""
	for _, der := range i.Chain {
		chain += pemOf(der)
	}
	v.Certificate = &chain
	state, err := k.Status(ctx)
	if err == nil && len(state.Root) > 0 && i.Issuer == "builtin" {
		v.Root = ptr(pemOf(state.Root))
	}
	return v, wrap(op, err)
}

func (r *Registry) identity(ctx context.Context, op, tenant, id string) (act.Identity, Keeper, error) {
	id = strings.ToUpper(id)
	from, err := r.keepers(op)
	if err != nil {
		return act.Identity{}, nil, err
	}
	for _, k := range from {
		i, err := k.Identity(ctx, id)
		switch {
		case fault.Is(err, fault.Missing):
		case err != nil:
			return act.Identity{}, nil, wrap(op, err)
		case tenant == "" || i.Tenant == tenant:
			return i, k, nil
		}
	}
	return act.Identity{}, nil, fault.New(fault.Missing, op, "there is no identity "+id).WithHint("List them: sallyport identity list.")
}

// identities are a connection's, as its keeper has them.
func (r *Registry) identities(ctx context.Context, e *entry) (Keeper, []act.Identity, error) {
	const op = "connection.Identities"
	k, err := r.custody(op, e.Tenant)
	if err != nil {
		return nil, nil, err
	}
	all, err := k.ListIdentities(ctx, e.Tenant, e.Name)
	return k, all, wrap(op, err)
}
