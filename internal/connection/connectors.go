package connection

import (
	"context"
	"slices"
	"strings"

	"github.com/sallyport-mail/sallyport/internal/exchange/admin"
	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/store"
)

// marker is the comment by which connectors of ours are known.
func (m *microsoft) marker() string { return "Managed by Sallyport: " + m.e.Tenant + "/" + m.e.Name }

const nextMark = " (next)"

// connectors are the inbound connector that lets us in and the second one that
// is there during a change; nil for none.
func (g *grant) connectors(ctx context.Context) (first, second *admin.Inbound, err error) {
	all, err := g.admin.Inbounds(ctx)
	if err != nil {
		return nil, nil, err
	}
	for i := range all {
		switch all[i].Comment {
		case g.marker():
			first = &all[i]
		case g.marker() + nextMark:
			second = &all[i]
		}
	}
	if first == nil {
		first, err = g.adopt(all)
	}
	if second == nil { // its comment may have been edited
		n := slices.IndexFunc(all, func(c admin.Inbound) bool { return strings.HasSuffix(c.Name, nextMark) && g.isOurs(c) })
		if n >= 0 {
			second = &all[n]
		}
	}
	if first != nil {
		g.found(ctx, first.Name)
	}
	return first, second, err
}

// isOurs reports a connector that names one of our certificates.
func (g *grant) isOurs(c admin.Inbound) bool {
	return slices.ContainsFunc(g.ours, func(name string) bool { return strings.EqualFold(name, c.TlsSenderCertificateName) })
}

// adopt finds the connector that is to become ours: the one named, or the only
// one that locks the front down to a certificate, of ours where we have any.
func (g *grant) adopt(all []admin.Inbound) (*admin.Inbound, error) {
	var locks []*admin.Inbound
	for i, c := range all {
		if strings.EqualFold(c.Name, g.e.Connector) {
			return &all[i], nil
		}
		next := strings.HasSuffix(c.Comment, nextMark) || strings.HasSuffix(c.Name, nextMark)
		if c.Enabled && c.ConnectorType == "Partner" && c.RestrictDomainsToCertificate && !next && (g.ours == nil || g.isOurs(c)) {
			locks = append(locks, &all[i])
		}
	}
	switch {
	case len(locks) == 0: // one of the name that we give, which somebody has switched off
		n := slices.IndexFunc(all, func(c admin.Inbound) bool { return strings.EqualFold(c.Name, g.connectorName()) })
		if n < 0 {
			return nil, nil
		}
		return &all[n], nil
	case g.e.Connector != "":
		return nil, nil
	case len(locks) == 1:
		return locks[0], nil
	}
	return nil, fault.New(fault.Conflict, "connection.Adopt", "the tenant has several inbound connectors that restrict to a certificate").
		WithHint("Name the one that is for this gateway with --connector; a new name makes a new one.")
}

// accept has the tenant's connectors let in exactly these certificate names,
// one or two, the first by the main connector. It adds before it takes away,
// and may be called again after any of its steps.
func (g *grant) accept(ctx context.Context, names ...string) error {
	first, second, err := g.connectors(ctx)
	if err != nil {
		return err
	}
	if len(names) > 1 && names[1] != names[0] {
		if second != nil && second.TlsSenderCertificateName == names[0] { // by the second alone, so far
			if err := g.first(ctx, first, names[0]); err != nil {
				return err
			}
			return g.second(ctx, first, second, names[1])
		}
		if err := g.second(ctx, first, second, names[1]); err != nil {
			return err
		}
		return g.first(ctx, first, names[0])
	}
	if err := g.first(ctx, first, names[0]); err != nil || second == nil {
		return err
	}
	err = g.admin.RemoveInbound(ctx, second.Name)
	if fault.Is(err, fault.Missing) {
		return nil
	}
	return err
}

func ptr[T any](v T) *T { return &v }

