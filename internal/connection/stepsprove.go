package connection

import (
	"context"
	"errors"
	"fmt"

	"github.com/sallyport-mail/sallyport/internal/exchange/entra"
	"github.com/sallyport-mail/sallyport/internal/exchange/wire"
	"github.com/sallyport-mail/sallyport/internal/fault"
)

// prove sees for real that the partner takes the new identities, and still the
// old ones.
func (c *change) prove(ctx context.Context) error {
	if c.p.Waiting != "" { // somebody may have changed there what we had told
		if err := c.offer(ctx); err != nil {
			return err
		}
	}
	if pair := c.p.pair(PurposeClient); pair != nil {
		if err := c.proveMail(ctx, *pair); err != nil {
			return err
		}
	}
	if pair := c.p.pair(PurposeApp); pair != nil {
		return c.proveApp(ctx, *pair)
	}
	return nil
}

func (c *change) proveMail(ctx context.Context, pair Pair) error {
	now := c.tryIdentity(ctx, c.k, c.e, pair.To)
	if now.accepted || now.at == "" && now.takes(c.tryIdentity(ctx, c.k, c.e, pair.From)) {
		return nil
	}
	return c.waitsAfter(ctx, now, pair, c.askPartner(pair))
}

// waitsAfter says what a change waits for whose certificate was not accepted,
// and who has to do what: asked is what the partner's administrator has to do,
// who is asked for nothing that is not his.
func (c *change) waitsAfter(ctx context.Context, t trial, pair Pair, asked string) *waits {
	if t.at != "" {
		return &waits{"waiting for " + t.at + ": " + t.words, t.fix}
	}
	if at := c.letIn(ctx, pair.ToName); at != "" {
		asked = "Nothing has to be done for now: the connector " + at + " names the new certificate, which Exchange Online takes up within some minutes. If this lasts: sallyport connection test " +
			c.e.Tenant + " " + c.e.Name + "."
	}
	return &waits{"waiting for the partner to accept the new certificate: " + t.words, asked}
}

// letIn is the customer's connector that lets a name in; "" for none, or where
// nobody lets us look.
func (c *change) letIn(ctx context.Context, name string) string {
	if c.e.Kind != KindM365 {
		return ""
	}
	m, err := c.microsoft("connection.LetIn", c.e)
	if err != nil {
		return ""
	}
	g, err := c.connectorsOf(ctx, m)
	if err != nil || g == nil {
		return ""
	}
	names, err := g.admitted(ctx)
	if err != nil {
		return ""
	}
	return admittedBy(names, name)
}

// fingerprintLine is a line of a Postfix table of certificates.
func fingerprintLine(pair Pair) string {
	return Fingerprint(pair.ToSHA) + " " + pair.ToName
}

// askPartner is what the partner's administrator has to do, in his words.
func (c *change) askPartner(pair Pair) string {
	if c.e.Kind == KindM365 && pair.FromName == pair.ToName {
		return "Have the customer's administrator let in the name that he has let in before:\n" + renameConnector(c.e, pair.ToName)
	}
	if c.e.Kind == KindM365 {
		return "Have the customer's administrator add this beside the connector that is there:\n" + secondConnector(c.e, pair.ToName)
	}
	return fmt.Sprintf("Have the partner's administrator accept the certificate with the SHA-256 %s beside %s, for example as a further line of relay_clientcerts or check_ccert_access:\n%s",
		Fingerprint(pair.ToSHA), Fingerprint(pair.FromSHA), fingerprintLine(pair))
}

func (c *change) proveApp(ctx context.Context, pair Pair) error {
	m, err := c.microsoft("connection.Prove", c.e)
	if err != nil {
		return err
	}
	g, err := m.asApp(pair.To)
	if err == nil {
		_, err = g.Application(ctx, c.e.AppID)
	}
	if refusedThere(err) {
		return &waits{"waiting for Entra to take the application's new key: " + fault.Sentence(err), fault.HintOf(err)}
	}
	return err
}

// refusedThere reports that Entra or Graph have refused the application, and
// not our own keeper.
func refusedThere(err error) bool {
	var login *entra.Refusal
	return (fault.Is(err, fault.Denied) || fault.Is(err, fault.Missing)) && (errors.As(err, &login) || wire.AsRefusal(err) != nil)
}
