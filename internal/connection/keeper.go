package connection

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"maps"
	"net/url"
	"slices"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/keeper/act"
	"github.com/sallyport-mail/sallyport/internal/keeper/client"
)

// Keeper is the custody of a tenant's region, as this room asks it; a
// *client.Remote is one.
type Keeper interface {
	BindConnection(ctx context.Context, tenant, connection string, b act.Binding) error
	ReleaseConnection(ctx context.Context, tenant, connection string) error
	IssueIdentity(ctx context.Context, tenant, connection, purpose string, q act.Issue) (act.Identity, error)
	MoveIdentity(ctx context.Context, of act.Identity, to act.IdentityState) (act.Identity, error)
	ListIdentities(ctx context.Context, tenant, connection string) ([]act.Identity, error)
	Identity(ctx context.Context, id string) (act.Identity, error)
	IdentityCertificate(ctx context.Context, tenant, connection, identity string) (*tls.Certificate, error)
	AssertClient(ctx context.Context, tenant, connection, identity string, life time.Duration) (string, error)
	ProvePossession(ctx context.Context, tenant, connection, identity string, life time.Duration) (string, error)
	SetSecret(ctx context.Context, tenant, connection, purpose string, c client.Credential) error
	RemoveSecret(ctx context.Context, tenant, connection, purpose string) error
	OpenCredential(ctx context.Context, u client.Use) (client.Credential, error)
	Status(ctx context.Context) (act.State, error)
}

// Purposes of what the keeper holds for a connection.
const (
	PurposeClient = "smtp-client" // our certificate at the partner's mail server
	PurposeApp    = "entra-app"   // the key of the customer's app registration
	purposeAdmin  = "m365-admin"  // the administrator's token, a secret
)

// custody is the keeper of a tenant. Kind missing without one: the gateway's
// identities are files then, and nothing here changes them.
func (r *Registry) custody(op, tenant string) (Keeper, error) {
	if r.c.Keepers == nil {
		return nil, fault.New(fault.Missing, op, "this gateway has no keeper, so its identities are files").
			WithHint("Configure a keeper, or put the certificate and key where custody looks for them.")
	}
	k, err := r.c.Keepers(tenant)
	return k, wrap(op, err)
}

// forget has custody ask the keeper anew at the next dial, where it remembers
// which identity a connection shows.
func (r *Registry) forget(e *entry) {
	if f, ok := r.c.Signers.(interface {
		Forget(tenant, connection string)
	}); ok {
		f.Forget(e.Tenant, e.Name)
	}
}

// hasIdentity reports whether a connection shows an identity of ours.
func (e *entry) hasIdentity() bool { return e.TLS == TLSMutual && len(e.Hosts) > 0 }

// purposes are what a connection needs identities for.
func (e *entry) purposes() []string {
	if e.Kind == KindM365 && e.AppID != "" {
		return []string{PurposeClient, PurposeApp}
	}
	return []string{PurposeClient}
}

// binding is the partner that the keeper is told of: the identities of this
// connection can be shown to nobody else.
func (e *entry) binding() act.Binding {
	b := act.Binding{Host: e.Host, Port: uint16(e.Port), ServerName: e.ServerName}
	if b.Host == "" { // bound to the MX of the domains
		b.Host = "mx"
	}
	if b.Port == 0 {
		b.Port = smtpPort
	}
	if e.CA != "" {
		sum := sha256.Sum256([]byte(e.CA))
		b.CA = hex.EncodeToString(sum[:])
	}
	if len(e.Pins) > 0 {
		b.Pin = e.Pins[0][len("sha256:"):]
	}
	if e.Kind != KindM365 {
		return b
	}
	if u, err := url.Parse(e.Login); err == nil {
		b.Authority = u.Host
	}
	b.EntraTenant, b.App, b.AppObject = e.EntraTenant, e.AppID, e.AppObject
	return b
}

// ensure sees that a connection has its binding and an active identity for
// each purpose. What is there stays, so that it may be called again at any
// time: after a crash in the middle of Add it finishes that. A connection that is
// new has nothing to do with what was an earlier one's.
func (r *Registry) ensure(ctx context.Context, e *entry, isNew bool) error {
	const op = "connection.Ensure"
	k, err := r.custody(op, e.Tenant)
	if err != nil {
		return err
	}
	if err := r.bind(ctx, e); err != nil {
		return err
	}
	have, err := k.ListIdentities(ctx, e.Tenant, e.Name)
	if err != nil {
		return wrap(op, err)
	}
	if len(have) == 0 && e.Kind == KindSMTP && r.handMade(ctx, e) {
		return nil
	}
	if p, err := r.underWay(ctx, e.Tenant, e.Name); err != nil || p != nil {
		return wrap(op, err) // that change sees to it
	}
	if isNew {
		if err := r.inherit(ctx, e, have); err != nil {
			return wrap(op, err)
		}
	}
	if begun, err := r.answerLost(ctx, e, have); err != nil || begun {
		return wrap(op, err) // so does that one
	}
	unready := false
	for _, purpose := range e.purposes() {
		err := begin(ctx, k, e, purpose, have)
		if err != nil && err != errIssuer {
			return wrap(op, err)
		}
		unready = unready || err != nil
	}
	r.setUnready(place{e.Tenant, e.Name}, unready)
	return nil
}

