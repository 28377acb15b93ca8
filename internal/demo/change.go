package demo

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// Change is one identity that made way for another while mail flowed.
type Change struct {
	Tenant string `json:"tenant"`
	From   string `json:"from"` // the certificate's name before
	To     string `json:"to"`
	MS     int64  `json:"ms"` // from the command to its answer
	// Refused says that the customer's connector no longer names the old one.
	Refused bool `json:"old_name_refused"`
}

// Who is changed: a tenant each, in two regions.
const (
	replacedTenant    = "acme"
	compromisedTenant = "elbe"
)

// identity is what the command line says of one.
type identity struct {
	ID, Purpose, Name, State string
	Epoch                    int
}

// active is the identity by which a tenant's mail is delivered.
func (r *run) active(ctx context.Context, tenant string) (identity, error) {
	var list []identity
	if err := r.gateway.run(ctx, &list, "identity", "list", "--tenant", tenant, "--json"); err != nil {
		return identity{}, err
	}
	i := slices.IndexFunc(list, func(i identity) bool { return i.Purpose == "smtp-client" && i.State == "active" })
	if i < 0 {
		return identity{}, fmt.Errorf("%s has no active identity among %d", tenant, len(list))
	}
	return list[i], nil
}

// replace gives a tenant's connection its next identity, in two gates.
func (r *run) replace(ctx context.Context, v *Verdict) (err error) {
	v.Replaced, err = r.change(ctx, replacedTenant, func(identity) error {
		return r.gateway.run(ctx, nil, "connection", "replace", replacedTenant, "mailbox", "--wait", "--json")
	})
	if err == nil {
		fmt.Fprintf(r.Progress, "\nidentity of %s replaced in two gates under load: %s -> %s, %d ms\n\n", replacedTenant, v.Replaced.From, v.Replaced.To, v.Replaced.MS)
	}
	return err
}

// compromise calls a tenant's identity stolen.
func (r *run) compromise(ctx context.Context, v *Verdict) (err error) {
	v.Compromised, err = r.change(ctx, compromisedTenant, func(i identity) error {
		return r.gateway.run(ctx, nil, "identity", "compromise", i.ID, "--json")
	})
	if err == nil {
		fmt.Fprintf(r.Progress, "\nidentity of %s called stolen: %s is refused, %s is in its place after %d ms\n\n",
			compromisedTenant, v.Compromised.From, v.Compromised.To, v.Compromised.MS)
	}
	return err
}

func (r *run) change(ctx context.Context, tenant string, do func(identity) error) (Change, error) {
	c := Change{Tenant: tenant}
	before, err := r.active(ctx, tenant)
	if err != nil {
		return c, err
	}
	began := time.Now()
	if err := do(before); err != nil {
		return c, err
	}
	c.MS = time.Since(began).Milliseconds()
	after, err := r.active(ctx, tenant)
	if err != nil {
		return c, err
	}
	c.From, c.To = before.Name, after.Name
	named, err := r.post.connectorNames(ctx, tenant)
	c.Refused = err == nil && c.From != c.To && !slices.Contains(named, c.From) && slices.Contains(named, c.To)
	return c, err
}

// verify lets the command line verify the ledgers of all regions, from their
// exports alone.
func (r *run) verify(ctx context.Context, v *Verdict) error {
	var got struct {
		OK      bool
		Regions []struct{ Entries int64 }
	}
	if err := r.gateway.run(ctx, &got, "ledger", "verify", "--json"); err != nil {
		return err
	}
	v.LedgerOK = got.OK
	for _, region := range got.Regions {
		v.LedgerEntries += region.Entries
	}
	return nil
}
