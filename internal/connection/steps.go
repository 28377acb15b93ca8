package connection

import (
	"context"
	"fmt"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/keeper/act"
)

// waits is why a change does not go on by itself for now.
type waits struct{ what, fix string }

func (w *waits) Error() string { return w.what }

// change is one step's view of a change under way.
type change struct {
	*Registry
	e   *entry
	k   Keeper
	all []act.Identity // of the connection, as the step began
	p   *Replacement

	asked bool // for the administrator's rights, once a step
	g     *grant
	gErr  error
}

// grant is the administrator's rights; nil without an error where there are
// none, or none for connectors.
func (c *change) grant(ctx context.Context, m *microsoft) (*grant, error) {
	if !c.asked {
		c.asked = true
		c.g, c.gErr = m.granted(ctx, "")
		if fault.Is(c.gErr, fault.Missing) {
			c.g, c.gErr = nil, nil
		}
	}
	return c.g, c.gErr
}

// connectorsOf is grant where connectors can be set with it.
func (c *change) connectorsOf(ctx context.Context, m *microsoft) (*grant, error) {
	g, err := c.grant(ctx, m)
	if err != nil || g == nil || g.admin == nil {
		return nil, err
	}
	return g, nil
}

// step does what the state asks for and says what has happened then. Every
// step may be done again: a crash between its effect and the record of it
// leads back here.
func (c *change) step(ctx context.Context) (replacementEvent, error) {
	if c.p.Kind == KindCompromise {
		switch c.p.State {
		case Wanted:
			return onIssue, c.condemn(ctx)
		case Issued:
			return onRepoint, c.repoint(ctx)
		case Repointed:
			return onSwitch, c.takeOver(ctx)
		}
	}
	switch c.p.State {
	case Wanted:
		return onIssue, c.issue(ctx)
	case Issued:
		return onOffer, c.offer(ctx)
	case Offered:
		return onAccept, c.prove(ctx)
	case BothAccepted:
		return onSwitch, c.activate(ctx)
	case Switched:
		return onDrain, c.drain(ctx)
	case Draining:
		return onDrop, c.drop(ctx)
	case OldDropped:
		return onRetire, c.retire(ctx)
	case Undoing:
		return onRestore, c.restore(ctx)
	}
	return "", fault.New(fault.Internal, "connection.Step", "nothing is to be done in state "+string(c.p.State))
}

// issue gets the successors: one that is there already (an earlier try, or a
// standby of quiet times), else a new one.
func (c *change) issue(ctx context.Context) error {
	for i := range c.p.Identities {
		pair := &c.p.Identities[i]
		next := c.successor(*pair)
		if next == nil {
			q := act.Issue{Issuer: c.e.issuerOf(pair.Purpose)}
			if c.keepsName(*pair) {
				q.Renew = pair.Epoch
			} else {
				q.Epoch = c.newestEpoch(pair.Purpose) + 1
			}
			made, err := c.k.IssueIdentity(ctx, c.e.Tenant, c.e.Name, pair.Purpose, q)
			if err != nil {
				return err
			}
			next = &made
		}
		if next.State == act.Wanted {
			return &waits{"waiting for the issuer of the next certificate", orText(next.Explanation, "Look at the keeper's log if this lasts.")}
		}
		pair.To, pair.ToSHA, pair.ToName = next.ID, next.SHA256, next.Name
		if pair.Purpose == PurposeClient {
			c.p.To = next.Name
		}
	}
	return nil
}

func (c *change) newestEpoch(purpose string) uint64 {
	var newest uint64
	for _, i := range ofPurpose(c.all, purpose) {
		newest = max(newest, i.Epoch)
	}
	return newest
}

// keepsName reports whether a successor has the name of the one before. That
// of an epoch of which a key was stolen is given to no other.
func (c *change) keepsName(p Pair) bool {
	return c.p.Kind == KindRenew && !tainted(ofPurpose(c.all, p.Purpose), p.Epoch)
}

// successor is an identity that may follow: of the same epoch where the name is
// kept, else of a later one. One that is staged already comes first, one that
// is still with its issuer last.
func (c *change) successor(p Pair) *act.Identity {
	mine := ofPurpose(c.all, p.Purpose)
	fits := func(i act.Identity) bool {
		if i.ID == p.From || i.State == act.Issued && !counts(i, c.now()) {
			return false
		}
		if c.keepsName(p) {
			return i.Epoch == p.Epoch
		}
		return i.Epoch > p.Epoch && !tainted(mine, i.Epoch)
	}
	for _, s := range []act.IdentityState{act.Staged, act.Issued, act.Wanted} {
		for n := len(mine) - 1; n >= 0; n-- {
			if mine[n].State == s && fits(mine[n]) {
				return &mine[n]
			}
		}
	}
	return nil
}

// move brings an identity into a state where it is not in it, or past it.
func (c *change) move(ctx context.Context, id string, to act.IdentityState) error {
	i, err := c.identityOf(id)
	if err != nil || i.State == to {
		return err
	}
	moved, err := c.k.MoveIdentity(ctx, *i, to)
	c.forget(c.e)
	if err == nil {
		*i = moved
	}
	return err
}

