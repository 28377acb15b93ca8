package ledger

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/store"
)

const (
	signEvery   = time.Minute
	signEntries = 1000 // a checkpoint is due sooner when so many are uncovered
)

// Config of a ledger.
type Config struct {
	DB     *store.KeeperDB
	Region string // "us"
	// Signer signs checkpoints. Its name is the log's origin, which begins with
	// "sallyport.<region>": a key of one region signs for no other.
	Signer note.Signer
	// Keys are verifier keys (package note) of this log: first the signer's,
	// then those that have signed before it.
	Keys      []string
	Witnesses []Witness
	// Retention is how long the text of an entry is kept, 0 for ever. Hashes
	// are always kept.
	Retention time.Duration
	Log       *slog.Logger
	Now       func() time.Time
}

// Ledger is the log of one region. There is one to a database.
type Ledger struct {
	c      Config
	door   store.KeeperDoor
	keys   note.Verifiers
	origin string

	queue   appends
	signing sync.Mutex // one checkpoint at a time
	due     chan struct{}
	watch   []*watch

	ending sync.RWMutex // held for reading by an export, for writing by retention
	cut    pastCut      // of Run's retention alone

	mu     sync.Mutex
	tree   *frontier  // what is committed; replaced, never changed
	newest Checkpoint // Size 0 before the first
	broken error      // why nothing is appended any more
	unsign string     // why the last checkpoint was not signed
}

// Status is how the log stands, for doctor.
type Status struct {
	Size       int64           `json:"size"`
	Checkpoint Checkpoint      `json:"checkpoint"`
	Error      string          `json:"error,omitempty"` // why nothing is appended, or signed
	Witnesses  []WitnessStatus `json:"witnesses"`
}

// Open reads the right edge of the tree and holds it against the newest
// checkpoint. It costs the same at any size. A log that is shorter than its
// checkpoint, or another, is refused with kind conflict.
func Open(ctx context.Context, c Config) (*Ledger, error) {
	l, err := construct(c)
	if err != nil {
		return nil, err
	}
	if err := l.claim(ctx); err != nil {
		return nil, err
	}
	if err := l.load(ctx); err != nil {
		return nil, err
	}
	for _, w := range l.c.Witnesses {
		one := &watch{Witness: w, kick: make(chan struct{}, 1), status: WitnessStatus{Name: w.Name()}}
		if err := l.door.QueryRow(ctx, newestCosignature, w.Name()).Scan(&one.status.Size); err != nil {
			return nil, store.Fault("ledger.Open", err)
		}
		l.watch = append(l.watch, one)
	}
	return l, nil
}

func construct(c Config) (*Ledger, error) {
	if c.DB == nil || c.Signer == nil || c.Region == "" || len(c.Keys) == 0 {
		return nil, fault.New(fault.Internal, "ledger.Open", "a ledger needs a database, a region, a signer and its verifier key")
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	verifiers := make([]note.Verifier, len(c.Keys))
	for i, key := range c.Keys {
		v, err := note.NewVerifier(key)
		if err != nil {
			return nil, fault.New(fault.Invalid, "ledger.Open", "a verifier key of the ledger cannot be read").
				WithHint("Give it as <name>+<hash>+<base64 of the key>.")
		}
		if v.Name() != c.Signer.Name() {
			return nil, fault.New(fault.Invalid, "ledger.Open", "the verifier key "+v.Name()+" is not one of "+c.Signer.Name())
		}
		verifiers[i] = v
	}
	if verifiers[0].KeyHash() != c.Signer.KeyHash() {
		return nil, fault.New(fault.Invalid, "ledger.Open", "the first verifier key is not the signer's")
	}
	rest, ok := strings.CutPrefix(c.Signer.Name(), "sallyport."+c.Region)
	if !ok || (rest != "" && rest[0] != '.' && rest[0] != '/') {
		return nil, fault.New(fault.Denied, "ledger.Open", "the key "+c.Signer.Name()+" signs nothing of the region "+c.Region).
			WithHint("Use the ledger key of this region.")
	}
	return &Ledger{c: c, door: c.DB.Keeper(), keys: note.VerifierList(verifiers...), origin: c.Signer.Name(),
		due: make(chan struct{}, 1)}, nil
}

// Origin is the log's name, the first line of its checkpoints.
func (l *Ledger) Origin() string { return l.origin }

// Size is how many entries are on disk.
func (l *Ledger) Size() int64 { return l.committed().size }

// Status is how the log stands.
func (l *Ledger) Status() Status {
	l.mu.Lock()
	s := Status{Size: l.tree.size, Checkpoint: l.newest, Error: l.unsign, Witnesses: []WitnessStatus{}}
	if l.broken != nil {
		s.Error = l.broken.Error()
	}
	l.mu.Unlock()
	for _, w := range l.watch {
		s.Witnesses = append(s.Witnesses, w.read())
	}
	return s
}

// committed is the tree that is on disk.
func (l *Ledger) committed() *frontier {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.tree
}

// publish makes a tree the committed one.
func (l *Ledger) publish(f *frontier) {
	l.mu.Lock()
	l.tree = f
	due := f.size-l.newest.Size >= signEntries
	l.mu.Unlock()
	if due {
		l.SignSoon()
	}
}

// SignSoon has what was appended covered by a checkpoint at once instead of
// within the minute. It does not wait.
func (l *Ledger) SignSoon() {
	select {
	case l.due <- struct{}{}:
	default: // it is due already
	}
}

// Run signs checkpoints, shows them to the witnesses and ends what is past its
// retention, until ctx ends; then what is uncovered is signed once more.
func (l *Ledger) Run(ctx context.Context) error {
	var all sync.WaitGroup
	for _, w := range l.watch {
		all.Go(func() { l.show(ctx, w) })
	}
	if l.c.Retention > 0 {
		all.Go(func() { l.retire(ctx) })
	}
	tick := time.NewTicker(signEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			all.Wait()
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
			defer cancel()
			_, err := l.Checkpoint(last)
			l.showLast(last)
			return err
		case <-l.due:
		case <-tick.C:
		}
		if _, err := l.Checkpoint(ctx); err != nil && ctx.Err() == nil {
			l.c.Log.Warn("ledger: no checkpoint was signed", "error", err)
		}
	}
}
