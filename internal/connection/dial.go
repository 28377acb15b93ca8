package connection

import (
	"context"
	"errors"

	"github.com/sallyport-mail/sallyport/internal/keeper/client"
	"github.com/sallyport-mail/sallyport/internal/smtp"
)

// dialer opens a connection to a target; smtp.Dial, or a test's that looks at
// the clock.
type dialer func(context.Context, smtp.Target) (*smtp.Client, error)

// Dial opens a candidate: TLS by its rule (opportunistic falls back to clear
// on a second connection), pins checked, AUTH with the opened credential.
// trace is the message on whose behalf. Failures are *smtp.DialError.
func (r *Registry) Dial(ctx context.Context, c Candidate, trace string) (*smtp.Client, error) {
	if c.Rule == TLSMutual {
		r.passes(ctx, place{c.Tenant, c.Connection})
	}
	peer, err := reach(ctx, c, smtp.Dial)
	if err != nil {
		return nil, err
	}
	if err := r.authenticate(ctx, peer, c, trace); err != nil {
		peer.Close()
		return nil, err
	}
	return peer, nil
}

// reach opens the connection, without AUTH.
func reach(ctx context.Context, c Candidate, dial dialer) (*smtp.Client, error) {
	peer, err := dial(ctx, c.Target)
	if err == nil || c.Rule != TLSOpportunistic || !brokenTLS(err) {
		return peer, err
	}
	clear := c.Target
	clear.TLS = smtp.TLSNone
	return dial(ctx, clear)
}

// brokenTLS reports a peer that offers STARTTLS and cannot do it.
func brokenTLS(err error) bool {
	var d *smtp.DialError
	return errors.As(err, &d) && (d.Step == "starttls" || d.Step == "tls")
}

// authenticate says AUTH when the connection has a user.
func (r *Registry) authenticate(ctx context.Context, peer *smtp.Client, c Candidate, trace string) error {
	if c.User == "" {
		return nil
	}
	secret, err := r.c.Credentials.OpenCredential(ctx, client.Use{
		Tenant: c.Tenant, Connection: c.Connection, Purpose: "smtp-auth", Trace: trace,
	})
	if err == nil {
		login := peer.Auth
		if c.Auth == AuthSCRAM {
			login = peer.AuthSCRAM
		}
		err = login(ctx, c.User, secret.Password)
	}
	if err == nil {
		return nil
	}
	if d := (*smtp.DialError)(nil); errors.As(err, &d) {
		return err
	}
	return &smtp.DialError{Step: "auth", Err: err}
}
