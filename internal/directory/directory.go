package directory

import (
	"context"
	"log/slog"
	"strings"
	"time"

	"github.com/sallyport-mail/sallyport/internal/connection"
	"github.com/sallyport-mail/sallyport/internal/mail"
	"github.com/sallyport-mail/sallyport/internal/store"
	"github.com/sallyport-mail/sallyport/internal/tenant"
)

// Config of the directory.
type Config struct {
	DB          *store.DB // control
	Tenants     *tenant.Registry
	Connections *connection.Registry
	Hello       string // EHLO name for probes
	Log         *slog.Logger
	Now         func() time.Time
}

// Answer is what is known of an address.
type Answer int

const (
	Unknown Answer = iota // it does not exist: 550 5.1.1
	Known
	Later // nobody can tell now: 451 4.1.1... the server is away and the address was never seen
)

// Directory knows recipients.
type Directory struct {
	c      Config
	listed *memory
	probes *prober
}

// New has the tenant registry remove a tenant's and a domain's rows with it.
func New(ctx context.Context, c Config) (*Directory, error) {
	x := &Directory{c: c, listed: newMemory(), probes: newProber(c)}
	c.Connections.OnRetire(x.probes.idle.end)
	c.Connections.OnReturn(x.probes.idle.back)
	c.Tenants.OnRemove(tenant.Hook{Tenant: removeTenant, Domain: removeDomain, Done: x.forget})
	return x, nil
}

// Close ends the probes under way and the connections kept for more.
func (x *Directory) Close() { x.probes.close() }

// Check answers for an address of domain d. text is the far end's words for a
// probe that said no, or why nobody can tell.
func (x *Directory) Check(ctx context.Context, d tenant.Domain, a mail.Address) (ans Answer, text string) {
	// RFC 5321 4.5.1 and RFC 2142 2: these exist everywhere.
	if strings.EqualFold(a.Local, "postmaster") || strings.EqualFold(a.Local, "abuse") {
		return Known, ""
	}
	if d.PlusTags {
		a.Local = withoutTag(a.Local)
	}
	switch d.Recipients {
	case tenant.RecipientsNone:
		return Known, ""
	case tenant.RecipientsList:
		return x.checkList(ctx, d, a)
	default:
		return x.probes.check(ctx, d, a)
	}
}

// withoutTag is the mailbox of user+tag.
func withoutTag(local string) string {
	if strings.HasPrefix(local, `"`) {
		return local
	}
	if at := strings.IndexByte(local, '+'); at > 0 {
		return local[:at]
	}
	return local
}

// AcceptsAll reports whether a tenant's server was last seen to accept an
// address that nobody has: then a probe proves nothing, and refusals come too
// late to be told to the sender.
func (x *Directory) AcceptsAll(tenant, domain string) bool {
	return x.probes.acceptsAll(tenant, domain)
}

// Sweep forgets answers that were not asked for in a long time.
func (x *Directory) Sweep(ctx context.Context) (int64, error) { return x.probes.sweep(ctx) }

// removeTenant and removeDomain are hooks of the tenant registry.
func removeTenant(tx store.TenantTx) error {
	for _, q := range []store.TenantSQL{deleteAllRecipients, deleteAllProbes} {
		if _, err := tx.Exec(q); err != nil {
			return err
		}
	}
	return nil
}

func removeDomain(tx store.TenantTx, domain string) error {
	for _, q := range []store.TenantSQL{deleteDomainRecipients, deleteDomainProbes} {
		if _, err := tx.Exec(q, domain); err != nil {
			return err
		}
	}
	return nil
}

// forget drops what is remembered. It is all of it: a domain is removed so
// seldom that finding its own part pays for nothing.
func (x *Directory) forget(string, string) {
	x.listed.clear()
	x.probes.forget()
}
