package ledger

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/store"
)

const (
	witnessTime  = 10 * time.Second // for one submission
	witnessFirst = time.Second      // pause after a failure, doubled up to the next
	witnessLast  = time.Minute
	witnessEnd   = 2 * time.Second // for the last checkpoint, when the process ends
	witnessTurns = 3               // submissions until both agree on the size
)

// Witness keeps the newest checkpoint that it has seen, and takes only one that
// was proved to continue it. It stands where nobody who can write to our
// database can write too.
type Witness interface {
	Name() string
	// Add shows a checkpoint. A witness that knows another size than
	// Submission.Old answers with an error of the type *Elsewhere, one that finds
	// the proof false with an error of kind conflict. It returns the
	// cosignature lines that it gave, if it gives any, verified.
	Add(ctx context.Context, s Submission) (lines string, err error)
}

// Prover is a witness whose word alone counts for nothing, since it comes over a
// network from somebody else: that this log was once longer, or another, it has
// to show by a checkpoint that the log itself has signed.
type Prover interface {
	// Newest returns the newest checkpoint that the witness has of an origin, the
	// whole note with the log's own signature.
	Newest(ctx context.Context, origin string) ([]byte, error)
}

// Submission is what a witness is shown (c2sp.org/tlog-witness).
type Submission struct {
	Old        int64 // the size that the witness is believed to know
	Proof      []tlog.Hash
	Checkpoint Checkpoint
}

// Elsewhere is the answer of a witness that knows another size.
type Elsewhere struct{ Size int64 }

// Error says where the witness is.
func (e *Elsewhere) Error() string { return fmt.Sprintf("the witness knows the size %d", e.Size) }

// WitnessStatus is how a witness stands, for doctor.
type WitnessStatus struct {
	Name  string     `json:"name"`
	Size  int64      `json:"size"`            // that it has last agreed to
	Time  *time.Time `json:"time"`            // when it did
	Error string     `json:"error,omitempty"` // why it does not agree to the newest
	// RolledBack says that the witness has seen more of this log than there is,
	// or another one: the database is an old copy, or two of it are in use.
	RolledBack bool `json:"rolled_back"`
	// Unproven says that the witness claims so and has shown no checkpoint of this
	// log that would prove it; Error has the claim.
	Unproven bool `json:"-"`
}

// watch is a witness with how it stands.
type watch struct {
	Witness
	kick chan struct{}

	mu     sync.Mutex
	status WitnessStatus
}

func (w *watch) nudge() {
	select {
	case w.kick <- struct{}{}:
	default: // it is known
	}
}

func (w *watch) read() WitnessStatus {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.status
}

// show brings each new checkpoint to a witness, at its own pace.
func (l *Ledger) show(ctx context.Context, w *watch) {
	pause := witnessFirst
	w.nudge() // what was signed by an earlier process
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.kick:
		}
		err := l.submit(ctx, w)
		if err == nil {
			pause = witnessFirst
			continue
		}
		if ctx.Err() != nil {
			return
		}
		l.c.Log.Warn("ledger: a witness does not agree", "witness", w.Name(), "error", err)
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		pause = min(2*pause, witnessLast)
		w.nudge()
	}
}

// showLast shows the last checkpoint of this process to each witness that has
// not agreed to it: what was done in its last minute can be missed then, should
// somebody put an older copy back before the next start.
func (l *Ledger) showLast(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, witnessEnd)
	defer cancel()
	var all sync.WaitGroup
	defer all.Wait()
	for _, w := range l.watch {
		if w.read().Size == l.newestCheckpoint().Size {
			continue
		}
		all.Go(func() {
			if err := l.submit(ctx, w); err != nil {
				l.c.Log.Warn("ledger: a witness was not shown the last checkpoint", "witness", w.Name(), "error", err)
			}
		})
	}
}

// submit shows the newest checkpoint and notes how that went.
func (l *Ledger) submit(ctx context.Context, w *watch) error {
	c := l.newestCheckpoint()
	if c.Size == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, witnessTime)
	defer cancel()
	lines, err := l.agree(ctx, w, c)
	rolled, unproven := fault.Is(err, fault.Conflict), false
	if p, ok := w.Witness.(Prover); ok && rolled {
		if without := l.disproved(ctx, p); without != nil {
			rolled, unproven = false, true
			err = (&fault.Error{Kind: fault.Denied, Op: "ledger.Witness", Err: errors.New(fault.Sentence(err) + "; this is its word alone: " + fault.Sentence(without))}).
				WithHint("Ask who runs the witness for the newest checkpoint that it has of this ledger, and compare: sallyport ledger verify --anchor.")
		}
	}
	if err == nil && lines != "" {
		err = l.door.Change(ctx, func(tx store.KeeperTx) error {
			_, err := tx.Exec(insertCosignature, c.Size, w.Name(), lines)
			return err
		})
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if err != nil {
		w.status.Error = fault.Sentence(err)
		w.status.RolledBack, w.status.Unproven = rolled, unproven
		return err
	}
	w.status = WitnessStatus{Name: w.Name(), Size: c.Size, Time: new(l.c.Now().UTC())}
	return nil
}

// disproved returns why the newest checkpoint that a witness has does not prove
// that this log was once longer, or another; nil when it does.
func (l *Ledger) disproved(ctx context.Context, p Prover) error {
	const op = "ledger.Witness"
	raw, err := p.Newest(ctx, l.origin)
	if err != nil {
		return err
	}
	seen, err := OpenCheckpoint(raw, l.origin, l.keys)
	if err != nil {
		return fault.New(fault.Denied, op, "what it shows as its newest checkpoint is none that this ledger has signed")
	}
	f := l.committed()
	if seen.Size > f.size {
		return nil
	}
	root, err := tiles{ctx, l.door, f}.root(seen.Size)
	if err != nil {
		return err
	}
	if root != seen.Hash {
		return nil
	}
	return fault.New(fault.Denied, op, fmt.Sprintf("the newest checkpoint that it shows is of %d entries, and those are here", seen.Size))
}

// agree submits a checkpoint, from the size that the witness says it knows.
func (l *Ledger) agree(ctx context.Context, w *watch, c Checkpoint) (string, error) {
	old := min(w.read().Size, c.Size)
	for range witnessTurns {
		proof, err := l.consistency(ctx, old, c.Size)
		if err != nil {
			return "", err
		}
		lines, err := w.Add(ctx, Submission{Old: old, Proof: proof, Checkpoint: c})
		var at *Elsewhere
		if !errors.As(err, &at) {
			return lines, err
		}
		switch {
		case at.Size > c.Size:
			return "", tampered("ledger.Witness", fmt.Sprintf("the witness %s has seen %d entries of this ledger, of which %d are here: it was rolled back", w.Name(), at.Size, c.Size))
		case at.Size == old || at.Size < 0:
			return "", tampered("ledger.Witness", fmt.Sprintf("the witness %s knows another ledger of %d entries under this name", w.Name(), at.Size))
		}
		old = at.Size
	}
	return "", fault.New(fault.Later, "ledger.Witness", "the witness "+w.Name()+" names another size each time")
}

// consistency is the proof that the tree of one size continues that of another
// (RFC 6962, section 2.1.2). There is none for an empty tree, nor for the same.
func (l *Ledger) consistency(ctx context.Context, old, size int64) ([]tlog.Hash, error) {
	if old == 0 || old == size {
		return nil, nil
	}
	proof, err := tlog.ProveTree(size, old, tiles{ctx, l.door, l.committed()}.plain())
	return proof, store.Fault("ledger.Consistency", err)
}
