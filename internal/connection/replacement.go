package connection

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"slices"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/keeper/act"
	"github.com/sallyport-mail/sallyport/internal/store"
	"github.com/sallyport-mail/sallyport/internal/tenant"
)

// Kinds of a change.
const (
	KindReplace    = "replace"    // the next epoch, through both gates
	KindRenew      = "renew"      // the same name, a new key
	KindCompromise = "compromise" // the next epoch, and the old one refused at once
)

// Replacement is a change of a connection's identities.
type Replacement struct {
	ID         string           `json:"id"`
	Tenant     string           `json:"tenant"`
	Connection string           `json:"connection"`
	Kind       string           `json:"kind"`
	State      ReplacementState `json:"state"`
	// From is the name of the identity before: of mail where that changes, else
	// of the application. To is the one after, "" while it is not chosen.
	From       string            `json:"from"`
	To         string            `json:"to"`
	Identities []Pair            `json:"identities"`
	Steps      []ReplacementStep `json:"steps"`
	Waiting    string            `json:"waiting"` // for what, "" for nothing
	Fix        string            `json:"fix"`     // who has to do what about it
	Notes      []string          `json:"notes"`   // what is left to a person
	Actor      string            `json:"actor"`
	// OldRefused: it was shown that the partner refuses the old identity.
	OldRefused bool `json:"old_refused"`
	// Of the tenant's mail over this connection while the change was under way:
	// how many recipients the partner refused because of who we are, and the
	// longest time from acceptance to delivery. -1: not measured.
	Refused    int       `json:"refused"`
	DelayedMax int64     `json:"delayed_max_ms"`
	StartedAt  time.Time `json:"started_at"`
	ChangedAt  time.Time `json:"changed_at"`

	read string // as it stands in the database
}

// Pair is one identity and its successor, by id.
type Pair struct {
	Purpose  string `json:"purpose"`
	From     string `json:"from"`
	To       string `json:"to"`
	FromSHA  string `json:"from_sha256"`
	ToSHA    string `json:"to_sha256"`
	FromName string `json:"from_name"`
	ToName   string `json:"to_name"`
	Epoch    uint64 `json:"epoch"`    // of From
	ToEpoch  uint64 `json:"to_epoch"` // of To, 0 while that is not chosen
	// Taken: of a compromise, From is not the compromised one. Its change was
	// under way when another of the connection's identities was compromised.
	Taken bool `json:"taken,omitempty"`
}

// ReplacementStep is a state that was reached.
type ReplacementStep struct {
	State ReplacementState `json:"state"`
	At    time.Time        `json:"at"`
}

// OK reports whether the change has come to its end.
func (p *Replacement) OK() bool { return p.State == Done }

func (p *Replacement) pair(purpose string) *Pair {
	for i := range p.Identities {
		if p.Identities[i].Purpose == purpose {
			return &p.Identities[i]
		}
	}
	return nil
}

// StartReplacement asks for the next epoch of a connection's identities; the
// work is done by Run. One that is under way is returned as it is.
func (r *Registry) StartReplacement(ctx context.Context, a tenant.Actor, tenant, name, kind string) (Replacement, error) {
	const op = "connection.Replace"
	e := r.entry(tenant, name)
	if e == nil {
		return Replacement{}, missing(op, tenant, name)
	}
	if !e.hasIdentity() {
		return Replacement{}, invalid(op, "connection "+name+" shows no identity", "Only connections of kind m365 or with --tls mutual have one.")
	}
	have, err := r.underWay(ctx, tenant, name)
	if err == nil && have == nil {
		have, err = r.start(ctx, a, e, kind)
	}
	if err != nil {
		return Replacement{}, wrap(op, err)
	}
	return *have, nil
}

// start begins a change of what is active now: nothing else changes that
// meanwhile.
func (r *Registry) start(ctx context.Context, a tenant.Actor, e *entry, kind string) (*Replacement, error) {
	unlock, err := r.busy.urgent(ctx, place{e.Tenant, e.Name}) // before a standby that is being made
	if err != nil {
		return nil, err
	}
	defer unlock()
	if have, err := r.underWay(ctx, e.Tenant, e.Name); err != nil || have != nil {
		return have, err
	}
	_, all, err := r.identities(ctx, e)
	if err != nil {
		return nil, err
	}
	p := r.newReplacement(a, e, kind)
	for _, purpose := range e.purposes() {
		i := active(all, purpose)
		if i == nil {
			return nil, fault.New(fault.Conflict, "connection.Replace", "connection "+e.Name+" has no active identity for "+purpose).
				WithHint(r.fixNoIdentity(ctx, e))
		}
		p.add(*i)
	}
	if err := r.insertReplacement(ctx, a, &p, nil); err != nil {
		return nil, err
	}
	r.kick()
	return &p, nil
}

