package keeper

import (
	"context"
	"crypto"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/keeper/breaker"
	"github.com/sallyport-mail/sallyport/internal/keeper/keys"
	"github.com/sallyport-mail/sallyport/internal/keeper/operator"
	"github.com/sallyport-mail/sallyport/internal/keeper/seal"
	"github.com/sallyport-mail/sallyport/internal/keeper/wire"
	"github.com/sallyport-mail/sallyport/internal/ledger"
	"github.com/sallyport-mail/sallyport/internal/store"
)

// Config is what a keeper is made from.
type Config struct {
	DB     *store.KeeperDB
	Dir    string // its own folder: what it imports, and what it knows beside its database
	Region string
	Base   string   // base domain: names of identities are below <region>.<base>
	Hosts  []string // our host names that this region's listeners show certificates of
	// KEKs opens data keys; the first is the one in force, under which new data
	// keys are wrapped and to which an order may rotate the others.
	KEKs []seal.KEK
	// StandbyKEKs are the same for the data keys of standby identities; none of
	// them is one of KEKs. Without any, standbys are sealed like the others.
	StandbyKEKs []seal.KEK
	// Driver is where new keys are made; nil is keys.Software.
	Driver keys.Driver
	// Drivers load keys that were made by others, by name.
	Drivers map[string]keys.Driver

	// MoreIssuers makes those that need the key of an account at a public CA,
	// which is the keeper's; nil: there are none.
	MoreIssuers func(account crypto.Signer) ([]Issuer, error)
	// Challenges answers ACME challenges, acme.Issuer's Challenge; nil for none.
	Challenges func(token string) (keyAuthorization string, ok bool)

	Operators []operator.Public
	Witnesses []ledger.Witness
	// MoreWitnesses makes those that have to know the log's origin and keys,
	// which come into being with it; nil: there are none.
	MoreWitnesses func(origin string, keys []string) ([]ledger.Witness, error)
	Retention     time.Duration // of the texts of ledger entries, 0 for ever
	Limit         int           // openings of credentials a minute, 0 is the breaker's own
	Pool          int           // RSA keys kept ready, 0 is 4, below that none
	Issuers       []Issuer      // beside the region's own CA
	// SameUser: the gateway runs under the keeper's own user.
	SameUser bool
	Log      *slog.Logger
	Now      func() time.Time
}

// Keeper is custody of one region.
type Keeper struct {
	c         Config
	door      store.KeeperDoor
	ledger    *ledger.Ledger // nil: it does not open
	unopened  string         // why
	logKeys   []string       // verifier keys of the ledger
	watch     *breaker.Watch
	breaker   *breaker.Breaker
	orders    *operator.Verifier
	seals     seals
	out       outcomes
	alarms    alarms
	openings  openings
	refusals  refusals
	rotation  rotation
	sightings sightings
	frozen    freezing
	standbys  standbys
	apart     rotation // of the KEK of standbys
	memory    memory

	signers   signers
	places    places
	authority authority
	awaited   awaited
	others    publicIssuers
	pool      atomic.Pointer[keys.Pool] // nil when there is none
	warned    time.Time                 // of runAuthority: when people were last told of what ends
	holding   atomic.Bool               // what is held was opened
}

// A keeper does all that is asked.
var _ wire.Acts = (*Keeper)(nil)

// New opens the ledger and what else is kept. Nothing is done before Run, but
// acts may come as soon as New has returned.
func New(ctx context.Context, c Config) (*Keeper, error) {
	const op = "keeper.New"
	if c.DB == nil || c.Dir == "" || c.Region == "" || c.Base == "" || len(c.KEKs) == 0 {
		return nil, fault.New(fault.Invalid, op, "a keeper has a database, a folder, a region, a base domain and a KEK").WithHint("Give all five.")
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Driver == nil {
		c.Driver = keys.Software{}
	}
	k := &Keeper{c: c, door: c.DB.Keeper(), watch: breaker.NewWatch(nil, c.Now)}
	k.seals.init(k)
	k.memory.init(k)
	k.frozen.init()
	k.out.init(k)
	k.openings.init(k)
	k.refusals.init(k)
	k.rotation.init(k, regionRing(c.KEKs))
	k.apart.init(k, standbyRing(c.StandbyKEKs))
	k.standbys.init(k)
	if err := k.standbys.twice(); err != nil {
		return nil, err
	}
	k.initIdentities()
	for _, step := range []func(context.Context) error{k.openLedger, k.recallAlarms, k.openMemory, k.openFrozen, k.keepMemory, k.openBreaker, k.openOrders, k.openRotation, k.openHeld} {
		if err := step(ctx); err != nil {
			return nil, fault.Wrap(fault.KindOf(err), op, err)
		}
	}
	return k, nil
}

// Run does the background work until ctx ends: checkpoints and witnesses,
// outcomes.
func (k *Keeper) Run(ctx context.Context) error {
	var all sync.WaitGroup
	var ledgerErr error
	// The ledger ends last, so that the last outcomes are covered.
	ledgerCtx, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	var log, out sync.WaitGroup
	if k.ledger != nil {
		log.Go(func() { ledgerErr = k.ledger.Run(ledgerCtx) })
	}
	// What leaves outcomes ends before they do.
	outCtx, endOut := context.WithCancel(context.WithoutCancel(ctx))
	defer endOut()
	out.Go(func() { k.out.run(outCtx) })
	for _, work := range []func(context.Context){k.openings.run, k.refusals.run, k.rotation.run, k.apart.run, k.runRoom, k.stand, k.runHeld} {
		all.Go(func() { work(ctx) })
	}
	all.Wait()
	endOut()
	out.Wait()
	end()
	log.Wait()
	k.keepNewest()
	return errors.Join(ledgerErr)
}

// openHeld opens what is held: the region's authority, identities, hosts and
// spare keys. A keeper that may not act opens none of it: it would have to
// write entries.
func (k *Keeper) openHeld(ctx context.Context) error {
	if k.mayAct() != nil {
		return nil
	}
	for _, step := range []func(context.Context) error{k.openAuthority, k.openIssuers, k.openIdentities, k.leftAwaited, k.openHosts, k.openPool} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	k.holding.Store(true)
	return nil
}

// runHeld looks after what is held while the keeper is not frozen. A freeze
// ends that, and after a thaw it is opened as at a start.
func (k *Keeper) runHeld(ctx context.Context) {
	for ctx.Err() == nil {
		if !k.holding.Load() {
			if err := k.openHeld(ctx); err != nil && ctx.Err() == nil {
				k.c.Log.Error("keeper: what is held could not be opened", "error", err)
			}
		}
		if k.holding.Load() {
			k.workHeld(ctx)
			k.signers.dropAll()
			k.holding.Store(false)
			continue
		}
		select {
		case <-ctx.Done():
		case <-k.frozen.over:
		case <-time.After(time.Second):
		}
	}
}

// workHeld does so until ctx ends or the keeper is frozen.
func (k *Keeper) workHeld(ctx context.Context) {
	ctx, halt := context.WithCancel(ctx)
	defer halt()
	if !k.frozen.untilFrozen(halt) {
		return
	}
	var all sync.WaitGroup
	for _, work := range []func(context.Context){k.runAuthority, k.runHosts, k.runPool, k.runAdvice, k.runAwaited, k.runEnded, k.standbys.run} {
		all.Go(func() { work(ctx) })
	}
	all.Wait()
}

// now is the time as the database keeps it.
func (k *Keeper) now() time.Time { return k.c.Now().UTC().Truncate(time.Microsecond) }
