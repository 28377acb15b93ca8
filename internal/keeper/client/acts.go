package client

import (
	"context"
	"encoding/json"
	"io"
	"strings"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/keeper/act"
)

// The purposes that this package states by itself.
const (
	purposeClient   = "smtp-client"
	purposeServer   = "smtp-server"
	purposeApp      = "entra-app"
	purposeAuth     = "smtp-auth"
	purposeOperator = "operator"
	purposeBinding  = "binding"
	purposeList     = "list"
	purposeLedger   = "ledger"
	purposeAcme     = "acme"
	purposeSighting = "sighting"
)

// OpenCredential is of Credentials.
func (r *Remote) OpenCredential(ctx context.Context, u Use) (Credential, error) {
	if u.Trace != "" {
		ctx = WithTrace(ctx, u.Trace)
	}
	got, err := ask[act.Credential](ctx, r, act.OpenCredential, act.Plain{Context: r.about(ctx, u.Tenant, u.Connection, u.Purpose)})
	return Credential{User: got.User, Password: got.Password}, err
}

// SetCredential is of Credentials.
func (r *Remote) SetCredential(ctx context.Context, tenant, connection string, c Credential) error {
	return r.SetSecret(ctx, tenant, connection, purposeAuth, c)
}

// SetSecret stores or replaces a connection's secret of a purpose: smtp-auth or
// m365-admin. The connection is bound before.
func (r *Remote) SetSecret(ctx context.Context, tenant, connection, purpose string, c Credential) error {
	_, err := ask[act.Done](ctx, r, act.SetCredential, act.NewCredential{
		Context: r.about(ctx, tenant, connection, purpose), User: c.User, Password: c.Password,
	})
	return err
}

// RemoveCredential is of Credentials.
func (r *Remote) RemoveCredential(ctx context.Context, tenant, connection string) error {
	return r.RemoveSecret(ctx, tenant, connection, purposeAuth)
}

// RemoveSecret removes a connection's secret of a purpose; kind missing when
// none was set.
func (r *Remote) RemoveSecret(ctx context.Context, tenant, connection, purpose string) error {
	_, err := ask[act.Done](ctx, r, act.RemoveCredential, act.Plain{Context: r.about(ctx, tenant, connection, purpose)})
	return err
}

// ListCredentials is of Credentials.
func (r *Remote) ListCredentials(ctx context.Context, tenant string) ([]CredentialInfo, error) {
	all, err := r.ListSecrets(ctx, tenant)
	var list []CredentialInfo
	for _, c := range all {
		if c.Purpose == purposeAuth {
			list = append(list, CredentialInfo{Connection: c.Connection, SetAt: c.SetAt, LastOpened: c.LastOpened, Opened: c.Opened})
		}
	}
	return list, err
}

// ListSecrets describes a tenant's secrets of every purpose.
func (r *Remote) ListSecrets(ctx context.Context, tenant string) ([]act.CredentialInfo, error) {
	got, err := ask[act.CredentialList](ctx, r, act.ListCredentials, act.Plain{Context: r.about(ctx, tenant, "", purposeList)})
	return got.Credentials, err
}

// SignDKIM asks for a DKIM-Signature by one of the tenant's identities.
func (r *Remote) SignDKIM(ctx context.Context, tenant, identity string, m act.Mail) (act.Field, error) {
	return ask[act.Field](ctx, r, act.SignDKIM, act.DKIM{Context: r.about(ctx, tenant, "", "dkim"), Identity: identity, Mail: m})
}

// SealARC asks for the next ARC set; what q says of its context is replaced.
func (r *Remote) SealARC(ctx context.Context, tenant string, q act.ARC) (act.Set, error) {
	q.Context = r.about(ctx, tenant, "", "arc")
	return ask[act.Set](ctx, r, act.SealARC, q)
}

// AssertClient asks for a client assertion of a connection's app, by the active
// identity, or by the one of that id.
func (r *Remote) AssertClient(ctx context.Context, tenant, connection, identity string, life time.Duration) (string, error) {
	got, err := ask[act.JWT](ctx, r, act.AssertClient, act.Assertion{
		Context: r.about(ctx, tenant, connection, purposeApp), Identity: identity, LifeSeconds: int(life / time.Second),
	})
	return got.Token, err
}

// ProvePossession asks for the proof that Graph's addKey and removeKey take, by
// the active identity, or by the one of that id.
func (r *Remote) ProvePossession(ctx context.Context, tenant, connection, identity string, life time.Duration) (string, error) {
	got, err := ask[act.JWT](ctx, r, act.ProvePossession, act.Assertion{
		Context: r.about(ctx, tenant, connection, purposeApp), Identity: identity, LifeSeconds: int(life / time.Second),
	})
	return got.Token, err
}

// BindConnection gives a new connection its partner.
func (r *Remote) BindConnection(ctx context.Context, tenant, connection string, b act.Binding) error {
	_, err := ask[act.Done](ctx, r, act.BindConnection, act.Bind{Context: r.about(ctx, tenant, connection, purposeBinding), Binding: b})
	return err
}

// ReleaseConnection ends what the keeper holds for a connection: identities are
// retired, the credential and the binding are gone.
func (r *Remote) ReleaseConnection(ctx context.Context, tenant, connection string) error {
	_, err := ask[act.Done](ctx, r, act.ReleaseConnection, act.Plain{Context: r.about(ctx, tenant, connection, purposeBinding)})
	return err
}

