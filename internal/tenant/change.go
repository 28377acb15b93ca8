package tenant

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/mail"
	"github.com/sallyport-mail/sallyport/internal/store"
)

// event begins an audit event.
func (r *Registry) event(a Actor, act, tenant, subject string) store.Event {
	return store.Event{Time: r.now(), Actor: string(a), Act: act, Tenant: tenant, Subject: subject, Outcome: "done"}
}

// taken is what a conflict becomes: it names what is taken, never whose it is.
func taken(op string, err error, what string) error {
	if fault.Is(err, fault.Conflict) {
		return fault.New(fault.Conflict, op, what+" is already in use").WithHint("Choose another, or remove the one that there is.")
	}
	return wrap(op, err)
}

// wrap names the operation and keeps the kind.
func wrap(op string, err error) error {
	return fault.Wrap(fault.KindOf(err), op, err)
}

func missing(op, what string) error {
	return fault.New(fault.Missing, op, what+" does not exist").WithHint("List what there is to see the names.")
}

// Add makes a tenant.
func (r *Registry) Add(ctx context.Context, a Actor, t Tenant) (Tenant, error) {
	const op = "tenant.Add"
	if err := CheckSlug(op, "tenant", t.Name); err != nil {
		return Tenant{}, err
	}
	if !slices.Contains(r.c.Regions, t.Region) {
		return Tenant{}, fault.New(fault.Invalid, op, fmt.Sprintf("region %q is not served here", t.Region)).
			WithHint("Give one of the regions " + strings.Join(r.c.Regions, ", ") + ".")
	}
	h := &holding{Tenant: Tenant{Name: t.Name, Region: t.Region, CreatedAt: r.now()}}
	var err error
	if h.Settings, h.senders, err = t.Settings.check(op); err != nil {
		return Tenant{}, err
	}
	settings, err := h.Settings.encode()
	if err != nil {
		return Tenant{}, wrap(op, err)
	}
	defer r.lock(t.Name)()
	if _, ok := r.Tenant(t.Name); ok {
		return Tenant{}, fault.New(fault.Conflict, op, "tenant "+t.Name+" exists already").
			WithHint("Choose another name; one that is the same passes with --if-absent.")
	}
	err = r.c.DB.For(t.Name).Change(ctx, func(tx store.TenantTx) error {
		if _, err := tx.Exec(insertTenant, h.Region, settings, h.CreatedAt.UnixMicro()); err != nil {
			return err
		}
		return tx.Audit(r.event(a, "tenant.add", t.Name, h.Region))
	})
	if err != nil {
		return Tenant{}, taken(op, err, "the name "+t.Name)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.tenants[t.Name] = h
	r.names = insertSorted(r.names, t.Name)
	return h.Tenant, nil
}

// Set replaces a tenant's settings.
func (r *Registry) Set(ctx context.Context, a Actor, name string, s Settings) (Tenant, error) {
	const op = "tenant.Set"
	s, senders, err := s.check(op)
	if err != nil {
		return Tenant{}, err
	}
	text, err := s.encode()
	if err != nil {
		return Tenant{}, wrap(op, err)
	}
	defer r.lock(name)()
	if _, ok := r.Tenant(name); !ok {
		return Tenant{}, missing(op, "tenant "+name)
	}
	err = r.c.DB.For(name).Change(ctx, func(tx store.TenantTx) error {
		if _, err := tx.Exec(updateSettings, text); err != nil {
			return err
		}
		return tx.Audit(r.event(a, "tenant.set", name, text))
	})
	if err != nil {
		return Tenant{}, wrap(op, err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	h := r.tenants[name]
	h.Settings, h.senders = s, senders
	return h.Tenant, nil
}

// Remove refuses (conflict) while the tenant has domains or queued mail;
// inUse is asked for the latter.
func (r *Registry) Remove(ctx context.Context, a Actor, name string, inUse func(tenant string) error) error {
	const op = "tenant.Remove"
	defer r.lock(name)()
	if _, ok := r.Tenant(name); !ok {
		return missing(op, "tenant "+name)
	}
	if n := len(r.Domains(name)); n > 0 {
		return fault.New(fault.Conflict, op, fmt.Sprintf("tenant %s still has %d domains", name, n)).
			WithHint("Remove its domains first.")
	}
	if inUse != nil {
		if err := inUse(name); err != nil {
			return wrap(op, err)
		}
	}
	err := r.c.DB.For(name).Change(ctx, func(tx store.TenantTx) error {
		if err := r.hookTenant(tx); err != nil {
			return err
		}
		for _, q := range []store.TenantSQL{deleteTokens, deleteSubmitters, deleteTenant} {
			if _, err := tx.Exec(q); err != nil {
				return err
			}
		}
		return tx.Audit(r.event(a, "tenant.remove", name, ""))
	})
	if err != nil {
		return wrap(op, err)
	}
	r.forget(name)
	r.hookDone(name, "")
	return nil
}

// forget drops a tenant from memory.
func (r *Registry) forget(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if t := r.tenants[name]; t != nil {
		if r.gone == nil {
			r.gone = map[string]string{}
		}
		r.gone[name] = t.Region
	}
	delete(r.tenants, name)
	r.names = removeSorted(r.names, name)
	for id, t := range r.tokens {
		if t.Tenant == name {
			delete(r.tokens, id)
		}
	}
	for user, s := range r.users {
		if s.tenant == name {
			delete(r.users, user)
		}
	}
}

// checkDomain brings a domain into its stored form.
func checkDomain(op string, d *Domain) error {
	name, err := mail.ParseDomain(d.Name)
	if err != nil {
		return fault.New(fault.Invalid, op, fmt.Sprintf("%q is not a domain name", d.Name)).
			WithHint("Give a name such as example.com, without a host part or a trailing slash.")
	}
	d.Name = name
	switch d.Recipients {
	case "":
		d.Recipients = RecipientsNone
	case RecipientsList, RecipientsProbe, RecipientsNone:
	default:
		return fault.New(fault.Invalid, op, fmt.Sprintf("recipients cannot be %q", d.Recipients)).
			WithHint("Give list, probe or none.")
	}
	return nil
}

func bit(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

// AddDomain gives a domain to its tenant.
func (r *Registry) AddDomain(ctx context.Context, a Actor, d Domain) (Domain, error) {
	const op = "tenant.AddDomain"
	if err := checkDomain(op, &d); err != nil {
		return Domain{}, err
	}
	d.CreatedAt = r.now()
	defer r.lock(d.Tenant)()
	if _, ok := r.Tenant(d.Tenant); !ok {
		return Domain{}, missing(op, "tenant "+d.Tenant)
	}
	if _, ok := r.Domain(d.Name); ok {
		return Domain{}, fault.New(fault.Conflict, op, "domain "+d.Name+" is already in use").
			WithHint("A domain is of one tenant; one that is the same passes with --if-absent.")
	}
	err := r.c.DB.For(d.Tenant).Change(ctx, func(tx store.TenantTx) error {
		if _, err := tx.Exec(insertDomain, d.Name, d.Recipients, bit(d.PlusTags), d.CreatedAt.UnixMicro()); err != nil {
			return err
		}
		return tx.Audit(r.event(a, "domain.add", d.Tenant, d.Name))
	})
	if err != nil {
		return Domain{}, taken(op, err, "domain "+d.Name)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	h := r.tenants[d.Tenant]
	h.domains = insertSorted(h.domains, d.Name)
	r.domains[d.Name] = d
	return d, nil
}

// SetDomain changes how a domain's recipients are known.
func (r *Registry) SetDomain(ctx context.Context, a Actor, d Domain) (Domain, error) {
	const op = "tenant.SetDomain"
	if err := checkDomain(op, &d); err != nil {
		return Domain{}, err
	}
	defer r.lock(d.Tenant)()
	old, ok := r.Domain(d.Name)
	if !ok || old.Tenant != d.Tenant {
		return Domain{}, missing(op, "domain "+d.Name+" of tenant "+d.Tenant)
	}
	d.CreatedAt = old.CreatedAt
	err := r.c.DB.For(d.Tenant).Change(ctx, func(tx store.TenantTx) error {
		if _, err := tx.Exec(updateDomain, d.Name, d.Recipients, bit(d.PlusTags)); err != nil {
			return err
		}
		return tx.Audit(r.event(a, "domain.set", d.Tenant, d.Name))
	})
	if err != nil {
		return Domain{}, wrap(op, err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.domains[d.Name] = d
	return d, nil
}

// RemoveDomain takes a domain from its tenant, with the recipients that are
// known of it.
func (r *Registry) RemoveDomain(ctx context.Context, a Actor, tenant, domain string) error {
	const op = "tenant.RemoveDomain"
	name, err := mail.ParseDomain(domain)
	if err != nil {
		name = domain
	}
	defer r.lock(tenant)()
	d, ok := r.Domain(name)
	if !ok || d.Tenant != tenant {
		return missing(op, "domain "+domain+" of tenant "+tenant)
	}
	err = r.c.DB.For(tenant).Change(ctx, func(tx store.TenantTx) error {
		if err := r.hookDomain(tx, name); err != nil {
			return err
		}
		if _, err := tx.Exec(deleteDomain, name); err != nil {
			return err
		}
		return tx.Audit(r.event(a, "domain.remove", tenant, name))
	})
	if err != nil {
		return wrap(op, err)
	}
	r.dropDomain(tenant, name)
	r.hookDone(tenant, name)
	return nil
}

func (r *Registry) dropDomain(tenant, name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.domains, name)
	if h := r.tenants[tenant]; h != nil {
		h.domains = removeSorted(h.domains, name)
	}
}

// now is the time as the database keeps it.
func (r *Registry) now() time.Time { return r.c.Now().UTC().Truncate(time.Microsecond) }
