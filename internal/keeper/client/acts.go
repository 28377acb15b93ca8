package client

import (
	"context"
	"time"

	"github.com/sallyport-mail/sallyport/internal/keeper/act"
)

// The purposes that this package states by itself.
const (
	purposeClient     = "smtp-client"
	purposeServer     = "smtp-server"
	purposeApp        = "entra-app"
	purposeCredential = "credential"
	purposeOperator   = "operator"
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
	_, err := ask[act.Done](ctx, r, act.SetCredential, act.NewCredential{
		Context: r.about(ctx, tenant, connection, purposeCredential), User: c.User, Password: c.Password,
	})
	return err
}

// RemoveCredential is of Credentials.
func (r *Remote) RemoveCredential(ctx context.Context, tenant, connection string) error {
	_, err := ask[act.Done](ctx, r, act.RemoveCredential, act.Plain{Context: r.about(ctx, tenant, connection, purposeCredential)})
	return err
}

// ListCredentials is of Credentials.
func (r *Remote) ListCredentials(ctx context.Context, tenant string) ([]CredentialInfo, error) {
	got, err := ask[act.CredentialList](ctx, r, act.ListCredentials, act.Plain{Context: r.about(ctx, tenant, "", purposeCredential)})
	var list []CredentialInfo
	for _, c := range got.Credentials {
		list = append(list, CredentialInfo(c))
	}
	return list, err
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

// AssertClient asks for a client assertion of a connection's app.
func (r *Remote) AssertClient(ctx context.Context, tenant, connection string, life time.Duration) (string, error) {
	got, err := ask[act.JWT](ctx, r, act.AssertClient, act.Assertion{
		Context: r.about(ctx, tenant, connection, purposeApp), LifeSeconds: int(life / time.Second),
	})
	return got.Token, err
}

// ProvePossession asks for the proof that Graph's addKey and removeKey take.
func (r *Remote) ProvePossession(ctx context.Context, tenant, connection string, life time.Duration) (string, error) {
	got, err := ask[act.JWT](ctx, r, act.ProvePossession, act.Assertion{
		Context: r.about(ctx, tenant, connection, purposeApp), LifeSeconds: int(life / time.Second),
	})
	return got.Token, err
}

// IssueIdentity asks for an identity of a connection.
func (r *Remote) IssueIdentity(ctx context.Context, tenant, connection, purpose string, epoch uint64, life time.Duration) (act.Issued, error) {
	return ask[act.Issued](ctx, r, act.IssueIdentity, act.Issue{
		Context: r.about(ctx, tenant, connection, purpose), Epoch: epoch, LifeSeconds: int(life / time.Second),
	})
}

// Order hands in an order that operators signed; the keeper verifies it.
func (r *Remote) Order(ctx context.Context, order []byte) error {
	_, err := ask[act.Done](ctx, r, act.Order, act.SignedOrder{Context: r.about(ctx, "", "", purposeOperator), Order: order})
	return err
}

// Checkpoint asks for a signed checkpoint of the ledger.
func (r *Remote) Checkpoint(ctx context.Context) (string, error) {
	got, err := ask[act.Log](ctx, r, act.Checkpoint, act.Plain{Context: r.about(ctx, "", "", "ledger")})
	return got.Note, err
}

// Status asks how the keeper is.
func (r *Remote) Status(ctx context.Context) (act.State, error) {
	return ask[act.State](ctx, r, act.Status, act.Plain{Context: r.about(ctx, "", "", "status")})
}
