package connection

import (
	"context"
	"errors"
	"time"

	"github.com/sallyport-mail/sallyport/internal/keeper/act"
)

// condemn marks the identities compromised, which the keeper refuses from then
// on, and gets what is to be shown instead. One purpose does not wait for the
// issuer of another.
func (c *change) condemn(ctx context.Context) error {
	for _, pair := range c.p.Identities {
		if pair.Taken {
			continue
		}
		if err := c.move(ctx, pair.From, act.Compromised); err != nil {
			return err
		}
	}
	if err := c.endBusy(ctx); err != nil {
		return err
	}
	if err := c.dropTainted(ctx); err != nil {
		return err
	}
	var later error
	for n := range c.p.Identities {
		later = first(later, c.issueOne(ctx, &c.p.Identities[n]))
	}
	if later != nil {
		return errors.Join(later, c.repointAll(ctx, true))
	}
	return nil
}

// first is the error of two that came first.
func first(a, b error) error {
	if a != nil {
		return a
	}
	return b
}

// dropTainted retires what was made ready under a name that is not used any
// more: the keeper holds few of a purpose, and the next one needs a place.
func (c *change) dropTainted(ctx context.Context) error {
	for _, pair := range c.p.Identities {
		mine := ofPurpose(c.all, pair.Purpose)
		for _, i := range mine {
			ready := i.State == act.Wanted || i.State == act.Issued || i.State == act.Staged
			if ready && tainted(mine, i.Epoch) {
				if err := c.end(ctx, i.ID); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// endTime is how long messages under way over a compromised identity's
// sessions have until the partner is told to refuse it.
const endTime = 3 * time.Second

// endBusy ends the sessions of identities that the partner is told to refuse,
// and lets those that carry a message end it.
func (c *change) endBusy(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, endTime)
	defer cancel()
	for {
		left := 0
		for _, pair := range c.p.Identities {
			if pair.From != pair.To {
				left += c.endSessions(c.e, pair.FromSHA)
			}
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

// repoint has the partner take the successors alone, proves it, and shows them
// from then on. What one purpose waits for keeps no other one back.
func (c *change) repoint(ctx context.Context) error { return c.repointAll(ctx, false) }

func (c *change) repointAll(ctx context.Context, ready bool) error {
	var later error
	for n := range c.p.Identities {
		pair := &c.p.Identities[n]
		err := c.issueOne(ctx, pair) // what was chosen may have been compromised meanwhile
		switch {
		case err != nil && ready:
			continue
		case err == nil && pair.Purpose == PurposeClient:
			err = c.repointMail(ctx, *pair)
		case err == nil:
			err = c.repointApp(ctx, *pair)
		}
		later = first(later, err)
	}
	return later
}

func (c *change) repointMail(ctx context.Context, pair Pair) error {
	if err := c.stage(ctx, pair.To); err != nil {
		return err
	}
	if c.e.Kind == KindM365 {
		m, err := c.microsoft("connection.Repoint", c.e)
		if err != nil {
			return err
		}
		if _, err := c.admit(ctx, m, pair.ToName); err != nil {
			return err
		}
	}
	if now := c.tryIdentity(ctx, c.k, c.e, pair.To); !now.accepted && now.aboutUs() {
		return c.waitsAfter(ctx, now, pair, c.repointWords(pair))
	}
	if c.e.Kind != KindM365 && !pair.Taken {
		c.leave("Have the partner's administrator take the compromised certificate off his list now: SHA-256 " + Fingerprint(pair.FromSHA) + ".")
	}
	if err := c.move(ctx, pair.To, act.Active); err != nil {
		return err
	}
	c.unshut(place{c.e.Tenant, c.e.Name})
	return nil
}

// repointWords is what the partner's administrator has to do, in his words.
func (c *change) repointWords(pair Pair) string {
	if c.e.Kind == KindM365 {
		return "Have the customer's administrator set the connector to the new name, so that the old one is refused:\n" + renameConnector(c.e, pair.ToName)
	}
	return "Have the partner's administrator put the certificate with the SHA-256 " + Fingerprint(pair.ToSHA) + " in the place of " + Fingerprint(pair.FromSHA) +
		", for example as this line of relay_clientcerts or check_ccert_access:\n" + fingerprintLine(pair)
}

// repointApp makes the successor's key the only one of the application: by the
// administrator's right, since a proof by the stolen key can't be told from the
// thief's; else by proofs of the new key, as soon as he has registered that.
func (c *change) repointApp(ctx context.Context, pair Pair) error {
	if err := c.stage(ctx, pair.To); err != nil {
		return err
	}
	m, err := c.microsoft("connection.Repoint", c.e)
	if err != nil {
		return err
	}
	next, err := c.identityOf(pair.To)
	if err != nil {
		return err
	}
	told, err := c.keepKey(ctx, m, next.Chain[0])
	if err != nil {
		return err
	}
	if !told {
		if err := c.proveKey(ctx, m, pair, next.Chain[0]); err != nil {
			return err
		}
	}
	if err := c.proveApp(ctx, pair); err != nil {
		return err
	}
	return c.move(ctx, pair.To, act.Active)
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

// takeOver ends what is left of the identities before, and asks whether the
// compromised ones are refused.
func (c *change) takeOver(ctx context.Context) error {
	if c.p.Waiting != "" { // somebody may have changed there what we had told
		if err := c.repoint(ctx); err != nil {
			return err
		}
	}
	for _, pair := range c.p.Identities { // shown already, but for a step that was cut off
		if err := c.move(ctx, pair.To, act.Active); err != nil {
			return err
		}
	}
	if err := c.clear(ctx); err != nil || c.e.Kind != KindM365 {
		return err
	}
	m, err := c.microsoft("connection.TakeOver", c.e)
	if err != nil {
		return err
	}
	refused := true
	for _, pair := range c.p.Identities {
		ask := c.mailRefused
		if pair.Purpose == PurposeApp {
			ask = c.keysRefused
		}
		seen, err := ask(ctx, m, pair)
		if err != nil {
			return err
		}
		refused = refused && seen
	}
	c.p.OldRefused = refused
	return nil
}

// mailRefused sees that no connector lets in the name of a compromised
// identity; false where nobody lets us look.
func (c *change) mailRefused(ctx context.Context, m *microsoft, pair Pair) (bool, error) {
	g, err := c.connectorsOf(ctx, m)
	if err != nil {
		return false, err
	}
	names := map[string]string{}
	if g != nil {
		if names, err = g.admitted(ctx); c.denied(err) != nil {
			return false, err
		}
	}
	if g == nil || err != nil {
		c.leave("Nobody has shown that " + pair.FromName + " is refused: have the customer's administrator look for it in Get-InboundConnector, and let in the new name alone:\n" +
			renameConnector(c.e, pair.ToName))
		return false, nil
	}
	for _, i := range ofPurpose(c.all, PurposeClient) {
		if at := admittedBy(names, i.Name); i.State == act.Compromised && at != "" {
			return false, &waits{"the connector " + at + " still lets in " + i.Name, "Have it removed or renamed in the Exchange admin centre."}
		}
	}
	return true, nil
}

// keysRefused sees that no compromised key is registered on the application.
func (c *change) keysRefused(ctx context.Context, m *microsoft, pair Pair) (bool, error) {
	g, err := m.asApp(pair.To)
	if err != nil {
		return false, err
	}
	app, err := g.Application(ctx, c.e.AppID)
	if err != nil {
		return false, err
	}
	for _, i := range ofPurpose(c.all, PurposeApp) {
		if i.State == act.Compromised && len(i.Chain) > 0 && registered(app, i.Chain[0]) != nil {
			return false, &waits{"the compromised key " + Fingerprint(i.SHA256) + " is registered on the application again", "Have the administrator remove it, and look who has added it."}
		}
	}
	return true, nil
}
