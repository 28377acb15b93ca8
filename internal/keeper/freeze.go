package keeper

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/ledger"
)

// Files beside the database, by which an old copy of it is told.
const (
	newestFile   = "newest.checkpoint"
	restoredFile = "restored"
)

const (
	newestEvery  = 2 * time.Second
	witnessEvery = 50 * time.Millisecond // while they have not answered yet
	witnessTime  = 10 * time.Second      // how long acts wait for their first answer
)

// freezing is why nothing is done.
type freezing struct {
	mu     sync.Mutex
	why    string
	since  time.Time
	asking bool // the witnesses have not said yet what they know
	known  int64

	keeping sync.Mutex // of the file with the newest checkpoint
	// overruled are witnesses that operators have decided against: what they
	// know of the log as it was does not freeze it again.
	overruled map[string]bool
	// claims are what witnesses say of the log as it was, and have not proved.
	claims map[string]string

	halt func()        // ends the work on what is held; nil while there is none
	over chan struct{} // a thaw
}

func (f *freezing) init() { f.over = make(chan struct{}, 1) }

// untilFrozen has halt called when the keeper is frozen; false when it is.
func (f *freezing) untilFrozen(halt func()) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.halt = halt
	return f.why == ""
}

// frozenState is what the database remembers of it.
type frozenState struct {
	Why       string   `json:"why,omitempty"`
	Overruled []string `json:"overruled,omitempty"`
}

func (f *freezing) reason() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.why
}

// mayAct refuses acts while the keeper is frozen: it may be an old copy, in
// which keys live that are dead.
func (k *Keeper) mayAct() error {
	const op = "keeper.MayAct"
	f := &k.frozen
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case k.ledger == nil:
		return k.forGood(op)
	case f.why != "":
		return fault.New(fault.Later, op, "the keeper is frozen: "+f.why).
			WithHint("Find out why. Put the newest database back, or let two operators sign an order to thaw, which says which identities stay.")
	case f.asking:
		return fault.New(fault.Later, op, "the witnesses of the ledger are being asked what they know").WithHint("Try again in a few seconds.")
	}
	return nil
}

// forGood is the answer of a keeper whose ledger does not open. No order thaws
// it: it would have to be entered.
func (k *Keeper) forGood(op string) error {
	return fault.New(fault.Later, op, "the keeper is frozen for good: the ledger does not open: "+k.unopened).
		WithHint("Put a database from before the change back; no order thaws this. Export first, and have it verified: ledger export FILE, ledger verify --export FILE")
}

// openFrozen compares what the database says with what is known beside it.
func (k *Keeper) openFrozen(ctx context.Context) error {
	var s frozenState
	if k.memory.doubt() == "" {
		if _, err := k.recall(ctx, rememberFrozen, &s); err != nil {
			return err
		}
	}
	f := &k.frozen
	f.overruled = map[string]bool{}
	for _, name := range s.Overruled {
		f.overruled[name] = true
	}
	why := k.unopenedWhy()
	if why == "" {
		why = s.Why
	}
	var err error
	for _, ask := range []func(context.Context) (string, error){k.restoredWhy, k.olderWhy, k.editedWhy} {
		if why != "" {
			break
		}
		if why, err = ask(ctx); err != nil {
			return err
		}
	}
	if why != "" {
		k.freezeNow(why)
		return nil
	}
	f.since = time.Now()
	f.asking = len(k.c.Witnesses) > 0 && k.ledger.Status().Checkpoint.Size > 0
	return nil
}

func (k *Keeper) unopenedWhy() string {
	if k.ledger != nil {
		return ""
	}
	return "the ledger does not open: " + k.unopened
}

func (k *Keeper) editedWhy(context.Context) (string, error) { return k.memory.doubt(), nil }

// restoredWhy looks for the marks of a backup: one in every backup itself, one
// that somebody else may leave.
func (k *Keeper) restoredWhy(ctx context.Context) (string, error) {
	var at time.Time
	there, err := k.recall(ctx, rememberRestored, &at)
	if err != nil && !there { // whatever it says, it is there
		return "", err
	}
	if there {
		return "the database comes from the backup of " + at.UTC().Format(time.RFC3339), nil
	}
	_, err = os.Stat(filepath.Join(k.c.Dir, restoredFile))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return "the keeper's folder was restored", fault.Wrap(fault.Internal, "keeper.Freeze", err)
}