// setUnready remembers the connections that Run looks at until their first
// identity is there.
func (r *Registry) setUnready(p place, unready bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !unready {
		delete(r.unready, p)
		return
	}
	if r.unready == nil {
		r.unready = map[place]bool{}
	}
	if !r.unready[p] {
		r.unready[p] = true
		r.kick() // Run may be resting
	}
}

// finish goes on with them, and tells whether none is left.
func (r *Registry) finish(ctx context.Context) (done bool) {
	r.mu.RLock()
	list := slices.Collect(maps.Keys(r.unready))
	r.mu.RUnlock()
	for _, p := range list {
		e := r.entry(p.tenant, p.name)
		if e == nil {
			r.setUnready(p, false)
			continue
		}
		if err := r.ensure(ctx, e, false); err != nil && ctx.Err() == nil {
			r.c.Log.Warn("a connection has no identity yet", "tenant", p.tenant, "connection", p.name, "error", err)
		}
	}
	r.mu.RLock()
	defer r.mu.RUnlock()
	return len(r.unready) == 0
}

// handMade reports an identity that somebody has put beside the keeper by
// hand: the partner knows that one, so it is not replaced unasked.
func (r *Registry) handMade(ctx context.Context, e *entry) bool {
	_, err := r.c.Signers.ClientCertificate(ctx, e.Tenant, e.Name)
	return err == nil
}

// bind tells the keeper which partner a connection's identities and secrets
// are for; one that is bound to the same partner stays as it is.
func (r *Registry) bind(ctx context.Context, e *entry) error {
	const op = "connection.Bind"
	k, err := r.custody(op, e.Tenant)
	if err != nil {
		return err
	}
	return wrap(op, k.BindConnection(ctx, e.Tenant, e.Name, e.binding()))
}

// Bind is for what custody is to hold of a connection beside its identities.
func (r *Registry) Bind(ctx context.Context, tenant, name string) error {
	e := r.entry(tenant, name)
	if e == nil {
		return missing("connection.Bind", tenant, name)
	}
	return r.bind(ctx, e)
}

// begin gives a connection its first identity of a purpose: under a name that
// nobody has seen where an earlier connection of that name has had any.
func begin(ctx context.Context, k Keeper, e *entry, purpose string, have []act.Identity) error {
	if active(have, purpose) != nil {
		return nil
	}
	mine := ofPurpose(have, purpose)
	usable := slices.DeleteFunc(slices.Clone(mine), func(i act.Identity) bool { return tainted(mine, i.Epoch) })
	first := pick(usable, act.Issued)
	if first != nil {
		_, err := k.MoveIdentity(ctx, *first, act.Active)
		if !first.Apart || !fault.Is(err, fault.Later) {
			return err
		}
		first = nil // a standby that can't be taken out of where it lies
	} else if first = pick(usable, act.Wanted); first != nil && first.Apart {
		first = nil // its issuer is not asked while it can't be opened
	}
	if first == nil {
		q := act.Issue{Issuer: e.issuerOf(purpose)}
		for _, i := range mine {
			q.Epoch = max(q.Epoch, i.Epoch+1)
		}
		made, err := k.IssueIdentity(ctx, e.Tenant, e.Name, purpose, q)
		if err != nil {
			return err
		}
		first = &made
	}
	if first.State == act.Wanted {
		return errIssuer // asked over a network: it takes its time
	}
	_, err := k.MoveIdentity(ctx, *first, act.Active)
	return err
}

// errIssuer is an identity that its issuer has not given yet.
var errIssuer = errors.New("the certificate is still with its issuer")

// issuerOf is who issues for a purpose. Entra knows certificates one by one, so
// that the key of an application needs no public authority.
func (e *entry) issuerOf(purpose string) string {
	if purpose == PurposeClient {
		return e.Issuer
	}
	return ""
}

// coming is the identity that a connection has, or will have: the active one,
// else one that is on its way.
func coming(all []act.Identity, purpose string) *act.Identity {
	mine := ofPurpose(all, purpose)
	for _, s := range []act.IdentityState{act.Active, act.Issued, act.Wanted} {
		if i := pick(mine, s); i != nil {
			return i
		}
	}
	return nil
}

// ofPurpose are the identities of one purpose, in the keeper's order.
func ofPurpose(all []act.Identity, purpose string) []act.Identity {
	var list []act.Identity
	for _, i := range all {
		if i.Purpose == purpose {
			list = append(list, i)
		}
	}
	return list
}

// pick is the newest identity in a state, nil for none.
func pick(all []act.Identity, state act.IdentityState) *act.Identity {
	for n := len(all) - 1; n >= 0; n-- {
		if all[n].State == state {
			return &all[n]
		}
	}
	return nil
}

func active(all []act.Identity, purpose string) *act.Identity {
	return pick(ofPurpose(all, purpose), act.Active)
}

func byID(all []act.Identity, id string) *act.Identity {
	for n := range all {
		if all[n].ID == id {
			return &all[n]
		}
	}
	return nil
}

// release ends what the keeper holds for a connection.
func (r *Registry) release(ctx context.Context, e *entry) error {
	if r.c.Keepers == nil || !e.hasIdentity() {
		return nil
	}
	k, err := r.custody("connection.Release", e.Tenant)
	if err == nil {
		err = k.ReleaseConnection(ctx, e.Tenant, e.Name)
	}
	if fault.Is(err, fault.Missing) {
		return nil
	}
	return err
}
