package api

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/sallyport-mail/sallyport/internal/connection"
	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/mail"
	"github.com/sallyport-mail/sallyport/internal/tenant"
)

// testTime bounds a connection test: the far end may take its time at each
// step.
const testTime = 3 * time.Minute

// Connection is a connection as the contract shows it: absent is null.
type Connection struct {
	connection.Connection
	Host        *string           `json:"host"`
	Port        *int              `json:"port"`
	CA          *string           `json:"ca"`
	ServerName  *string           `json:"server_name"`
	User        *string           `json:"user"`
	Platform    *string           `json:"platform"`
	Issuer      *string           `json:"issuer"`
	Graph       *string           `json:"graph"`
	Login       *string           `json:"login"`
	EntraTenant *string           `json:"entra_tenant"`
	AppID       *string           `json:"app_id"`
	AppObject   *string           `json:"app_object"`
	Connector   *string           `json:"connector"`
	Setup       *connection.Setup `json:"setup,omitempty" doc:"Of a new one of kind m365: what was done at the customer's, and what is to be done"`
}

func shownConnection(c connection.Connection) Connection {
	v := Connection{
		Connection: c, Host: or(c.Host),
		CA:          or(c.CA),
		ServerName:  or(c.ServerName),
		User:        or(c.User),
		Platform:    or(c.Platform),
		Issuer:      or(c.Issuer),
		Graph:       or(c.Graph),
		Login:       or(c.Login),
		EntraTenant: or(c.EntraTenant),
		AppID:       or(c.AppID),
		AppObject:   or(c.AppObject),
		Connector:   or(c.Connector),
	}
	if c.Port != 0 {
		v.Port = &c.Port
	}
	return v
}

// AskedConnection is what a connection is made of; what the gateway knows by
// itself (tenant, state, health, created_at) is not taken from it.
type AskedConnection struct {
	connection.Connection
	Name     string  `json:"name" required:"true"`
	Host     *string `json:"host"`
	Port     *int    `json:"port"`
	IfAbsent bool    `json:"if_absent" doc:"An identical one is no conflict"`
	AskedGrant
}

// AskedGrant is what the customer's administrator gives; it is never shown.
type AskedGrant struct {
	AdminToken string `json:"admin_token" maxLength:"65536" doc:"m365: the administrator's token; kept in custody"`
	Once       bool   `json:"forget_admin_token" doc:"m365: use the token now and do not keep it"`
	Hold       bool   `json:"print_setup" doc:"m365: change nothing at the customer's, and say what is to be done there"`
}

func (g AskedGrant) grant() connection.Grant {
	return connection.Grant{AdminToken: g.AdminToken, Once: g.Once, Hold: g.Hold}
}

// connection is the asked one for a tenant.
func (a AskedConnection) connection(tenantName string) connection.Connection {
	c := a.Connection
	c.Tenant, c.Name = tenantName, a.Name
	c.State, c.Health, c.CreatedAt = "", connection.Health{}, time.Time{}
	if a.Host != nil {
		c.Host = *a.Host
	}
	if a.Port != nil {
		c.Port = *a.Port
	}
	return c
}

type newConnection struct {
	OfTenant
	Body AskedConnection
}

// OneConnection names a connection of a tenant.
type OneConnection struct {
	OfTenant
	Name string `path:"name" doc:"The connection's name"`
}

type testConnection struct {
	OneConnection
	Body *struct {
		Rcpt string `json:"rcpt" doc:"Recipient of the test message; default postmaster of the tenant's first domain"`
	}
}

func connections(r *router) {
	const base = "/v1/tenants/{tenant}/connections"
	on(r, http.MethodGet, base, "List a tenant's connections", r.listConnections)
	on(r, http.MethodPost, base, "Add a connection", r.addConnection, creates, within(testTime))
	on(r, http.MethodGet, base+"/{name}", "Show a connection", r.showConnection)
	on(r, http.MethodDelete, base+"/{name}", "Remove a connection", r.removeConnection)
	on(r, http.MethodPost, base+"/{name}/test", "Send a real message to the real server", r.testConnection, within(testTime))
	on(r, http.MethodPost, base+"/{name}/enable", "Use a connection again", r.setConnection(connection.Enabled))
	on(r, http.MethodPost, base+"/{name}/disable", "Stop using a connection; its mail waits", r.setConnection(connection.Disabled))
	on(r, http.MethodPost, base+"/{name}/setup", "Set up the customer's side of a connection to Microsoft 365, or say how", r.setUpConnection, within(testTime))
	on(r, http.MethodPut, base+"/{name}/credential", "Set the secret of a connection", r.setCredential)
}

// connection finds one of the caller's connections.
func (s *server) connection(ctx context.Context, in OneConnection) (connection.Connection, error) {
	name, err := scope(ctx, in.Tenant)
	if err != nil {
		return connection.Connection{}, err
	}
	c, ok := s.Connections.Get(name, in.Name)
	if !ok {
		return c, fault.New(fault.Missing, "api.connection", "tenant "+name+" has no connection "+quoted(in.Name)).
			WithHint("List its connections to see their names.")
	}
	return c, nil
}

