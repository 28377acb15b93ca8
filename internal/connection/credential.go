package connection

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/sallyport-mail/sallyport/internal/keeper/client"
	"github.com/sallyport-mail/sallyport/internal/store"
	"github.com/sallyport-mail/sallyport/internal/tenant"
)

// SetCredential stores or replaces the password of a connection; an empty user
// means the connection's own. It is used from the next connection on.
func (r *Registry) SetCredential(ctx context.Context, a tenant.Actor, tenant, name, user, password string) error {
	const op = "connection.SetCredential"
	defer r.lock(tenant)()
	e := r.entry(tenant, name)
	switch {
	case e == nil:
		return missing(op, tenant, name)
	case e.Auth == AuthNone:
		return invalid(op, "connection "+name+" has no AUTH", "Add it with --auth plain or scram, and --user.")
	case user != "" && user != e.User:
		return invalid(op, fmt.Sprintf("the user of connection %s is %s", name, e.User), "Leave the user out.")
	case password == "" || strings.ContainsAny(password, "\x00\r\n"):
		return invalid(op, "the password is empty or has a line end in it", "Give it on one line.")
	}
	// The event comes first: no secret changes without one.
	err := r.c.DB.For(tenant).Change(ctx, func(tx store.TenantTx) error {
		return tx.Audit(r.event(a, "credential.set", tenant, name, e.User))
	})
	if err == nil && r.c.Keepers != nil {
		err = r.bind(ctx, e)
	}
	if err == nil {
		err = r.c.Credentials.SetCredential(ctx, tenant, name, client.Credential{User: e.User, Password: password})
	}
	return wrap(op, err)
}

// Credential is the password that a connection presents, without it.
type Credential struct {
	Tenant     string
	Connection string
	User       string
	SetAt      time.Time
	LastOpened *time.Time // nil: never, or not known
	Opened     *int64     // nil: not known
}

// Credentials lists the passwords that are set for a tenant's connections, in
// order of their names.
func (r *Registry) Credentials(ctx context.Context, tenant string) ([]Credential, error) {
	if r.c.Credentials == nil {
		return nil, nil
	}
	stored, err := r.c.Credentials.ListCredentials(ctx, tenant)
	if err != nil {
		return nil, wrap("connection.Credentials", err)
	}
	var all []Credential
	for _, s := range stored {
		if e := r.entry(tenant, s.Connection); e != nil {
			all = append(all, Credential{Tenant: e.Tenant, Connection: e.Name, User: e.User,
				SetAt: s.SetAt.UTC().Truncate(time.Second), LastOpened: s.LastOpened, Opened: s.Opened})
		}
	}
	return all, nil
}
