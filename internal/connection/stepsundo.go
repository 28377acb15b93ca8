package connection

import (
	"context"
	"fmt"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/keeper/act"
)

// restore leads a change back: the old identities are active, the partner
// takes them alone, the new ones are retired. Where the new ones are shown
// already it goes through both gates as the way there does: the partner takes
// both again before anything is switched, and no connection with the new one is
// left when he drops that.
func (c *change) restore(ctx context.Context) error {
	if err := c.offerBack(ctx); err != nil {
		return err
	}
	for _, pair := range c.p.Identities {
		if err := c.move(ctx, pair.From, act.Active); err != nil {
			return err
		}
	}
	if pair := c.p.pair(PurposeClient); pair != nil && pair.To != "" {
		c.keepSessions(pair.FromSHA)
		if n := c.endSessions(c.e, pair.ToSHA); n > 0 {
			return &waits{fmt.Sprintf("waiting for %d connections with the new identity to end", n), "Nothing needs to be done: each ends with its message."}
		}
	}
	if err := c.unoffer(ctx); err != nil {
		return err
	}
	for _, pair := range c.p.Identities {
		if pair.To == "" {
			continue
		}
		if err := c.end(ctx, pair.To); err != nil {
			return err
		}
	}
	return nil
}

// shows reports a pair whose new identity is the one that is shown.
func (c *change) shows(pair *Pair) bool {
	if pair == nil {
		return false
	}
	i := byID(c.all, pair.To)
	return i != nil && i.State == act.Active
}

// offerBack has the partner accept the old identities beside the new ones where
// these are shown: he may have dropped them already, in the step that was cut
// off.
func (c *change) offerBack(ctx context.Context) error {
	mail, app := c.p.pair(PurposeClient), c.p.pair(PurposeApp)
	if c.shows(mail) {
		if err := c.offerMailBack(ctx, *mail); err != nil {
			return err
		}
	}
	if !c.shows(app) {
		return nil
	}
	m, err := c.microsoft("connection.Undo", c.e)
	if err != nil {
		return err
	}
	if err := m.signsIn(ctx, app.From); !fault.Is(err, fault.Denied) {
		return err
	}
	return c.addKey(ctx, m, app.To, app.From)
}

func (c *change) offerMailBack(ctx context.Context, pair Pair) error {
	if c.e.Kind == KindM365 && pair.FromName != pair.ToName {
		m, err := c.microsoft("connection.Undo", c.e)
		if err != nil {
			return err
		}
		if _, err := c.admit(ctx, m, pair.FromName, pair.ToName); err != nil {
			return err
		}
	}
	return c.proveMail(ctx, pair.back())
}

// unoffer takes back what the partner was told.
func (c *change) unoffer(ctx context.Context) error {
	if c.e.Kind != KindM365 {
		return nil
	}
	m, err := c.microsoft("connection.Undo", c.e)
	if err != nil {
		return err
	}
	if pair := c.p.pair(PurposeClient); pair != nil && pair.To != "" && pair.FromName != pair.ToName {
		told, err := c.admit(ctx, m, pair.FromName)
		if err != nil {
			return err
		}
		if !told {
			c.leave("Have the customer's administrator remove the second connector, should he have made it.")
		}
	}
	pair := c.p.pair(PurposeApp)
	if pair == nil || pair.To == "" {
		return nil
	}
	return c.dropKey(ctx, m, pair.From, pair.To)
}