func (s *server) listConnections(ctx context.Context, in *struct {
	OfTenant
	Paging
}) (*out[Page[Connection]], error) {
	name, err := scope(ctx, in.Tenant)
	if err != nil {
		return nil, err
	}
	var all []Connection
	for _, c := range s.Connections.List(name) {
		all = append(all, shownConnection(c))
	}
	return cut(all, func(c Connection) string { return c.Name }, in.Paging), nil
}

func (s *server) addConnection(ctx context.Context, in *newConnection) (*made[Connection], error) {
	name, err := scope(ctx, in.Tenant)
	if err != nil {
		return nil, err
	}
	asked := in.Body.connection(name)
	if err := mayClaim(ctx, asked); err != nil {
		return nil, err
	}
	c, setup, err := s.Connections.AddGranted(ctx, actor(ctx), asked, in.Body.grant())
	if err == nil {
		v := shownConnection(c)
		if c.Kind == connection.KindM365 {
			v.Setup = &setup
		}
		return &made[Connection]{http.StatusCreated, v}, nil
	}
	if c.Name != "" {
		return nil, notSetUp(c, err)
	}
	have, ok := s.Connections.Get(name, asked.Name)
	if ok && in.Body.IfAbsent && fault.Is(err, fault.Conflict) && connection.Identical(asked, have) {
		return &made[Connection]{http.StatusOK, shownConnection(have)}, nil
	}
	return nil, err
}

// notSetUp is why the customer's side of a connection that was added could not
// be looked at.
func notSetUp(c connection.Connection, err error) error {
	kind := fault.KindOf(err)
	if kind == fault.Internal && errors.Is(err, context.DeadlineExceeded) {
		kind = fault.Later
	}
	hint := "When that is repaired: sallyport connection setup " + c.Tenant + " " + c.Name + "."
	if more := fault.HintOf(err); more != "" {
		hint = more + " " + hint
	}
	return fault.New(kind, "api.addConnection", "connection "+c.Name+" was added, and its set-up failed: "+fault.Sentence(err)).WithHint(hint)
}

// mayClaim leaves to the operator what attributes outbound mail without a
// proof by the tenant: a wrong claim would take another tenant's mail.
func mayClaim(ctx context.Context, c connection.Connection) error {
	claims := len(c.Networks)+len(c.ClientCert)+len(c.Originator) > 0 || c.Platform != ""
	if claims && caller(ctx).Role != tenant.Operator {
		return fault.New(fault.Denied, "api.addConnection", "networks, client certificates and platforms are the operator's to assign").
			WithHint("Ask the operator to add this connection, or leave those fields out.")
	}
	if connection.OutsideMicrosoft(c) && caller(ctx).Role != tenant.Operator {
		return fault.New(fault.Denied, "api.addConnection", "only the operator connects to another Graph or login service than Microsoft's").
			WithHint("Leave graph and login out, or ask the operator to add this connection.")
	}
	return nil
}

func (s *server) setUpConnection(ctx context.Context, in *struct {
	OneConnection
	Body AskedGrant
}) (*out[connection.Setup], error) {
	c, err := s.connection(ctx, in.OneConnection)
	if err != nil {
		return nil, err
	}
	setup, err := s.Connections.SetUp(ctx, actor(ctx), c.Tenant, c.Name, in.Body.grant())
	return reply(setup), err
}

func (s *server) showConnection(ctx context.Context, in *OneConnection) (*out[Connection], error) {
	c, err := s.connection(ctx, *in)
	return reply(shownConnection(c)), err
}

func (s *server) removeConnection(ctx context.Context, in *OneConnection) (*out[Removed], error) {
	c, err := s.connection(ctx, *in)
	if err != nil {
		return nil, err
	}
	if err := s.Connections.Remove(ctx, actor(ctx), c.Tenant, c.Name); err != nil {
		return nil, err
	}
	return reply(Removed{c.Name, true}), nil
}

func (s *server) testConnection(ctx context.Context, in *testConnection) (*out[connection.TestReport], error) {
	c, err := s.connection(ctx, in.OneConnection)
	if err != nil {
		return nil, err
	}
	var rcpt mail.Address
	if in.Body != nil && in.Body.Rcpt != "" {
		if rcpt, err = mail.ParseAddress(in.Body.Rcpt); err != nil {
			return nil, err
		}
	}
	report, err := s.Connections.Test(ctx, c.Tenant, c.Name, rcpt)
	if err == nil && report.OK {
		// Mail that waits for it need not wait for the next probe. There may
		// be none.
		err = s.Queue.Resume(ctx, string(actor(ctx)), connection.Destination(c.Tenant, c.Name))
		if fault.Is(err, fault.Missing) {
			err = nil
		}
	}
	return reply(report), err
}

func (s *server) setConnection(state string) func(context.Context, *OneConnection) (*out[Connection], error) {
	return func(ctx context.Context, in *OneConnection) (*out[Connection], error) {
		c, err := s.connection(ctx, *in)
		if err != nil {
			return nil, err
		}
		c, err = s.Connections.SetState(ctx, actor(ctx), c.Tenant, c.Name, state)
		return reply(shownConnection(c)), err
	}
}
