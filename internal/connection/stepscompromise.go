package connection

import (
	"context"
	"errors"
	"time"

	"github.com/sallyport-mail/sallyport/internal/keeper/act"
)

// condemn marks the identity compromised, which the keeper refuses from then
// on, and gets its successor.
func (c *change) condemn(ctx context.Context) error {
	for _, pair := range c.p.Identities {
		if err := c.move(ctx, pair.From, act.Compromised); err != nil {
			return err
		}
	}
	if err := c.issue(ctx); err != nil {
		return err
	}
	return c.endBusy(ctx)
}

// endTime is how long messages under way over a compromised identity's
// sessions have until the partner is told to refuse it.
const endTime = 3 * time.Second

// endBusy ends the sessions of compromised identities, and lets those that
// carry a message end it.
func (c *change) endBusy(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, endTime)
	defer cancel()
	for {
		left := 0
		for _, pair := range c.p.Identities {
			left += c.endSessions(c.e, pair.FromSHA)
		}
		if left == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// repoint has the partner take the successor alone, and proves it.
func (c *change) repoint(ctx context.Context) error {
	for _, pair := range c.p.Identities {
		i, err := c.identityOf(pair.To)
		if err != nil {
			return err
		}
		if i.State == act.Issued {
			if err := c.move(ctx, pair.To, act.Staged); err != nil {
				return err
			}
		}
	}
	if c.e.Kind == KindM365 {
		if err := c.repointMicrosoft(ctx); err != nil {
			return err
		}
	}
	if pair := c.p.pair(PurposeClient); pair != nil {
		if now := c.tryIdentity(ctx, c.k, c.e, pair.To); !now.accepted && now.aboutUs() {
			return &waits{"waiting for the partner to accept the new certificate: " + now.words, c.repointWords(*pair)}
		}
		if c.e.Kind != KindM365 {
			c.leave("Have the partner's administrator take the compromised certificate off his list now: SHA-256 " + Fingerprint(pair.FromSHA) + ".")
		}
	}
	if pair := c.p.pair(PurposeApp); pair != nil {
		return c.proveApp(ctx, *pair)
	}
	return nil
}

func (c *change) repointWords(pair Pair) string {
	if c.e.Kind == KindM365 {
		return "Have the customer's administrator set the connector to the new name, so that the old one is refused:\n" + renameConnector(c.e, pair.ToName)
	}
	return "Have the partner's administrator put the SHA-256 " + Fingerprint(pair.ToSHA) + " in the place of " + Fingerprint(pair.FromSHA) + "."
}

func (c *change) repointMicrosoft(ctx context.Context) error {
	m, err := c.microsoft("connection.Repoint", c.e)
	if err != nil {
		return err
	}
	if err := c.connect(ctx, m, false); err != nil {
		return err
	}
	pair := c.p.pair(PurposeApp)
	if pair == nil {
		return nil
	}
	next, err := c.identityOf(pair.To)
	if err != nil {
		return err
	}
	g, err := c.grant(ctx, m)
	if err == nil && g == nil {
		return &waits{"waiting for the customer to replace the application's key", "Have the administrator of the Entra tenant remove every certificate of the app registration " +
			c.e.AppID + " and upload this one:\n" + pemOf(next.Chain[0])}
	}
	if err != nil {
		return err
	}
	if err := g.keepKeys(ctx, next.Chain[0]); err != nil {
		return err
	}
	c.p.OldRefused = true // Entra has no other key of this application
	return nil
}

// clear retires what a change that was given up has left behind: the partner
// takes the successor alone.
func (c *change) clear(ctx context.Context) error {
	for _, pair := range c.p.Identities {
		for _, i := range ofPurpose(c.all, pair.Purpose) {
			if i.ID != pair.To && (i.State == act.Active || i.State == act.Retiring || i.State == act.Staged) {
				if err := c.end(ctx, i.ID); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// takeOver makes the successor the one that is shown, and asks whether the old
// name is refused.
func (c *change) takeOver(ctx context.Context) error {
	if err := c.activate(ctx); err != nil {
		return err
	}
	if err := c.clear(ctx); err != nil {
		return err
	}
	pair := c.p.pair(PurposeClient)
	if c.e.Kind != KindM365 || pair == nil {
		return nil
	}
	m, err := c.microsoft("connection.TakeOver", c.e)
	if err != nil {
		return err
	}
	g, err := c.connectorsOf(ctx, m)
	if err == nil && g == nil {
		c.leave("Nobody has shown that " + pair.FromName + " is refused: have the customer's administrator look for it in Get-InboundConnector.")
		return nil
	}
	if err != nil {
		return err
	}
	names, err := g.admitted(ctx)
	for connector, name := range names {
		if covers(name, pair.FromName) {
			return errors.Join(err, &waits{"the connector " + connector + " still lets in " + pair.FromName, "Have it removed or renamed in the Exchange admin centre."})
		}
	}
	if err == nil {
		c.p.OldRefused = true
	}
	return err
}
