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

	unready map[string]bool // standbys that can't be used now
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
	if isMicrosoft(m.e.Graph) {
		return nil, nil // where there is no such way, no token is opened for it
	}
	g, err := c.grant(ctx, m)
	if err != nil || g == nil || g.admin == nil {
		return nil, err
	}
	g.ours = []string{}
	for _, i := range ofPurpose(c.all, PurposeClient) {
		g.ours = append(g.ours, i.Name)
	}
	return g, nil
}

// admit has the customer's connectors let in exactly these names. told is false
// where that is left to the customer.
func (c *change) admit(ctx context.Context, m *microsoft, names ...string) (told bool, err error) {
	g, err := c.connectorsOf(ctx, m)
	if err != nil || g == nil {
		return false, err
	}
	err = g.accept(ctx, names...)
	return err == nil, c.denied(err)
}

// denied goes on without the administrator's rights where they are not taken
// any more: he may have done by hand what they were for.
func (c *change) denied(err error) error {
	if !fault.Is(err, fault.Denied) {
		return err
	}
	c.g = nil
	c.leave("Microsoft 365 does not take the administrator's token any more. Give another one, which is used at once: sallyport connection setup " +
		c.e.Tenant + " " + c.e.Name + " --admin-token-file FILE.")
	return nil
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
// standby of quiet times), else a new one. A standby that lies apart is taken out
// of there at once: when that can't be, a new one is not waited for long.
func (c *change) issue(ctx context.Context) error {
	for i := range c.p.Identities {
		if err := c.issueOne(ctx, &c.p.Identities[i]); err != nil {
			return err
		}
	}
	return nil
}

func (c *change) issueOne(ctx context.Context, pair *Pair) error {
	next, err := c.ready(ctx, *pair)
	if err != nil {
		return err
	}
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
		c.all = append(c.all, made)
		next = &c.all[len(c.all)-1]
	}
	pair.To, pair.ToSHA, pair.ToName, pair.ToEpoch = next.ID, next.SHA256, next.Name, next.Epoch
	c.p.nameIt()
	if next.State == act.Wanted {
		return &waits{"waiting for the issuer of the next certificate", orText(next.Explanation, "Look at the keeper's log if this lasts.")}
	}
	return nil
}

// follows is the identity that is to be shown: the one that was chosen while
// that is good, of a compromised one the active one where that is, else a
// successor.
func (c *change) follows(p Pair) *act.Identity {
	mine := ofPurpose(c.all, p.Purpose)
	good := func(i *act.Identity) bool {
		return i != nil && !c.unready[i.ID] && i.State != act.Retired && i.State != act.Compromised && !tainted(mine, i.Epoch)
	}
	chosen, shown := byID(c.all, p.To), active(c.all, p.Purpose)
	switch {
	case good(chosen) && (chosen.State != act.Wanted || c.p.Kind != KindCompromise || !good(shown)):
		return chosen
	case c.p.Kind == KindCompromise && good(shown):
		return shown
	}
	return c.successor(p)
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
		if i.ID == p.From || c.unready[i.ID] || i.State == act.Issued && !counts(i, c.now()) {
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

// stage shows the partner an identity that he has not seen yet.
func (c *change) stage(ctx context.Context, id string) error {
	i, err := c.identityOf(id)
	switch {
	case err != nil:
		return err
	case i.State == act.Issued:
		return c.move(ctx, id, act.Staged)
	case i.State == act.Retired || i.State == act.Compromised:
		return fault.New(fault.Conflict, "connection.Step", "identity "+id+" is "+string(i.State)+": no partner is told of it").WithHint("Undo the replacement, and begin it anew.")
	}
	return nil
}

// offer stages the successors and has the partner accept them beside the old
// ones. A partner that we cannot tell is told by its administrator, meanwhile.
func (c *change) offer(ctx context.Context) error {
	for _, pair := range c.p.Identities {
		if err := c.stage(ctx, pair.To); err != nil {
			return err
		}
	}
	if c.e.Kind != KindM365 {
		return nil
	}
	m, err := c.microsoft("connection.Offer", c.e)
	if err != nil {
		return err
	}
	// A renewal tells nothing new, unless somebody has changed what is there.
	if pair := c.p.pair(PurposeClient); pair != nil && (pair.FromName != pair.ToName || c.p.Waiting != "") {
		if _, err := c.admit(ctx, m, pair.FromName, pair.ToName); err != nil {
			return err
		}
	}
	pair := c.p.pair(PurposeApp)
	if pair == nil {
		return nil
	}
	return c.addKey(ctx, m, pair.From, pair.To)
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
	mail := c.p.pair(PurposeClient)
	if c.e.Kind != KindM365 {
		if mail != nil {
			c.leave("Have the partner's administrator take the old certificate off his list: SHA-256 " + Fingerprint(mail.FromSHA) + ".")
		}
		return nil
	}
	m, err := c.microsoft("connection.Drop", c.e)
	if err != nil {
		return err
	}
	if mail != nil && mail.FromName != mail.ToName {
		told, err := c.admit(ctx, m, mail.ToName)
		if err != nil {
			return err
		}
		if !told {
			c.leave("Have the customer's administrator set the connector to the new name and remove the second one:\n" + renameConnector(c.e, mail.ToName))
		}
	}
	pair := c.p.pair(PurposeApp)
	if pair == nil {
		return nil
	}
	return c.dropKey(ctx, m, pair.To, pair.From)
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
