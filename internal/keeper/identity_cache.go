package keeper

import (
	"context"
	"crypto"
	"sync"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/keeper/act"
	"github.com/sallyport-mail/sallyport/internal/keeper/seal"
	"github.com/sallyport-mail/sallyport/internal/keeper/sign"
)

const (
	knownFresh = time.Minute
	mostKnown  = 5000
)

// known is an identity as it was read a moment ago, and its signer once
// somebody has used it.
type known struct {
	identity
	der [][]byte
	at  time.Time

	mu     sync.Mutex // of what is opened
	opened bool
	decoy  bool
	signer crypto.Signer
}

// seat is where one identity is active.
type seat struct{ tenant, connection, purpose string }

// signers are the known identities, by certificate. Whoever changes a row drops
// it; what was read before a drop is not kept after it.
type signers struct {
	mu     sync.Mutex
	epoch  uint64 // counts drops
	by     map[string]*known
	active map[seat]string             // certificate of the active one
	of     map[owner]map[string]*known // those of by, so that a drop finds them
}

// owner is a connection.
type owner struct{ tenant, connection string }

func (s *signers) init() {
	s.by, s.active, s.of = map[string]*known{}, map[seat]string{}, map[owner]map[string]*known{}
}

// forget removes one. The caller holds the lock.
func (s *signers) forget(n *known) {
	at := owner{n.tenant, n.connection}
	delete(s.by, n.sha256)
	delete(s.active, seat{n.tenant, n.connection, n.purpose})
	delete(s.of[at], n.sha256)
	if len(s.of[at]) == 0 {
		delete(s.of, at)
	}
}

func (s *signers) get(sum string, now time.Time) (*known, uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := s.by[sum]; n != nil {
		if age := now.Sub(n.at); age >= 0 && age < knownFresh {
			return n, s.epoch
		}
		s.forget(n)
	}
	return nil, s.epoch
}

// activeOf is the certificate of the active one.
func (s *signers) activeOf(at seat) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.active[at]
}

// keep remembers what was read in an epoch that is still on. Of two that read
// the same at a time, both get the first.
func (s *signers) keep(n *known, epoch uint64) *known {
	s.mu.Lock()
	defer s.mu.Unlock()
	if epoch != s.epoch || n.sha256 == "" {
		return n
	}
	if have := s.by[n.sha256]; have != nil && n.at.Sub(have.at) < knownFresh && !n.at.Before(have.at) {
		return have
	}
	if len(s.by) >= mostKnown {
		s.init()
	}
	at := owner{n.tenant, n.connection}
	if s.of[at] == nil {
		s.of[at] = map[string]*known{}
	}
	s.by[n.sha256], s.of[at][n.sha256] = n, n
	if n.state == act.Active {
		s.active[seat{n.tenant, n.connection, n.purpose}] = n.sha256
	}
	return n
}

// drop forgets the identities of a connection.
func (s *signers) drop(tenant, connection string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.epoch++
	for _, n := range s.of[owner{tenant, connection}] {
		s.forget(n)
	}
}

// dropAll forgets all.
func (s *signers) dropAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.epoch++
	s.init()
}

// find is the identity of a certificate's SHA-256 or of an id; nothing of it
// is opened.
func (k *Keeper) find(ctx context.Context, which string) (*known, error) {
	now := k.now()
	n, epoch := k.signers.get(which, now)
	if n != nil {
		return n, nil
	}
	q := selectByID
	if isSum(which) {
		q = selectByCertificate
	}
	r, err := k.row(ctx, q, which)
	if err != nil {
		return nil, err
	}
	return k.signers.keep(&known{identity: *r, der: chainOf(r.chain), at: now}, epoch), nil
}