// IssueIdentity asks for an identity of a connection; what q says of its
// context is replaced.
func (r *Remote) IssueIdentity(ctx context.Context, tenant, connection, purpose string, q act.Issue) (act.Identity, error) {
	q.Context = r.about(ctx, tenant, connection, purpose)
	return ask[act.Identity](ctx, r, act.IssueIdentity, q)
}

// MoveIdentity brings an identity into another state. One of our host names that
// is compromised is shown at no handshake that begins afterwards.
func (r *Remote) MoveIdentity(ctx context.Context, of act.Identity, to act.IdentityState) (act.Identity, error) {
	got, err := ask[act.Identity](ctx, r, act.MoveIdentity, act.Move{
		Context: r.about(ctx, of.Tenant, of.Connection, of.Purpose), Identity: of.ID, To: to,
	})
	if err == nil && of.Tenant == "" && to == act.Compromised {
		r.forgetHost(strings.ToLower(of.Connection))
		r.c.HostEnded(got.SHA256)
	}
	return got, err
}

// ListIdentities lists identities: of a tenant, of its connection, or, where
// these are empty, of the region. All pages are read.
func (r *Remote) ListIdentities(ctx context.Context, tenant, connection string) ([]act.Identity, error) {
	var all []act.Identity
	for after := ""; ; {
		got, err := ask[act.IdentityList](ctx, r, act.ListIdentities, act.IdentityQuery{Context: r.about(ctx, tenant, connection, purposeList), After: after})
		if err != nil {
			return nil, err
		}
		all = append(all, got.Identities...)
		if after = got.Next; after == "" {
			return all, nil
		}
	}
}

// Identity is one identity; kind missing when there is none of that id.
func (r *Remote) Identity(ctx context.Context, id string) (act.Identity, error) {
	got, err := ask[act.IdentityList](ctx, r, act.ListIdentities, act.IdentityQuery{Context: r.about(ctx, "", "", purposeList), Identity: id})
	if err != nil {
		return act.Identity{}, err
	}
	if len(got.Identities) == 0 {
		return act.Identity{}, fault.New(fault.Missing, "client.Identity", "there is no identity "+id).WithHint("Look at: identity list")
	}
	return got.Identities[0], nil
}

// AcmeChallenge is the body to answer an ACME HTTP-01 challenge with; missing
// when no issuer of the keeper waits for that token.
func (r *Remote) AcmeChallenge(ctx context.Context, token string) (string, error) {
	got, err := ask[act.KeyAuthorization](ctx, r, act.AcmeChallenge, act.Challenge{Context: r.about(ctx, "", "", purposeAcme), Token: token})
	return got.KeyAuthorization, err
}

// EnterEvents enters audit events of the gateway; one that is there already is
// not entered again.
func (r *Remote) EnterEvents(ctx context.Context, events []act.Event) error {
	_, err := ask[act.Done](ctx, r, act.EnterEvents, act.Events{Context: r.about(ctx, "", "", purposeLedger), Events: events})
	return err
}

// SearchLedger finds entries in the order of their indexes, and says where to
// go on; the tenant, when there is one, and what q asks for narrow it.
func (r *Remote) SearchLedger(ctx context.Context, tenant, connection string, q act.Search) (act.Entries, error) {
	q.Context = r.about(ctx, tenant, connection, purposeLedger)
	return ask[act.Entries](ctx, r, act.SearchLedger, q)
}

// ShowEntry is one entry of the ledger.
func (r *Remote) ShowEntry(ctx context.Context, index int64) (json.RawMessage, error) {
	got, err := ask[act.Document](ctx, r, act.ShowEntry, act.Entry{Context: r.about(ctx, "", "", purposeLedger), Index: index})
	return got.Document, err
}

// ProveEntry is the proof of one entry, which anybody can check.
func (r *Remote) ProveEntry(ctx context.Context, index int64) (json.RawMessage, error) {
	got, err := ask[act.Document](ctx, r, act.ProveEntry, act.Entry{Context: r.about(ctx, "", "", purposeLedger), Index: index})
	return got.Document, err
}

// ExportLedger copies the whole log to w as it comes; the time is ctx's.
func (r *Remote) ExportLedger(ctx context.Context, w io.Writer) error {
	return r.copy(ctx, act.ExportLedger, act.Plain{Context: r.about(ctx, "", "", purposeLedger)}, w)
}

// Order hands in an order that operators signed; the keeper verifies it, and
// says what it did.
func (r *Remote) Order(ctx context.Context, order []byte) (act.Ordered, error) {
	return ask[act.Ordered](ctx, r, act.Order, act.SignedOrder{Context: r.about(ctx, "", "", purposeOperator), Order: order})
}

// ReportSighting tells the keeper that a decoy was used at its partner; kind
// missing when the code is none. What q says of its context is replaced.
func (r *Remote) ReportSighting(ctx context.Context, q act.Sighting) error {
	q.Context = r.about(ctx, "", "", purposeSighting)
	_, err := ask[act.Done](ctx, r, act.ReportSighting, q)
	return err
}

// Checkpoint asks for a signed checkpoint of the ledger.
func (r *Remote) Checkpoint(ctx context.Context) (string, error) {
	got, err := ask[act.Log](ctx, r, act.Checkpoint, act.Plain{Context: r.about(ctx, "", "", purposeLedger)})
	return got.Note, err
}

// Status asks how the keeper is.
func (r *Remote) Status(ctx context.Context) (act.State, error) {
	return ask[act.State](ctx, r, act.Status, act.Plain{Context: r.about(ctx, "", "", "status")})
}
