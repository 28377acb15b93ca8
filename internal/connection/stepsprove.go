package connection

import (
	"context"
	"fmt"

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
	if now.accepted || now.takes(c.tryIdentity(ctx, c.k, c.e, pair.From)) {
		return nil
	}
	return &waits{"waiting for the partner to accept the new certificate: " + now.words, c.askPartner(pair)}
}

// askPartner is what the partner's administrator has to do, in his words.
func (c *change) askPartner(pair Pair) string {
	if c.e.Kind == KindM365 && pair.FromName == pair.ToName {
		return "Have the customer's administrator let in the name that he has let in before:\n" + renameConnector(c.e, pair.ToName)
	}
	if c.e.Kind == KindM365 {
		return "Have the customer's administrator add this beside the connector that is there:\n" + secondConnector(c.e, pair.ToName)
	}
	return fmt.Sprintf("Have the partner's administrator accept the certificate with the SHA-256 %s beside %s, for example as a further line of relay_clientcerts or check_ccert_access: %s",
		Fingerprint(pair.ToSHA), Fingerprint(pair.FromSHA), pair.ToName)
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
	if fault.Is(err, fault.Denied) || fault.Is(err, fault.Missing) {
		return &waits{"waiting for Entra to take the application's new key: " + fault.Sentence(err), fault.HintOf(err)}
	}
	return err
}
