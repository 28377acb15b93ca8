package keeper

import (
	"context"
	"sync"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/keeper/act"
	"github.com/sallyport-mail/sallyport/internal/keeper/wire"
	"github.com/sallyport-mail/sallyport/internal/ledger"
)

// Outcomes of entries.
const (
	begun   = "begun" // the entry before an act; the one after it says how it went
	carried = "done"
	refused = "refused: "
	failed  = "failed: "
)

// task is an act that is to be done: who asks for what.
type task struct {
	peer    wire.Peer
	name    act.Name
	about   act.Context
	subject string // what it is of: an identity's id, a host name
	// frequent acts don't wait for the entry of their outcome: what they did is
	// done, and the entry before it is on disk.
	frequent bool
	// actor is who does it, when that is not the peer: operators.
	actor string
	// whenFrozen: it is done all the same, if it can be entered.
	whenFrozen bool
}

// carryOut does an act: the entry that says so is on disk before do is called,
// and the outcome is entered after. Nothing is done when there is no entry.
func carryOut[A any](ctx context.Context, k *Keeper, t task, do func(context.Context) (A, error)) (A, error) {
	var none A
	// Without a ledger no act is begun, whatever it is.
	if err := k.mayAct(); err != nil && (!t.whenFrozen || k.ledger == nil) {
		return none, err
	}
	if k.watch.Note(t.name, t.about.Tenant, t.about.Connection) {
		k.alarm(alarmRate, t.about.Tenant, string(t.name)+" for "+t.about.Tenant+"/"+t.about.Connection+" is asked for more often than it can need")
	}
	index, err := k.ledger.Append(ctx, k.entry(t, begun))
	if err != nil {
		return none, noEntry(err)
	}
	got, err := do(ctx)
	after := k.entry(t, carried)
	after.Of, after.Time = &index, k.now()
	switch {
	case fault.Is(err, fault.Denied):
		after.Outcome = clip(refused + fault.Sentence(err))
		k.alarm(alarmRefused, t.about.Tenant, string(t.name)+" by "+t.peer.String()+" was refused: "+fault.Sentence(err))
	case err != nil:
		after.Outcome = clip(failed + fault.Sentence(err))
	}
	if t.frequent {
		k.out.add(after)
		return got, err
	}
	// The act is over, whatever becomes of the request.
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), outcomeTime)
	defer cancel()
	if _, e := k.ledger.Append(last, after); e != nil {
		k.c.Log.Error("keeper: an outcome was not entered", "act", string(t.name), "of", index, "error", e)
		k.out.add(after) // it is tried again
	}
	return got, err
}

const (
	outcomeTime = 5 * time.Second
	maxOutcome  = 1000 // bytes; the ledger takes 1024
)

func clip(s string) string { return s[:min(len(s), maxOutcome)] }

// noEntry is the answer when the ledger takes no entry: the act waits.
func noEntry(err error) error {
	return (&fault.Error{Kind: fault.Later, Op: "keeper.Enter", Err: err}).
		WithHint("The ledger takes no entries, so nothing is done: look at the keeper's disk, database and log.")
}

func (k *Keeper) entry(t task, outcome string) ledger.Entry {
	if t.actor == "" {
		t.actor = t.peer.String()
	}
	return ledger.Entry{
		Source: ledger.Witnessed, Actor: t.actor, Act: string(t.name), Tenant: t.about.Tenant, Connection: t.about.Connection,
		Subject: t.subject, Purpose: t.about.Purpose, Trace: t.about.Trace, Outcome: outcome,
	}
}

// enter writes one entry about the keeper itself, and waits for it.
func (k *Keeper) enter(ctx context.Context, e ledger.Entry) error {
	e.Source = ledger.Witnessed
	if e.Actor == "" {
		e.Actor = "keeper"
	}
	if k.ledger == nil {
		return k.readable("keeper.Enter")
	}
	if _, err := k.ledger.Append(ctx, e); err != nil {
		return noEntry(err)
	}
	return nil
}

// outcomes are entries of frequent acts that wait to be written together.
type outcomes struct {
	k    *Keeper
	wake chan struct{}

	mu   sync.Mutex
	list []ledger.Entry
}

// most of them that wait; more than that is a ledger that is stuck, and then
// no act is done at all.
const (
	maxOutcomes  = 100_000
	outcomeBatch = 2000
	outcomeBytes = 3 << 20               // of leaves; the ledger takes 4 MB at once
	outcomeRest  = 20 * time.Millisecond // several acts' outcomes share a commit
)

func (o *outcomes) init(k *Keeper) { o.k, o.wake = k, make(chan struct{}, 1) }

// add takes an entry, and makes it one that the ledger does not refuse.
func (o *outcomes) add(e ledger.Entry) {
	e = cleanEntry(e)
	if e.Time.IsZero() {
		e.Time = o.k.now()
	}
	o.mu.Lock()
	if len(o.list) < maxOutcomes {
		o.list = append(o.list, e)
	}
	o.mu.Unlock()
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

// run writes outcomes until ctx ends, and then those that are left.
func (o *outcomes) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), outcomeTime)
			defer cancel()
			for o.write(last) {
			}
			return
		case <-o.wake:
		}
		for o.write(ctx) {
		}
		select {
		case <-ctx.Done():
		case <-time.After(outcomeRest):
		}
	}
}

// fitting are how many of the first entries go into one append. JSON makes six
// bytes of some characters.
func fitting(list []ledger.Entry) int {
	size := 0
	for i, e := range list[:min(len(list), outcomeBatch)] {
		size += 400 + 6*(len(e.Actor)+len(e.Act)+len(e.Tenant)+len(e.Connection)+len(e.Subject)+len(e.Purpose)+len(e.Trace)+len(e.Outcome)+len(e.Key))
		if size > outcomeBytes && i > 0 {
			return i
		}
	}
	return min(len(list), outcomeBatch)
}

// one writes a single entry, cleaned. What the ledger refuses even so is in the
// keeper's log.
func (o *outcomes) one(ctx context.Context, e ledger.Entry) error {
	_, err := o.k.ledger.Append(ctx, cleanEntry(e))
	if fault.Is(err, fault.Invalid) {
		o.k.c.Log.Error("keeper: the ledger does not take an outcome", "act", e.Act, "error", err)
		return nil
	}
	return err
}

// write writes some, and tells whether there may be more.
func (o *outcomes) write(ctx context.Context) bool {
	o.mu.Lock()
	n := fitting(o.list)
	batch := o.list[:n:n]
	o.mu.Unlock()
	if n == 0 || o.k.ledger == nil {
		return false
	}
	_, err := o.k.ledger.AppendEach(ctx, batch)
	if fault.Is(err, fault.Invalid) {
		// One of them is none; it must not hold up those behind it for ever.
		n, err = 1, o.one(ctx, batch[0])
	}
	if err != nil {
		if ctx.Err() == nil { // at the end they are written once more
			o.k.c.Log.Error("keeper: outcomes were not entered", "entries", n, "error", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
		return ctx.Err() == nil
	}
	o.mu.Lock()
	o.list = o.list[n:]
	more := len(o.list) > 0
	if !more {
		o.list = nil
	}
	o.mu.Unlock()
	return more
}
