package keeper

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/keeper/act"
	"github.com/sallyport-mail/sallyport/internal/keeper/operator"
	"github.com/sallyport-mail/sallyport/internal/keeper/seal"
	"github.com/sallyport-mail/sallyport/internal/ledger"
	"github.com/sallyport-mail/sallyport/internal/store"
)

const (
	rotationBatch = 100  // data keys in one commit
	rotationEntry = 1000 // of them to an entry
	rotationPause = 5 * time.Second
)

// rotationState is a rotation of the KEK that an order began: what outlives a
// process. How far it is says the data keys' rows.
type rotationState struct {
	To     string `json:"to"`     // the KEK's id
	Total  int64  `json:"total"`  // data keys that were under others
	Failed int64  `json:"failed"` // that did not open
}

// rotation brings the data keys of one ring under its KEK in force, while they
// are used. That of standbys waits for its KEK by itself.
type rotation struct {
	k    *Keeper
	of   ring
	wake chan struct{}

	mu    sync.Mutex
	wait  time.Duration  // the pause after a failure that may pass
	state *rotationState // nil: none is under way
	done  int64
	why   string // why it does not go on
}

func (r *rotation) init(k *Keeper, of ring) {
	r.k, r.of, r.wake, r.wait = k, of, make(chan struct{}, 1), rotationPause
}

// rotations is "", or how far those of both rings are.
func (k *Keeper) rotations() string {
	text, apart := k.rotation.progress(), k.apart.progress()
	if apart != "" {
		apart = "standbys " + apart
	}
	if text != "" && apart != "" {
		text += "; "
	}
	return text + apart
}

// progress is "", or how far a rotation is.
func (r *rotation) progress() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.state == nil {
		return ""
	}
	text := fmt.Sprintf("%d of %d", r.done, r.state.Total)
	if r.why != "" {
		text += ", waiting: " + r.why
	}
	return text
}

// is reports whether one to that KEK is under way.
func (r *rotation) is(to string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.state != nil && r.state.To == to
}

func (r *rotation) set(s *rotationState, done int64, why string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.state, r.done, r.why = s, done, why
}

// openRotation goes on with what a process before this has begun.
func (k *Keeper) openRotation(ctx context.Context) error {
	if err := k.rotation.open(ctx); err != nil {
		return err
	}
	return k.apart.open(ctx)
}

func (r *rotation) open(ctx context.Context) error {
	var s rotationState
	there, err := r.k.recall(ctx, r.of.remember, &s)
	if err != nil || !there {
		return err
	}
	left, _, err := r.under(ctx, s.To)
	if err != nil {
		return err
	}
	r.set(&s, s.Total-left, "")
	r.wake <- struct{}{}
	return nil
}

// inForce is the id of the KEK that a rotation leads to, "" for none.
func (r *rotation) inForce() string {
	if len(r.of.keks) == 0 {
		return ""
	}
	return r.of.keks[0].ID()
}

// rotate begins a rotation to the KEK that the order names: that of the region,
// or that of standbys.
func (k *Keeper) rotate(ctx context.Context, o operator.Order) (act.Ordered, error) {
	if apart := k.apart.inForce(); apart != "" && o.Subject == apart {
		return k.apart.begin(ctx, o)
	}
	return k.rotation.begin(ctx, o)
}

func (r *rotation) begin(ctx context.Context, o operator.Order) (act.Ordered, error) {
	const op = "keeper.Rotate"
	to := r.inForce()
	if o.Subject != to {
		text := "the KEK in force is " + to
		if apart := r.k.apart.inForce(); apart != "" {
			text += ", that of standbys " + apart
		}
		return act.Ordered{}, fault.New(fault.Conflict, op, text).
			WithHint("Name the new KEK first in the keeper's settings and the old one after it, start the keeper, then sign an order with the new one's id as its subject.")
	}
	if r.is(to) {
		return act.Ordered{}, fault.New(fault.Conflict, op, "that rotation is under way: "+r.progress()).WithHint("Look at its status.")
	}
	left, away, err := r.under(ctx, to)
	if err != nil {
		return act.Ordered{}, err
	}
	if away != "" {
		return act.Ordered{}, fault.New(fault.Conflict, op, "data keys are under the KEK "+away+", which this keeper was not given").
			WithHint("Name that KEK in the keeper's settings, after the one in force.")
	}
	s := rotationState{To: to, Total: left}
	if err := r.k.remember(ctx, r.of.remember, s); err != nil {
		return act.Ordered{}, err
	}
	r.set(&s, 0, "")
	select {
	case r.wake <- struct{}{}:
	default:
	}
	return act.Ordered{Text: fmt.Sprintf("%d data keys go under the KEK %s; status says how far it is", left, to)}, nil
}

// under counts the data keys under other KEKs than to, and names one of those
// that the keeper was not given.
func (r *rotation) under(ctx context.Context, to string) (left int64, away string, err error) {
	const op = "keeper.Rotate"
	rows, err := r.k.door.Query(ctx, r.of.count)
	if err != nil {
		return 0, "", err
	}
	defer rows.Close()
	for rows.Next() {
		var id string
		var n int64
		if err := rows.Scan(&id, &n); err != nil {
			return 0, "", store.Fault(op, err)
		}
		if id == to {
			continue
		}
		left += n
		if _, err := r.of.kek(id); err != nil {
			away = id
		}
	}
	return left, away, store.Fault(op, rows.Err())
}

