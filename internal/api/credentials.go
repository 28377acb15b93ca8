package api

import (
	"cmp"
	"context"
	"net/http"
	"strings"
	"time"

	"github.com/sallyport-mail/sallyport/internal/connection"
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

// Credential is a submission user, or the password that a connection presents.
type Credential struct {
	Tenant     string     `json:"tenant"`
	Connection string     `json:"connection" doc:"smtp-auth for a submission user"`
	User       string     `json:"user"`
	State      string     `json:"state" doc:"active or revoked"`
	SetAt      time.Time  `json:"set_at"`
	LastUsed   *time.Time `json:"last_used" doc:"null: never, or not known"`
	LastOpened *time.Time `json:"last_opened" doc:"null: never, or not known"`
	Opened     *int64     `json:"opened_count" doc:"null: not known; a submission user's is a hash, which cannot be opened"`

	key string // orders a listing
}

func ofSubmitter(u tenant.Submitter) Credential {
	return Credential{Tenant: u.Tenant, Connection: u.Connection, User: u.User, State: u.State, SetAt: u.SetAt,
		LastUsed: u.LastUsed, LastOpened: u.LastOpened, Opened: &u.Opened, key: u.User}
}

// ofConnection's key has a slash and no @, which no name of a user has.
func ofConnection(c connection.Credential) Credential {
	return Credential{Tenant: c.Tenant, Connection: c.Connection, User: c.User, State: tenant.SubmitterActive, SetAt: c.SetAt,
		LastOpened: c.LastOpened, Opened: c.Opened, key: "connection/" + c.Connection}
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
	on(r, http.MethodGet, base, "List a tenant's submission users and its connections' passwords", r.listCredentials)
	on(r, http.MethodPost, base, "Add a submission user; shows the password once", r.addCredential, creates, secretAnswer)
	on(r, http.MethodPost, base+"/{user}/reset", "Give a submission user a new password; shows it once", r.resetCredential, secretAnswer)
	on(r, http.MethodPost, base+"/{user}/revoke", "Revoke a submission user", r.revokeCredential)
}

// setCredential passes a secret on to its custody and forgets it.
func (s *server) setCredential(ctx context.Context, in *newSecret) (*out[Credential], error) {
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
	return reply(ofConnection(connection.Credential{Tenant: c.Tenant, Connection: c.Name, User: user, SetAt: now})), nil
}

func (s *server) listCredentials(ctx context.Context, in *struct {
	OfTenant
	Paging
}) (*out[Page[Credential]], error) {
	name, err := scope(ctx, in.Tenant)
	if err != nil {
		return nil, err
	}
	stored, err := s.Connections.Credentials(ctx, name)
	if err != nil {
		return nil, err
	}
	var all []Credential
	for _, u := range s.Tenants.Submitters(name) {
		all = append(all, ofSubmitter(u))
	}
	for _, c := range stored {
		all = append(all, ofConnection(c))
	}
	return cut(all, func(c Credential) string { return c.key }, in.Paging), nil
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
