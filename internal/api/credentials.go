package api

import (
	"cmp"
	"context"
	"net/http"
	"strings"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/tenant"
)

type newSecret struct {
	OneConnection
	Body struct {
		User   string `json:"user" doc:"Default the connection's user"`
		Secret string `json:"secret" required:"true" minLength:"1" maxLength:"65536"`
	}
}

// NewPassword is a submission user with the password, this once.
type NewPassword struct {
	tenant.Submitter
	Password string `json:"password" doc:"Never shown again"`
}

// OneUser names a submission user of a tenant.
type OneUser struct {
	OfTenant
	User string `path:"user"`
}

func credentials(r *router) {
	const base = "/v1/tenants/{tenant}/credentials"
	on(r, http.MethodGet, base, "List a tenant's submission users", r.listCredentials)
	on(r, http.MethodPost, base, "Add a submission user; shows the password once", r.addCredential, creates, secretAnswer)
	on(r, http.MethodPost, base+"/{user}/reset", "Give a submission user a new password; shows it once", r.resetCredential, secretAnswer)
	on(r, http.MethodPost, base+"/{user}/revoke", "Revoke a submission user", r.revokeCredential)
}

// setCredential passes a secret on to its custody and forgets it.
func (s *server) setCredential(ctx context.Context, in *newSecret) (*out[tenant.Submitter], error) {
	c, err := s.connection(ctx, in.OneConnection)
	if err != nil {
		return nil, err
	}
	if s.SetCredential == nil {
		return nil, absent("custody of secrets")
	}
	user := cmp.Or(in.Body.User, c.User)
	if err := s.SetCredential(ctx, actor(ctx), c.Tenant, c.Name, user, in.Body.Secret); err != nil {
		return nil, err
	}
	now := s.Now().UTC().Truncate(time.Second)
	return reply(tenant.Submitter{Tenant: c.Tenant, Connection: c.Name, User: user, State: "active", SetAt: now}), nil
}

func (s *server) listCredentials(ctx context.Context, in *struct {
	OfTenant
	Paging
}) (*out[Page[tenant.Submitter]], error) {
	name, err := scope(ctx, in.Tenant)
	if err != nil {
		return nil, err
	}
	return cut(s.Tenants.Submitters(name), func(u tenant.Submitter) string { return u.User }, in.Paging), nil
}

func (s *server) addCredential(ctx context.Context, in *struct {
	OfTenant
	Body struct {
		User string `json:"user" required:"true"`
		Kind string `json:"kind" enum:"smtp-auth" default:"smtp-auth"`
	}
}) (*made[NewPassword], error) {
	name, err := scope(ctx, in.Tenant)
	if err != nil {
		return nil, err
	}
	u, password, err := s.Tenants.AddSubmitter(ctx, actor(ctx), name, in.Body.User)
	return &made[NewPassword]{http.StatusCreated, NewPassword{u, password}}, err
}

func (s *server) resetCredential(ctx context.Context, in *OneUser) (*out[NewPassword], error) {
	name, err := scope(ctx, in.Tenant)
	if err != nil {
		return nil, err
	}
	password, err := s.Tenants.ResetSubmitter(ctx, actor(ctx), name, in.User)
	if err != nil {
		return nil, err
	}
	return reply(NewPassword{s.submitter(name, in.User), password}), nil
}

func (s *server) revokeCredential(ctx context.Context, in *OneUser) (*out[tenant.Submitter], error) {
	name, err := scope(ctx, in.Tenant)
	if err != nil {
		return nil, err
	}
	if err := s.Tenants.RevokeSubmitter(ctx, actor(ctx), name, in.User); err != nil {
		return nil, err
	}
	return reply(s.submitter(name, in.User)), nil
}

// submitter shows a user after a change.
func (s *server) submitter(tenantName, user string) tenant.Submitter {
	for _, u := range s.Tenants.Submitters(tenantName) {
		if strings.EqualFold(u.User, user) { // the registry folds names

			return u
		}
	}
	return tenant.Submitter{Tenant: tenantName, Connection: "smtp-auth", User: user}
}

// absent is for a function that this gateway was built without.
func absent(what string) error {
	return fault.New(fault.Invalid, "api", "this gateway has no "+what)
}