func (r *Registry) newReplacement(a tenant.Actor, e *entry, kind string) Replacement {
	now := r.now()
	return Replacement{
		ID: ulid.Make().String(), Tenant: e.Tenant, Connection: e.Name, Kind: kind, State: Wanted, Actor: string(a),
		Steps: []ReplacementStep{{Wanted, now}}, Identities: []Pair{}, Notes: []string{}, Refused: -1, DelayedMax: -1, StartedAt: now, ChangedAt: now,
	}
}

// add takes an identity into the change.
func (p *Replacement) add(i act.Identity) {
	p.Identities = append(p.Identities, Pair{Purpose: i.Purpose, From: i.ID, FromSHA: i.SHA256, FromName: i.Name, Epoch: i.Epoch})
	p.nameIt()
}

// nameIt takes the names before and after from the pair that stands for the
// change: that of mail where there is one.
func (p *Replacement) nameIt() {
	lead := p.pair(PurposeClient)
	if lead == nil && len(p.Identities) > 0 {
		lead = &p.Identities[0]
	}
	if lead != nil {
		p.From, p.To = lead.FromName, lead.ToName
	}
}

// UndoReplacement has the change under way go back to where it began. Kind
// conflict once the partner has dropped the old identity.
func (r *Registry) UndoReplacement(ctx context.Context, a tenant.Actor, tenant, name string) (Replacement, error) {
	const op = "connection.Undo"
	unlock, err := r.busy.urgent(ctx, place{tenant, name})
	if err != nil {
		return Replacement{}, wrap(op, err)
	}
	defer unlock()
	p, err := r.underWay(ctx, tenant, name)
	switch {
	case err != nil:
		return Replacement{}, wrap(op, err)
	case p == nil:
		return Replacement{}, fault.New(fault.Missing, op, "no replacement of connection "+name+" is under way").
			WithHint("See how the last one ended: sallyport connection replace " + tenant + " " + name + " --status.")
	case p.State == Undoing:
		return *p, nil
	case p.Kind == KindCompromise:
		return Replacement{}, fault.New(fault.Conflict, op, "the change of connection "+name+" answers a compromise, which does not undo: the identity before is refused for good").
			WithHint("Let it go on. What it waits for: sallyport connection replace " + tenant + " " + name + " --status.")
	}
	if err := r.advance(ctx, p, onUndo); err != nil {
		return Replacement{}, wrap(op, err)
	}
	r.kick()
	return *p, nil
}

// Replacement is the change of a connection that is under way, else the last
// one. Kind missing when there was none.
func (r *Registry) Replacement(ctx context.Context, tenant, name string) (Replacement, error) {
	const op = "connection.Replacement"
	if r.entry(tenant, name) == nil {
		return Replacement{}, missing(op, tenant, name)
	}
	p, err := r.readReplacement(r.c.DB.For(tenant).QueryRow(ctx, lastReplacement, name))
	if err == nil && p == nil {
		err = fault.New(fault.Missing, op, "connection "+name+" was never replaced").WithHint("Begin: sallyport connection replace " + tenant + " " + name + ".")
	}
	if err != nil {
		return Replacement{}, wrap(op, err)
	}
	return *p, nil
}

func (r *Registry) underWay(ctx context.Context, tenant, name string) (*Replacement, error) {
	return r.readReplacement(r.c.DB.For(tenant).QueryRow(ctx, openReplacement, name))
}

// readReplacement is nil for no row.
func (r *Registry) readReplacement(row interface{ Scan(...any) error }) (*Replacement, error) {
	var state, spec string
	err := row.Scan(&state, &spec)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, store.Fault("", err)
	}
	var p Replacement
	if err := json.Unmarshal([]byte(spec), &p); err != nil {
		return nil, fault.Wrap(fault.Internal, "", err)
	}
	p.State, p.read = ReplacementState(state), spec
	return &p, nil
}

// insertReplacement makes a change durable, and with it the end of the one that
// it takes over, nil for none.
func (r *Registry) insertReplacement(ctx context.Context, a tenant.Actor, p, over *Replacement) error {
	spec, err := json.Marshal(p)
	if err != nil {
		return err
	}
	var ended Replacement
	if over != nil {
		if ended, err = r.moved(over, onGiveUp); err != nil {
			return err
		}
	}
	return r.c.DB.For(p.Tenant).Change(ctx, func(tx store.TenantTx) error {
		if over != nil {
			if err := r.save(tx, &ended, over.State); err != nil {
				return err
			}
		}
		_, err := tx.Exec(insertReplacement, p.ID, p.Connection, string(p.State), endedFlag(p.State), string(spec), p.StartedAt.UnixMicro())
		if err != nil {
			return conflict(err, "", "a replacement of connection "+p.Connection+" has just begun")
		}
		return tx.Audit(r.event(a, "connection."+p.Kind, p.Tenant, p.Connection, p.ID))
	})
}