func (g *grant) first(ctx context.Context, have *admin.Inbound, name string) error {
	change := admin.InboundChange{Enabled: ptr(true), TlsSenderCertificateName: &name, Comment: ptr(g.marker()), RequireTls: ptr(true), RestrictDomainsToCertificate: ptr(true)}
	if have == nil {
		change.Name, change.ConnectorType, change.SenderDomains = ptr(g.connectorName()), ptr("Partner"), &[]string{"*"}
		_, err := g.admin.NewInbound(ctx, change)
		if err == nil {
			g.found(ctx, *change.Name)
		}
		return err
	}
	if have.Enabled && have.TlsSenderCertificateName == name && have.Comment == g.marker() && have.RestrictDomainsToCertificate && have.RequireTls {
		return nil
	}
	_, err := g.admin.SetInbound(ctx, have.Name, change)
	return err
}

// connectorName is what a connector that we make is called.
func (g *grant) connectorName() string { return orText(g.e.Connector, ourConnector) }

func (g *grant) second(ctx context.Context, first, have *admin.Inbound, name string) error {
	if have != nil {
		if have.Enabled && have.TlsSenderCertificateName == name && have.RestrictDomainsToCertificate {
			return nil
		}
		_, err := g.admin.SetInbound(ctx, have.Name, admin.InboundChange{Enabled: ptr(true), TlsSenderCertificateName: &name, RestrictDomainsToCertificate: ptr(true)})
		return err
	}
	change := admin.InboundChange{
		Name: ptr(secondName(g.connectorName())), ConnectorType: ptr("Partner"), Comment: ptr(g.marker() + nextMark), SenderDomains: &[]string{"*"},
		TlsSenderCertificateName: &name, RequireTls: ptr(true), RestrictDomainsToCertificate: ptr(true),
	}
	if first != nil {
		change.Name, change.SenderDomains = ptr(secondName(first.Name)), &first.SenderDomains
		if len(first.AssociatedAcceptedDomains) > 0 {
			change.AssociatedAcceptedDomains = &first.AssociatedAcceptedDomains
		}
	}
	_, err := g.admin.NewInbound(ctx, change)
	return err
}

// secondName is the name of the second connector; 64 characters are the most.
func secondName(name string) string {
	r := []rune(name)
	return string(r[:min(len(r), 64-len(nextMark))]) + nextMark
}

// ourConnector is what a connector is called that nobody has named.
const ourConnector = "Inbound from Sallyport"

// foundConnector is the name of the connector that lets us in, as it was last
// seen in Exchange; "" when nobody has let us look.
func (e *entry) foundConnector() string {
	if name := e.found.Load(); name != nil {
		return *name
	}
	return ""
}

// connector is the name that commands for the customer's administrator give.
func (e *entry) connector() string {
	return orText(e.foundConnector(), orText(e.Connector, ourConnector))
}

// noteConnector remembers it, for the time when nobody lets us look any more.
// It is no change of anybody's making, so it leaves no audit event.
func (r *Registry) noteConnector(ctx context.Context, e *entry, name string) {
	before := e.found.Load()
	if before != nil && *before == name {
		return
	}
	e.found.Store(&name)
	spec, err := e.encode()
	if err == nil {
		err = r.c.DB.For(e.Tenant).Change(ctx, func(tx store.TenantTx) error {
			_, err := tx.Exec(updateSpec, e.Name, spec, e.CreatedAt.UnixMicro())
			return err
		})
	}
	if err != nil {
		e.found.CompareAndSwap(&name, before) // the next look tries again
		r.c.Log.Warn("the name of a connector could not be written down", "tenant", e.Tenant, "connection", e.Name, "connector", name, "error", err)
	}
}

// admitted are the certificate names that the tenant's enabled connectors let
// in, by connector.
func (g *grant) admitted(ctx context.Context) (map[string]string, error) {
	all, err := g.admin.Inbounds(ctx)
	if err != nil {
		return nil, err
	}
	names := map[string]string{}
	for _, c := range all {
		if c.Enabled && c.TlsSenderCertificateName != "" {
			names[c.Name] = c.TlsSenderCertificateName
		}
	}
	return names, nil
}

// covers reports whether a connector's name lets a certificate's name in; a
// leading wildcard is a domain and all below it.
func covers(pattern, name string) bool {
	pattern, name = strings.ToLower(pattern), strings.ToLower(name)
	base, wild := strings.CutPrefix(pattern, "*.")
	return pattern == name || wild && (name == base || strings.HasSuffix(name, "."+base))
}
