package keeper

import (
	"context"
	"encoding/binary"
	"sync"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/keeper/breaker"
	"github.com/sallyport-mail/sallyport/internal/keeper/seal"
	"github.com/sallyport-mail/sallyport/internal/ledger"
	"github.com/sallyport-mail/sallyport/internal/store"
)

// openBreaker makes the breaker as it last stood.
func (k *Keeper) openBreaker(ctx context.Context) error {
	var s breaker.Snapshot
	if k.memory.doubt() != "" || k.ledger == nil {
		s = k.unsure()
	} else if _, err := k.recall(ctx, rememberBreaker, &s); err != nil {
		return err
	}
	var err error
	k.breaker, err = breaker.New(breaker.Config{Region: k.c.Region, Limit: k.c.Limit, Changed: k.breakerChanged, Now: k.c.Now}, s)
	return err
}

// unsure is the breaker of a keeper that does not know how it stood.
func (k *Keeper) unsure() breaker.Snapshot {
	why := "what the keeper remembers of itself was edited, the breaker's state with it"
	if k.ledger == nil {
		why = "the ledger does not open, and nobody knows how the breaker stood"
	}
	return breaker.Snapshot{State: breaker.Tripped, Since: k.now(), Why: why}
}

// breakerChanged keeps how the breaker stands, and tells of it. It runs under
// the breaker's lock, so it waits for the one commit and no more.
func (k *Keeper) breakerChanged(s breaker.Snapshot) error {
	ctx, cancel := context.WithTimeout(context.Background(), outcomeTime)
	defer cancel()
	k.out.add(ledger.Entry{Source: ledger.Witnessed, Actor: "keeper", Act: "breaker", Subject: s.Campaign, Outcome: string(s.State)})
	if s.State == breaker.Tripped {
		k.alarm(alarmBreaker, "", "the breaker of region "+k.c.Region+" has tripped: credentials stay closed until two operators lift it")
	}
	if err := k.remember(ctx, rememberBreaker, s); err != nil {
		return err
	}
	// Signed and kept beside the database at once: who cuts the end of the log
	// off to have the breaker as it was is told by that.
	if _, err := k.ledger.Checkpoint(ctx); err != nil {
		k.c.Log.Error("keeper: no checkpoint was signed", "error", err)
		return nil
	}
	k.keepNewest()
	return nil
}

// uses is how often a credential was opened.
type uses struct {
	n    int64
	last time.Time // zero: never
}

const usesBytes = 16

func (u uses) seal(dk *seal.DataKey, p seal.Place) ([]byte, error) {
	b := make([]byte, usesBytes)
	binary.BigEndian.PutUint64(b, uint64(u.n))
	if !u.last.IsZero() {
		binary.BigEndian.PutUint64(b[8:], uint64(u.last.UnixMicro()))
	}
	return dk.Seal(p, seal.NewSecret(b))
}

func (k *Keeper) usesOf(dk *seal.DataKey, c credentialKey, r credentialRow) (uses, error) {
	b, err := bindingOf(r.binding)
	if err != nil {
		return uses{}, err
	}
	plain, err := dk.Open(k.place(c, seal.Uses, b), r.used)
	if err != nil {
		return uses{}, err
	}
	if plain.Len() != usesBytes {
		return uses{}, fault.New(fault.Internal, "keeper.Uses", "what was sealed as a number of uses is none")
	}
	u := uses{n: int64(binary.BigEndian.Uint64(plain.Bytes()))}
	if at := int64(binary.BigEndian.Uint64(plain.Bytes()[8:])); at != 0 {
		u.last = time.UnixMicro(at).UTC()
	}
	return u, nil
}

// openings are uses that are not in their rows yet. They are written together:
// the ledger has each already, and a second's worth that is lost with a process
// is missing in a list, not in the ledger.
type openings struct {
	k       *Keeper
	writing sync.Mutex // one write at a time

	mu   sync.Mutex
	more map[credentialKey]uses
}

const openingsEvery = time.Second

func (o *openings) init(k *Keeper) { o.k, o.more = k, map[credentialKey]uses{} }

func (o *openings) add(c credentialKey, at time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.more[c] = uses{n: o.more[c].n + 1, last: at}
}

// run writes until ctx ends, and then what is left.
func (o *openings) run(ctx context.Context) {
	tick := time.NewTicker(openingsEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), outcomeTime)
			defer cancel()
			o.write(last)
			return
		case <-tick.C:
			o.write(ctx)
		}
	}
}

// write brings what is waiting into the rows. What can't be written is only
// logged: nobody's act waits for a count.
func (o *openings) write(ctx context.Context) {
	o.writing.Lock()
	defer o.writing.Unlock()
	o.mu.Lock()
	more := o.more
	o.more = map[credentialKey]uses{}
	o.mu.Unlock()
	if len(more) == 0 {
		return
	}
	var all []usedNow
	for c, u := range more {
		one, err := o.counted(ctx, c, u)
		switch {
		case fault.Is(err, fault.Missing): // removed since
		case err != nil:
			o.k.c.Log.Warn("keeper: the uses of a credential were not counted", "credential", c.String(), "error", err)
		default:
			all = append(all, one)
		}
	}
	err := o.k.door.Change(ctx, func(tx store.KeeperTx) error {
		for _, n := range all {
			// A credential that was set anew meanwhile counts from nothing.
			if _, err := tx.Exec(updateUsed, n.key.tenant, n.key.connection, n.key.purpose, n.old, n.used); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		o.k.c.Log.Warn("keeper: uses of credentials were not counted", "credentials", len(all), "error", err)
	}
}

// usedNow is a row's count, as it was and as it becomes.
type usedNow struct {
	key       credentialKey
	old, used []byte
}

func (o *openings) counted(ctx context.Context, c credentialKey, more uses) (usedNow, error) {
	const op = "keeper.Uses"
	r, err := o.k.credentialRow(ctx, op, c)
	if err != nil {
		return usedNow{}, err
	}
	dk, err := o.k.seals.key(ctx, c.tenant)
	if err != nil {
		return usedNow{}, err
	}
	have, err := o.k.usesOf(dk, c, r)
	if err != nil {
		return usedNow{}, err
	}
	b, err := bindingOf(r.binding)
	if err != nil {
		return usedNow{}, err
	}
	used, err := uses{n: have.n + more.n, last: more.last}.seal(dk, o.k.place(c, seal.Uses, b))
	return usedNow{c, r.used, used}, err
}
