package tenant

import "github.com/sallyport-mail/sallyport/internal/store"

// Hook is how rooms above, which own rows of a tenant, lose them together with
// the tenant or the domain: a name that is given anew must not find the old
// connections, users or addresses.
type Hook struct {
	Tenant func(tx store.TenantTx) error                // within the commit that removes the tenant
	Domain func(tx store.TenantTx, domain string) error // within the commit that removes a domain
	Done   func(tenant, domain string)                  // after it; domain is "" when the tenant went
}

// OnRemove registers a hook. It is to be called while the process is being
// constructed, before any change; nil functions are skipped.
func (r *Registry) OnRemove(h Hook) { r.hooks = append(r.hooks, h) }

func (r *Registry) hookTenant(tx store.TenantTx) error {
	for _, h := range r.hooks {
		if h.Tenant == nil {
			continue
		}
		if err := h.Tenant(tx); err != nil {
			return err
		}
	}
	return nil
}

func (r *Registry) hookDomain(tx store.TenantTx, domain string) error {
	for _, h := range r.hooks {
		if h.Domain == nil {
			continue
		}
		if err := h.Domain(tx, domain); err != nil {
			return err
		}
	}
	return nil
}

func (r *Registry) hookDone(tenant, domain string) {
	for _, h := range r.hooks {
		if h.Done != nil {
			h.Done(tenant, domain)
		}
	}
}