// olderWhy holds the log against the newest checkpoint that was kept beside the
// database.
func (k *Keeper) olderWhy(ctx context.Context) (string, error) {
	const op = "keeper.Freeze"
	raw, err := os.ReadFile(filepath.Join(k.c.Dir, newestFile))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fault.Wrap(fault.Internal, op, err)
	}
	known, err := k.checkpointOf(raw)
	if err != nil {
		return "the checkpoint that is kept beside the database is not of its ledger", nil
	}
	have := k.ledger.Status().Checkpoint
	if known.Size > have.Size {
		return fmt.Sprintf("its ledger had %d entries on %s, and has %d: the database is an old copy", known.Size, known.Time.Format(time.RFC3339), have.Size), nil
	}
	c, err := k.ledger.Consistency(ctx, known.Size)
	if err != nil {
		return "", err
	}
	if !continues(known, have, c) {
		return fmt.Sprintf("its ledger is not the one that had %d entries on %s", known.Size, known.Time.Format(time.RFC3339)), nil
	}
	k.frozen.known = known.Size
	return "", nil
}

func (k *Keeper) checkpointOf(raw []byte) (ledger.Checkpoint, error) {
	var all []note.Verifier
	for _, key := range k.logKeys {
		v, err := note.NewVerifier(key)
		if err != nil {
			return ledger.Checkpoint{}, err
		}
		all = append(all, v)
	}
	return ledger.OpenCheckpoint(raw, k.ledger.Origin(), note.VerifierList(all...))
}

// continues reports whether the log of one checkpoint continues the other's.
func continues(old, now ledger.Checkpoint, c ledger.Consistency) bool {
	if old.Size == now.Size {
		return old.Hash == now.Hash
	}
	proof := make(tlog.TreeProof, len(c.Hashes))
	for i, h := range c.Hashes {
		copy(proof[i][:], h)
	}
	return tlog.CheckTree(proof, now.Size, now.Hash, old.Size, old.Hash) == nil
}

// freezeNow stops all acts and raises the alarm.
func (k *Keeper) freezeNow(why string) {
	k.frozen.mu.Lock()
	k.frozen.why, k.frozen.asking = why, false
	if k.frozen.halt != nil {
		k.frozen.halt()
	}
	k.frozen.mu.Unlock()
	k.alarm(alarmFrozen, "", "the keeper of region "+k.c.Region+" is frozen: "+why)
}

// stand looks around until ctx ends: what the witnesses say, and which
// checkpoint is the newest.
func (k *Keeper) stand(ctx context.Context) {
	for {
		k.askWitnesses(ctx)
		k.keepNewest()
		k.memory.tend(ctx)
		wait := newestEvery
		k.frozen.mu.Lock()
		if k.frozen.asking {
			wait = witnessEvery
		}
		k.frozen.mu.Unlock()
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}

// askWitnesses freezes the keeper when one has shown that there was more than
// there is here. One that only says so is an alarm: it must not be able to stop
// a region by its word.
func (k *Keeper) askWitnesses(ctx context.Context) {
	if k.ledger == nil || k.frozen.reason() != "" {
		return
	}
	all := k.ledger.Status().Witnesses
	why, answered := "", 0
	f := &k.frozen
	f.mu.Lock()
	claims := map[string]string{}
	for _, w := range all {
		if w.Unproven {
			claims[w.Name] = w.Error
		}
		if w.Time != nil || w.Error != "" {
			answered++
		}
		if w.RolledBack && !f.overruled[w.Name] {
			why = w.Error
		}
	}
	if answered == len(all) || time.Since(f.since) > witnessTime {
		f.asking = false
	}
	before := f.claims
	f.claims = claims
	f.mu.Unlock()
	for name, text := range claims {
		if _, known := before[name]; !known { // once, not for each entry that comes
			k.alarm(alarmWitness, "", text)
		}
	}
	if why == "" {
		return
	}
	k.freezeNow(why)
	if err := k.remember(ctx, rememberFrozen, frozenState{Why: why}); err != nil {
		k.c.Log.Error("keeper: that it is frozen was not written down", "error", err)
	}
}

// keepNewest writes the newest checkpoint beside the database.
func (k *Keeper) keepNewest() {
	f := &k.frozen
	if k.ledger == nil || f.reason() != "" {
		return
	}
	f.keeping.Lock()
	defer f.keeping.Unlock()
	f.mu.Lock()
	known, asking := f.known, f.asking
	f.mu.Unlock()
	c := k.ledger.Status().Checkpoint
	if asking || c.Size <= known {
		return
	}
	if err := replaceFile(filepath.Join(k.c.Dir, newestFile), c.Note); err != nil {
		k.c.Log.Error("keeper: the newest checkpoint was not kept", "error", err)
		return
	}
	f.mu.Lock()
	f.known = c.Size
	f.mu.Unlock()
}

// replaceFile writes a file that is there whole, or as it was.
func replaceFile(path string, b []byte) error {
	next := path + ".next"
	f, err := os.OpenFile(next, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(next, path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
