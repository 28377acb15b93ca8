package api

import (
	"context"
	"encoding/json"
	"net/http"
	"reflect"
	"slices"

	"github.com/danielgtaylor/huma/v2"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/tenant"
)

// OfTenant is a route below a tenant. The gate has confined the caller to it
// already; handlers ask scope all the same.
type OfTenant struct {
	Tenant string `path:"tenant" doc:"The tenant's name"`
}

type newTenant struct {
	Body struct {
		Name     string `json:"name" required:"true"`
		Region   string `json:"region" required:"true"`
		IfAbsent bool   `json:"if_absent" doc:"An identical one is no conflict"`
	}
}

type changeTenant struct {
	OfTenant
	Body patch
}

// patch is a part of the settings: what it does not name stays (RFC 7396,
// without its null).
type patch struct{ given json.RawMessage }

func (p *patch) UnmarshalJSON(b []byte) error {
	p.given = slices.Clone(b)
	return nil
}

// Schema is how huma asks: the settings themselves, each optional.
func (patch) Schema(r huma.Registry) *huma.Schema {
	return r.Schema(reflect.TypeFor[tenant.Settings](), true, "Settings")
}

func tenants(r *router) {
	on(r, http.MethodGet, "/v1/tenants", "List the tenants", r.listTenants)
	on(r, http.MethodPost, "/v1/tenants", "Add a tenant", r.addTenant, creates)
	on(r, http.MethodGet, "/v1/tenants/{tenant}", "Show a tenant", r.showTenant)
	on(r, http.MethodPatch, "/v1/tenants/{tenant}", "Change some of a tenant's settings", r.changeTenant)
	on(r, http.MethodDelete, "/v1/tenants/{tenant}", "Remove a tenant", r.removeTenant)
}

func (s *server) listTenants(ctx context.Context, in *struct{ Paging }) (*out[Page[tenant.Tenant]], error) {
	own, err := scope(ctx, "")
	if err != nil {
		return nil, err
	}
	if own != "" {
		t, err := s.existing(ctx, own)
		if err != nil {
			return nil, err
		}
		return cut([]tenant.Tenant{t}, tenantName, in.Paging), nil
	}
	page := s.Tenants.Tenants(in.After, in.Limit+1)
	if len(page) <= in.Limit {
		return paged(page, ""), nil
	}
	page = page[:in.Limit]
	return paged(page, page[in.Limit-1].Name), nil
}

func tenantName(t tenant.Tenant) string { return t.Name }

func (s *server) addTenant(ctx context.Context, in *newTenant) (*made[tenant.Tenant], error) {
	b := in.Body
	t, err := s.Tenants.Add(ctx, actor(ctx), tenant.Tenant{Name: b.Name, Region: b.Region})
	if err == nil {
		return &made[tenant.Tenant]{http.StatusCreated, t}, nil
	}
	if have, ok := s.Tenants.Tenant(b.Name); ok && b.IfAbsent && fault.Is(err, fault.Conflict) && have.Region == b.Region {
		return &made[tenant.Tenant]{http.StatusOK, have}, nil
	}
	return nil, err
}

func (s *server) showTenant(ctx context.Context, in *OfTenant) (*out[tenant.Tenant], error) {
	t, err := s.existing(ctx, in.Tenant)
	return reply(t), err
}

func (s *server) changeTenant(ctx context.Context, in *changeTenant) (*out[tenant.Tenant], error) {
	s.settings.Lock()
	defer s.settings.Unlock()
	t, err := s.existing(ctx, in.Tenant)
	if err != nil {
		return nil, err
	}
	next := t.Settings
	next.Block, next.Allow = slices.Clone(next.Block), slices.Clone(next.Allow)
	if err := json.Unmarshal(in.Body.given, &next); err != nil {
		return nil, fault.Wrap(fault.Invalid, "api.changeTenant", err)
	}
	if caller(ctx).Role != tenant.Operator && limitsOf(next) != limitsOf(t.Settings) {
		return nil, fault.New(fault.Denied, "api.changeTenant", "limits and the egress pool are the operator's to set").
			WithHint("Change the other settings only, or ask the operator.")
	}
	t, err = s.Tenants.Set(ctx, actor(ctx), t.Name, next)
	return reply(t), err
}

// limits are the settings by which the operator protects the platform from a
// tenant: not the tenant's own to change.
type limits struct {
	maxSize                                                     int64
	maxRecipients, messages, recipients, connections, keepTrace int
	keepFailed                                                  int
	egress                                                      string
}

func limitsOf(s tenant.Settings) limits {
	return limits{
		maxSize: s.MaxSize, maxRecipients: s.MaxRecipients, messages: s.MessagesPerMinute,
		recipients: s.RecipientsPerMinute, connections: s.ConnectionsMax,
		keepTrace: s.TraceDays, keepFailed: s.FailedDays, egress: s.Egress,
	}
}

func (s *server) removeTenant(ctx context.Context, in *OfTenant) (*out[Removed], error) {
	t, err := s.existing(ctx, in.Tenant)
	if err != nil {
		return nil, err
	}
	if err := s.Tenants.Remove(ctx, actor(ctx), t.Name, s.Queue.InUse); err != nil {
		return nil, err
	}
	return reply(Removed{t.Name, true}), nil
}