func endedFlag(s ReplacementState) int {
	if s.ended() {
		return 1
	}
	return 0
}

// moved is a change after an event, by the table; what was waited for is over.
func (r *Registry) moved(p *Replacement, on replacementEvent) (Replacement, error) {
	to, ok := nextState(p.State, on)
	if !ok {
		return Replacement{}, mayNotMove("connection.Advance", p.State, on)
	}
	n := *p
	n.State, n.ChangedAt, n.Waiting, n.Fix = to, r.now(), "", ""
	n.Steps = append(slices.Clone(p.Steps), ReplacementStep{to, n.ChangedAt})
	return n, nil
}

// advance moves a change on, durably, with an audit event.
func (r *Registry) advance(ctx context.Context, p *Replacement, on replacementEvent) error {
	n, err := r.moved(p, on)
	if err != nil {
		return err
	}
	if n.State == Done || n.State == Undone {
		r.measure(ctx, &n)
	}
	if err := r.c.DB.For(p.Tenant).Change(ctx, func(tx store.TenantTx) error { return r.save(tx, &n, p.State) }); err != nil {
		return err
	}
	*p = n
	if n.State.ended() { // it may have used the standby
		r.wantStandby(place{p.Tenant, p.Connection})
		if r.c.Changed != nil {
			r.c.Changed(context.WithoutCancel(ctx), p.Tenant, p.Connection)
		}
	}
	return nil
}

// note keeps what is waited for, and what a step has found.
func (r *Registry) note(ctx context.Context, p *Replacement, waiting, fix string) error {
	p.Waiting, p.Fix = waiting, fix
	if spec, err := json.Marshal(p); err != nil || string(spec) == p.read {
		return err
	}
	return r.c.DB.For(p.Tenant).Change(ctx, func(tx store.TenantTx) error { return r.update(tx, p, p.State) })
}

// save is update with an audit event of the state that was reached.
func (r *Registry) save(tx store.TenantTx, p *Replacement, before ReplacementState) error {
	if err := r.update(tx, p, before); err != nil {
		return err
	}
	return tx.Audit(r.event(tenant.Actor(p.Actor), "connection."+p.Kind+"."+string(p.State), p.Tenant, p.Connection, p.ID))
}

// update writes a change that is still where it was read.
func (r *Registry) update(tx store.TenantTx, p *Replacement, before ReplacementState) error {
	spec, err := json.Marshal(p)
	if err != nil {
		return err
	}
	n, err := tx.Exec(updateReplacement, p.ID, string(p.State), endedFlag(p.State), string(spec), r.now().UnixMicro(), string(before))
	if err == nil && n != 1 {
		err = fault.New(fault.Conflict, "connection.Change", "the change has moved on meanwhile").WithHint("Look at it: sallyport connection replace --status.")
	}
	return err
}

// openReplacements are those under way of all tenants.
func (r *Registry) openReplacements(ctx context.Context) ([]Replacement, error) {
	rows, err := r.c.DB.Operator("changes of identities to go on with").Query(ctx, allOpenReplacements)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var all []Replacement
	for rows.Next() {
		p, err := r.readReplacement(rows)
		if err != nil {
			return nil, err
		}
		all = append(all, *p)
	}
	return all, store.Fault("", rows.Err())
}

// Flow is what became of a connection's mail in some time.
type Flow struct {
	Refused    int           // recipients refused because of who we are
	DelayedMax time.Duration // from acceptance to delivery, at most
}

const (
	measureTime = 30 * time.Second
	measureSpan = 10 * time.Minute
)

// measuredFrom is when the change began; for one that waited long for its
// partner, when the waiting was over: it touched no mail before.
func (p *Replacement) measuredFrom() time.Time {
	for _, s := range p.Steps {
		if (s.State == BothAccepted || s.State == Repointed) && s.At.Sub(p.StartedAt) > measureSpan {
			return s.At
		}
	}
	return p.StartedAt
}

// measure asks for the flow since the change began.
func (r *Registry) measure(ctx context.Context, p *Replacement) {
	if r.c.Flow == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), measureTime)
	defer cancel()
	from, to := p.measuredFrom(), r.now()
	if to.Before(from) {
		r.c.Log.Warn("the mail during a replacement was not measured: the clock went back", "tenant", p.Tenant, "connection", p.Connection)
		return
	}
	f, err := r.c.Flow(ctx, p.Tenant, p.Connection, from, to)
	if err != nil {
		r.c.Log.Warn("the mail during a replacement could not be measured", "tenant", p.Tenant, "connection", p.Connection, "error", err)
		return
	}
	p.Refused, p.DelayedMax = f.Refused, f.DelayedMax.Milliseconds()
}