// findActive is the active identity of a place.
func (k *Keeper) findActive(ctx context.Context, at seat) (*known, error) {
	now := k.now()
	n, epoch := k.signers.get(k.signers.activeOf(at), now)
	if n != nil && n.state == act.Active && n.of(at.tenant, at.connection, at.purpose) {
		return n, nil
	}
	r, err := k.row(ctx, selectActive, at.tenant, at.connection, at.purpose)
	if fault.Is(err, fault.Missing) {
		return nil, fault.New(fault.Missing, "keeper.Identity", "the connection has no active identity for "+at.purpose).
			WithHint("Issue one and make it active; connection test says what is missing.")
	}
	if err != nil {
		return nil, err
	}
	return k.signers.keep(&known{identity: *r, der: chainOf(r.chain), at: now}, epoch), nil
}

// fits holds an identity against what a request says that it is of.
func (n *known) fits(at seat) error {
	const op = "keeper.Identity"
	if !n.of(at.tenant, at.connection, at.purpose) {
		return fault.New(fault.Denied, op, "the identity is not of this connection and purpose").
			WithHint("Ask for an identity of the connection itself; if nobody did this by mistake, treat the gateway as taken over.")
	}
	if !shown(n.state) {
		return fault.New(fault.Denied, op, "the identity is "+string(n.state)+", and is shown to nobody").
			WithHint("Use the active one, or stage this one first.")
	}
	return nil
}

// signer opens the key of an identity that fits, once an entry says so.
func (k *Keeper) signer(ctx context.Context, n *known, at seat) (sign.Key, error) {
	if err := n.fits(at); err != nil {
		return sign.Key{}, err
	}
	if err := k.open(ctx, n, true); err != nil {
		return sign.Key{}, err
	}
	return sign.Key{Signer: n.signer, Use: sign.Use(n.purpose)}, nil
}

// open reads the marker and, when a signature is wanted, loads the key. A decoy
// is never used: whoever asks for one knows of it what only a thief knows.
func (k *Keeper) open(ctx context.Context, n *known, signature bool) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.opened {
		if err := k.openMarker(ctx, n); err != nil {
			return err
		}
		n.opened = true
	}
	if n.decoy {
		k.alarm(alarmDecoy, n.tenant, "the decoy identity "+n.id+" was asked for")
		return fault.New(fault.Denied, "keeper.Identity", "the identity is shown to nobody").WithHint("Use the active one, or stage this one first.")
	}
	if !signature || n.signer != nil {
		return nil
	}
	s, err := k.load(ctx, &n.identity)
	if err == nil {
		n.signer = s
	}
	return err
}

func (k *Keeper) openMarker(ctx context.Context, n *known) error {
	var err error
	if n.decoy, err = k.isDecoy(ctx, &n.identity); err != nil {
		return err
	}
	if n.tenant == hostsTenant || isMail(n.purpose) {
		return nil
	}
	now, err := k.bindingText(ctx, n.tenant, n.connection)
	if err == nil && now != n.binding {
		err = edited("keeper.Identity", "the key is sealed for another partner than the connection is bound to")
	}
	return err
}

// load opens the key of a row. A key that is not the certificate's was put
// there from another row.
func (k *Keeper) load(ctx context.Context, r *identity) (crypto.Signer, error) {
	const op = "keeper.LoadKey"
	p, err := r.place(k.c.Region, seal.PrivateKey)
	if err != nil {
		return nil, err
	}
	d, err := k.driver(r.driver)
	if err != nil {
		return nil, err
	}
	dk, err := k.sealerOf(ctx, r)
	if err != nil {
		return nil, err
	}
	s, err := d.Load(ctx, dk, p, r.handle)
	if err != nil || r.chain == "" {
		return s, err
	}
	chain := chainOf(r.chain)
	if len(chain) == 0 || sumOf(chain[0]) != r.sha256 {
		return nil, edited(op, "the certificate is another than the row says")
	}
	public, err := publicOf(r.purpose, chain[0])
	if err != nil {
		return nil, edited(op, "a row's certificate is none")
	}
	if !samePublic(s.Public(), public) {
		return nil, edited(op, "the key is another than the certificate's")
	}
	return s, nil
}