// run carries out what was begun, until ctx ends.
func (r *rotation) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.wake:
		}
		for {
			err := r.all(ctx)
			if err == nil || ctx.Err() != nil {
				break
			}
			r.k.c.Log.Warn("keeper: the rotation of the KEK waits", "error", err)
			r.mu.Lock()
			r.why = fault.Sentence(err)
			wait := r.wait
			r.mu.Unlock()
			select {
			case <-ctx.Done():
				return
			case <-time.After(wait):
			}
		}
	}
}

// all goes through the data keys of each other KEK. It can be stopped at any
// point and done again: what is under the new one is not looked at.
func (r *rotation) all(ctx context.Context) error {
	r.mu.Lock()
	s := *r.state
	r.mu.Unlock()
	if r.inForce() != s.To {
		return fault.New(fault.Later, "keeper.Rotate", "the KEK in force is not "+s.To+" any more").
			WithHint("Put it first in the keeper's settings, or order a rotation to the one that is.")
	}
	if err := r.mayGoOn(); err != nil {
		return err
	}
	left, _, err := r.under(ctx, s.To)
	if err != nil {
		return err
	}
	s.Failed = 0
	next := s.Total - left // the next to have an entry before it
	to := r.of.keks[0]
	for _, from := range r.of.keks[1:] {
		if from.ID() == s.To {
			continue
		}
		if from.ID() == "" {
			return fault.New(fault.Later, "keeper.Rotate", "an old KEK was not there since the keeper began").
				WithHint("Put back what the keeper's settings name.")
		}
		if err := r.from(ctx, &s, from, to, &next); err != nil {
			return err
		}
	}
	return r.end(ctx, s)
}

func (r *rotation) mayGoOn() error { return r.k.mayAct() }

func (r *rotation) from(ctx context.Context, s *rotationState, from, to seal.KEK, next *int64) error {
	for after := ""; ; {
		if err := r.mayGoOn(); err != nil {
			return err
		}
		batch, err := r.read(ctx, from.ID(), after)
		if err != nil || len(batch) == 0 {
			return err
		}
		after = batch[len(batch)-1].Tenant
		if err := r.batch(ctx, s, from, to, batch, next); err != nil {
			return err
		}
	}
}

func (r *rotation) read(ctx context.Context, kek, after string) ([]seal.Wrapped, error) {
	rows, err := r.k.door.Query(ctx, r.of.under, kek, after, rotationBatch)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var batch []seal.Wrapped
	for rows.Next() {
		w := seal.Wrapped{Region: r.k.c.Region, KEK: kek}
		if err := rows.Scan(&w.Tenant, &w.Blob); err != nil {
			return nil, store.Fault("keeper.Rotate", err)
		}
		batch = append(batch, w)
	}
	return batch, store.Fault("keeper.Rotate", rows.Err())
}

// batch re-wraps some data keys, in one commit. An entry is written before the
// first of each thousand.
func (r *rotation) batch(ctx context.Context, s *rotationState, from, to seal.KEK, batch []seal.Wrapped, next *int64) error {
	r.mu.Lock()
	done := r.done
	r.mu.Unlock()
	if done >= *next {
		if err := r.enter(ctx, s, fmt.Sprintf("%d of %d", done, s.Total)); err != nil {
			return err
		}
		*next = done + rotationEntry
	}
	var wrapped []seal.Wrapped
	for _, w := range batch {
		n, err := seal.Rewrap(ctx, from, to, w)
		if fault.Is(err, fault.Denied) {
			s.Failed++
			r.k.alarm(alarmRotation, w.Tenant, "the data key of "+w.Tenant+" does not open under the KEK "+from.ID()+": its row was edited")
			continue
		}
		if err != nil {
			return err
		}
		wrapped = append(wrapped, n)
	}
	err := r.k.door.Change(ctx, func(tx store.KeeperTx) error {
		for _, w := range wrapped {
			if _, err := tx.Exec(updateDataKey, w.Tenant, from.ID(), w.KEK, w.Blob); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil {
		r.set(&rotationState{To: s.To, Total: s.Total, Failed: s.Failed}, done+int64(len(wrapped)), "")
	}
	return err
}

// end enters the end, and forgets the rotation.
func (r *rotation) end(ctx context.Context, s rotationState) error {
	outcome := carried
	if s.Failed > 0 {
		outcome = fmt.Sprintf("%s%d of %d data keys did not open and stay where they were", failed, s.Failed, s.Total)
	}
	if err := r.enter(ctx, &s, outcome); err != nil {
		return err
	}
	err := r.k.forget(ctx, r.of.remember)
	if err == nil {
		r.set(nil, 0, "")
	}
	return err
}

func (r *rotation) enter(ctx context.Context, s *rotationState, outcome string) error {
	return r.k.enter(ctx, ledger.Entry{Act: operator.RotateKEK, Subject: s.To, Purpose: r.of.what, Outcome: outcome})
}
