package api

import (
	"context"
	"net/http"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/mail"
	"github.com/sallyport-mail/sallyport/internal/tenant"
)

type newDomain struct {
	OfTenant
	Body struct {
		Name       string `json:"name" required:"true"`
		Recipients string `json:"recipients" enum:"list,probe,none" doc:"How its recipients are known"`
		PlusTags   bool   `json:"plus_tags" doc:"user+tag is user"`
		IfAbsent   bool   `json:"if_absent" doc:"An identical one is no conflict"`
	}
}

type oneDomain struct {
	OfTenant
	Domain string `path:"domain"`
}

// DomainWithDNS is a domain with what its owner has to publish.
type DomainWithDNS struct {
	tenant.Domain
	DNS []Record `json:"dns"`
}

func domains(r *router) {
	const base = "/v1/tenants/{tenant}/domains"
	on(r, http.MethodGet, base, "List a tenant's domains", r.listDomains)
	on(r, http.MethodPost, base, "Add a domain", r.addDomain, creates)
	on(r, http.MethodGet, base+"/{domain}", "Show a domain and the DNS to publish, checked live", r.showDomain)
	on(r, http.MethodDelete, base+"/{domain}", "Remove a domain", r.removeDomain)
}

func (s *server) listDomains(ctx context.Context, in *struct {
	OfTenant
	Paging
}) (*out[Page[tenant.Domain]], error) {
	name, err := scope(ctx, in.Tenant)
	if err != nil {
		return nil, err
	}
	return cut(s.Tenants.Domains(name), func(d tenant.Domain) string { return d.Name }, in.Paging), nil
}

func (s *server) addDomain(ctx context.Context, in *newDomain) (*made[tenant.Domain], error) {
	name, err := scope(ctx, in.Tenant)
	if err != nil {
		return nil, err
	}
	b := in.Body
	d, err := s.Tenants.AddDomain(ctx, actor(ctx), tenant.Domain{
		Name: b.Name, Tenant: name, Recipients: b.Recipients, PlusTags: b.PlusTags,
	})
	if err == nil {
		return &made[tenant.Domain]{http.StatusCreated, d}, nil
	}
	have, mine := s.domainOf(name, b.Name)
	same := mine && have.PlusTags == b.PlusTags && (b.Recipients == "" || b.Recipients == have.Recipients)
	if b.IfAbsent && fault.Is(err, fault.Conflict) && same {
		return &made[tenant.Domain]{http.StatusOK, have}, nil
	}
	return nil, err
}

// domainOf finds a domain by any of its spellings, if it is the tenant's.
func (s *server) domainOf(tenantName, domain string) (tenant.Domain, bool) {
	name, err := mail.ParseDomain(domain)
	if err != nil {
		return tenant.Domain{}, false
	}
	d, ok := s.Tenants.Domain(name)
	return d, ok && d.Tenant == tenantName
}

func (s *server) showDomain(ctx context.Context, in *oneDomain) (*out[DomainWithDNS], error) {
	t, err := s.existing(ctx, in.Tenant)
	if err != nil {
		return nil, err
	}
	d, ok := s.domainOf(t.Name, in.Domain)
	if !ok {
		return nil, fault.New(fault.Missing, "api.showDomain", "tenant "+t.Name+" has no domain "+quoted(in.Domain)).
			WithHint("List its domains, or add this one.")
	}
	return reply(DomainWithDNS{d, s.published(ctx, d.Name, t.Region)}), nil
}

func (s *server) removeDomain(ctx context.Context, in *oneDomain) (*out[Removed], error) {
	name, err := scope(ctx, in.Tenant)
	if err != nil {
		return nil, err
	}
	if err := s.Tenants.RemoveDomain(ctx, actor(ctx), name, in.Domain); err != nil {
		return nil, err
	}
	return reply(Removed{in.Domain, true}), nil
}
