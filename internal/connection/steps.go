package connection

import (
	"context"
	"errors"
	"fmt"
	"time"

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
			// A renewal is under the newest name. Where that is not the one in use
			// (a replacement was undone) it gets a new name too.
			q := act.Issue{Epoch: c.newestEpoch(pair.Purpose) + 1}
			if c.p.Kind == KindRenew && q.Epoch == pair.Epoch+1 {
				q.Epoch = 0
			}
			made, err := c.k.IssueIdentity(ctx, c.e.Tenant, c.e.Name, pair.Purpose, q)
			if err != nil {
				return err
			}
			next = &made
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

// successor is an identity that may follow: issued or staged, of a later epoch,
// or for a renewal also of the same.
func (c *change) successor(p Pair) *act.Identity {
	for n := range c.all {
		i := &c.all[n]
		fits := i.Epoch > p.Epoch
		if c.p.Kind == KindRenew {
			fits = i.Epoch >= p.Epoch
		}
		if i.Purpose == p.Purpose && i.ID != p.From && fits && (i.State == act.Issued || i.State == act.Staged) {
			return i
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
		colons(pair.ToSHA), colons(pair.FromSHA), pair.ToName)
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
			c.leave("Have the partner's administrator take the old certificate off his list: SHA-256 " + colons(pair.FromSHA) + ".")
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

// restore leads a change back: the old identities are active, the partner
// takes them alone, the new ones are retired.
func (c *change) restore(ctx context.Context) error {
	for _, pair := range c.p.Identities {
		if err := c.move(ctx, pair.From, act.Active); err != nil {
			return err
		}
	}
	if err := c.unoffer(ctx); err != nil {
		return err
	}
	for _, pair := range c.p.Identities {
		if pair.To == "" {
			continue
		}
		c.endSessions(c.e, pair.ToSHA)
		if err := c.end(ctx, pair.To); err != nil {
			return err
		}
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
			c.leave("Have the partner's administrator take the compromised certificate off his list now: SHA-256 " + colons(pair.FromSHA) + ".")
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
	return "Have the partner's administrator put the SHA-256 " + colons(pair.ToSHA) + " in the place of " + colons(pair.FromSHA) + "."
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