func (c *change) identityOf(id string) (*act.Identity, error) {
	if i := byID(c.all, id); i != nil {
		return i, nil
	}
	return nil, fault.New(fault.Missing, "connection.Step", "the keeper has no identity "+id+" any more")
}

// offer stages the successors and has the partner accept them beside the old
// ones. A partner that we cannot tell is told by its administrator, meanwhile.
func (c *change) offer(ctx context.Context) error {
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
	if c.e.Kind != KindM365 {
		return nil
	}
	m, err := c.microsoft("connection.Offer", c.e)
	if err != nil {
		return err
	}
	if err := c.connect(ctx, m, true); err != nil {
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
	return m.addKey(ctx, pair.From, next.Chain[0])
}

// connect has the customer's connectors let in the old and the new name, or
// the new one alone. Without the right to, it is left to the customer.
func (c *change) connect(ctx context.Context, m *microsoft, both bool) error {
	pair := c.p.pair(PurposeClient)
	if pair == nil || pair.FromName == pair.ToName {
		return nil
	}
	g, err := c.connectorsOf(ctx, m)
	switch {
	case err != nil || g == nil:
		return err
	case both:
		return g.accept(ctx, pair.FromName, pair.ToName)
	}
	return g.accept(ctx, pair.ToName)
}

// prove sees for real that the partner takes the new identities, and still the
// old ones.
func (c *change) prove(ctx context.Context) error {
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

// activate makes the new identities the ones that connections show.
func (c *change) activate(ctx context.Context) error {
	for _, pair := range c.p.Identities {
		if err := c.move(ctx, pair.To, act.Active); err != nil {
			return err
		}
	}
	return nil
}

// drain waits until no connection with the old identity is left: idle ones are
// ended, those that carry a message end after it.
func (c *change) drain(ctx context.Context) error {
	pair := c.p.pair(PurposeClient)
	if pair == nil {
		return nil
	}
	if n := c.endSessions(c.e, pair.FromSHA); n > 0 {
		return &waits{fmt.Sprintf("waiting for %d connections with the old identity to end", n), "Nothing needs to be done: each ends with its message."}
	}
	return nil
}

// drop has the partner take the new identities alone.
func (c *change) drop(ctx context.Context) error {
	if c.e.Kind != KindM365 {
		if pair := c.p.pair(PurposeClient); pair != nil {
			c.leave("Have the partner's administrator take the old certificate off his list: SHA-256 " + Fingerprint(pair.FromSHA) + ".")
		}
		return nil
	}
	m, err := c.microsoft("connection.Drop", c.e)
	if err != nil {
		return err
	}
	if err := c.connect(ctx, m, false); err != nil {
		return err
	}
	if pair := c.p.pair(PurposeClient); pair != nil && pair.FromName != pair.ToName && c.g == nil {
		c.leave("Have the customer's administrator set the connector to the new name and remove the second one:\n" + renameConnector(c.e, pair.ToName))
	}
	pair := c.p.pair(PurposeApp)
	if pair == nil {
		return nil
	}
	old, err := c.identityOf(pair.From)
	if err != nil {
		return err
	}
	return m.dropKey(ctx, pair.To, old.Chain[0])
}

// leave notes what a person is to do, once.
func (c *change) leave(note string) {
	for _, have := range c.p.Notes {
		if have == note {
			return
		}
	}
	c.p.Notes = append(c.p.Notes, note)
}

func (c *change) retire(ctx context.Context) error {
	for _, pair := range c.p.Identities {
		if err := c.end(ctx, pair.From); err != nil {
			return err
		}
	}
	return nil
}

// end retires an identity unless it has ended already.
func (c *change) end(ctx context.Context, id string) error {
	i, err := c.identityOf(id)
	if err != nil || i.State == act.Retired || i.State == act.Compromised {
		return err
	}
	return c.move(ctx, id, act.Retired)
}

// restore leads a change back: the old identities are active, no connection
// with a new one is left, the partner takes the old ones alone, the new ones
// are retired.
func (c *change) restore(ctx context.Context) error {
	for _, pair := range c.p.Identities {
		if err := c.move(ctx, pair.From, act.Active); err != nil {
			return err
		}
	}
	if pair := c.p.pair(PurposeClient); pair != nil {
		c.keepSessions(pair.FromSHA)
	}
	if err := c.drainNew(); err != nil {
		return err
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

// drainNew is drain on the way back: mail over a connection with the new
// identity would be refused once the partner has dropped that one.
func (c *change) drainNew() error {
	pair := c.p.pair(PurposeClient)
	if pair == nil || pair.To == "" {
		return nil
	}
	if n := c.endSessions(c.e, pair.ToSHA); n > 0 {
		return &waits{fmt.Sprintf("waiting for %d connections with the new identity to end", n), "Nothing needs to be done: each ends with its message."}
	}
	return nil
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
		g, err := c.connectorsOf(ctx, m)
		switch {
		case err != nil:
			return err
		case g == nil:
			c.leave("Have the customer's administrator remove the second connector, should he have made it.")
		default:
			if err := g.accept(ctx, pair.FromName); err != nil {
				return err
			}
		}
	}
	pair := c.p.pair(PurposeApp)
	if pair == nil || pair.To == "" {
		return nil
	}
	next, err := c.identityOf(pair.To)
	if err != nil {
		return err
	}
	return m.dropKey(ctx, pair.From, next.Chain[0])
}
