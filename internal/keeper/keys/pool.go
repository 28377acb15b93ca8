package keys

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"sync/atomic"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/keeper/seal"
)

// Spare is a key of the pool as it is stored.
type Spare struct {
	ID     string
	Handle []byte
}

// Storage keeps the spares of one region and algorithm.
type Storage interface {
	Put(ctx context.Context, s Spare) error
	// Take removes one and returns it once that is durable; kind missing when
	// there is none. No two calls return the same.
	Take(ctx context.Context) (Spare, error)
	Count(ctx context.Context) (int, error)
}

// PoolConfig is what a pool is made from.
type PoolConfig struct {
	Region    string
	Algorithm Algorithm
	Size      int    // keys kept ready
	Sealer    Sealer // of the region's own data key; see PoolTenant
	Storage   Storage
	// Failed is told when a key could not be made or kept; the pool tries
	// again.
	Failed func(error)
	// Rest between two looks; 0 means a minute. Take wakes the pool at once.
	Rest time.Duration
}

// PoolTenant is the tenant under whose data key the spares of a region are
// sealed. A colon is in no tenant's name.
const PoolTenant = "region:pool"

const maxPool = 100_000

// Pool has keys ready.
type Pool struct {
	c     PoolConfig
	wake  chan struct{}
	empty atomic.Int64 // times that a key had to be made on the spot
}

// NewPool makes a pool; Run fills it.
func NewPool(c PoolConfig) (*Pool, error) {
	const op = "keys.NewPool"
	if c.Rest == 0 {
		c.Rest = time.Minute
	}
	if c.Region == "" || c.Sealer == nil || c.Storage == nil || c.Failed == nil || c.Size < 1 || c.Size > maxPool {
		return nil, fault.New(fault.Invalid, op, "a pool has a region, a sealer, a storage, an ear, and a size of 1 to 100,000").
			WithHint("Give all of them.")
	}
	return &Pool{c: c, wake: make(chan struct{}, 1)}, nil
}

// Run keeps the pool full until ctx ends. It makes one key at a time: it is
// background work beside signatures.
func (p *Pool) Run(ctx context.Context) {
	for ctx.Err() == nil {
		if err := p.fill(ctx); err != nil && ctx.Err() == nil {
			p.c.Failed(err)
		}
		select {
		case <-ctx.Done():
		case <-p.wake:
		case <-time.After(p.c.Rest):
		}
	}
}

// fill makes what is missing.
func (p *Pool) fill(ctx context.Context) error {
	n, err := p.c.Storage.Count(ctx)
	if err != nil {
		return err
	}
	for ; n < p.c.Size && ctx.Err() == nil; n++ {
		id := make([]byte, 16)
		rand.Read(id)
		s := Spare{ID: hex.EncodeToString(id)}
		made, err := Software{}.Make(ctx, p.c.Sealer, p.place(s.ID), p.c.Algorithm)
		if err != nil {
			return err
		}
		s.Handle = made.Handle
		if err := p.c.Storage.Put(ctx, s); err != nil {
			return err
		}
	}
	return nil
}

// place is where a spare is sealed: its id is in it, so no two rows can be
// made the same key.
func (p *Pool) place(id string) seal.Place {
	return seal.Place{Region: p.c.Region, Tenant: PoolTenant, Connection: id, Purpose: "spare " + string(p.c.Algorithm), Kind: seal.PrivateKey}
}

// Take gives a key to a place. When the pool is empty it is made on the spot,
// which takes a moment.
func (p *Pool) Take(ctx context.Context, s Sealer, to seal.Place) (Made, error) {
	const op = "keys.Take"
	if to.Kind != seal.PrivateKey {
		return Made{}, notAKey(op)
	}
	spare, err := p.c.Storage.Take(ctx)
	if fault.Is(err, fault.Missing) {
		p.empty.Add(1)
		p.awake()
		return Software{}.Make(ctx, s, to, p.c.Algorithm)
	}
	if err != nil {
		return Made{}, err
	}
	p.awake()
	secret, err := p.c.Sealer.Open(p.place(spare.ID), spare.Handle)
	if err != nil {
		return Made{}, err
	}
	defer secret.Wipe()
	k, err := parse(op, secret)
	if err != nil {
		return Made{}, err
	}
	handle, err := s.Seal(to, secret)
	return Made{Handle: handle, Public: k.Public()}, err
}

func (p *Pool) awake() {
	select {
	case p.wake <- struct{}{}:
	default: // it is to be woken already
	}
}

// Emptied is how often the pool was found empty.
func (p *Pool) Emptied() int64 { return p.empty.Load() }
