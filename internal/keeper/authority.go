package keeper

import (
	"context"
	"crypto/x509"
	"strconv"
	"sync"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/keeper/keys"
	"github.com/sallyport-mail/sallyport/internal/keeper/seal"
	"github.com/sallyport-mail/sallyport/internal/keeper/sign"
)

const (
	day          = 24 * time.Hour
	rootLife     = 10 * 365 * day
	issuerLife   = 90 * day
	issuerRenew  = 45 * day // what is left when the online issuer is renewed
	issuerWarn   = 40 * day // and when people are told that it was not
	leafLife     = 30 * day
	authorityRun = time.Hour
)

// authority is the region's own CA: a root that is to be offline, and an online
// issuer below it of 90 days at most. It is an Issuer.
type authority struct {
	k *Keeper

	mu     sync.RWMutex
	root   *x509.Certificate
	online sign.Authority
	told   time.Time // when people were told that the issuer ends
}

// onlineIssuer is the issuer as it is remembered.
type onlineIssuer struct {
	Serial      uint64 `json:"serial"` // of its keys: the epoch of the place
	Driver      string `json:"driver"`
	Handle      []byte `json:"handle"` // sealed
	Certificate []byte `json:"certificate"`
}

// knownRoot is the root as it is remembered.
type knownRoot struct {
	Certificate []byte `json:"certificate"`
}

// Root is the certificate of the region's root, for those who are to trust it.
func (k *Keeper) Root() *x509.Certificate {
	k.authority.mu.RLock()
	defer k.authority.mu.RUnlock()
	return k.authority.root
}

// Name is of Issuer.
func (a *authority) Name() string { return builtin }

// Issue is of Issuer. No certificate outlives the issuer's own; the chain ends
// below the root, which partners have.
func (a *authority) Issue(_ context.Context, r Request) ([][]byte, error) {
	const op = "keeper.Authority"
	n, err := parseName(r.Name, a.k.c.Region, a.k.c.Base)
	if err != nil {
		return nil, err
	}
	a.mu.RLock()
	by := a.online
	a.mu.RUnlock()
	now := a.k.now()
	left := time.Duration(0)
	if by.Certificate != nil {
		left = by.Certificate.NotAfter.Sub(now).Truncate(time.Second)
	}
	if left < time.Minute {
		return nil, fault.New(fault.Later, op, "the region's issuer has ended, or was never made").
			WithHint("Put " + rootKeyFile + " into the keeper's folder, wait for the renewal, and take it away again.")
	}
	life := r.Life
	if life == 0 {
		life = leafLife
	}
	if life <= issuerLife { // what is longer is refused as such
		life = min(life, left)
	}
	leaf, err := sign.IssueLeaf(by, sign.Leaf{Name: n, Use: sign.Use(r.Purpose), Public: r.Key.Public(), Life: life}, now)
	if err != nil {
		return nil, err
	}
	return [][]byte{leaf.Raw, by.Certificate.Raw}, nil
}

// openAuthority loads root and issuer, and makes them the first time.
func (k *Keeper) openAuthority(ctx context.Context) error {
	if err := k.openRoot(ctx); err != nil {
		return err
	}
	var have onlineIssuer
	there, err := k.recall(ctx, rememberIssuer, &have)
	if err == nil && there {
		err = k.authority.use(ctx, have)
	}
	if err != nil {
		return err
	}
	// An issuer that is not renewed stops no mail for weeks, and a keeper that
	// does not start would: the alarm is enough.
	if err := k.tendAuthority(ctx); err != nil {
		k.c.Log.Warn("keeper: the issuer was not renewed", "error", err)
	}
	return nil
}

// openRoot reads the root's certificate, or makes the root.
func (k *Keeper) openRoot(ctx context.Context) error {
	const op = "keeper.Root"
	var have knownRoot
	there, err := k.recall(ctx, rememberRoot, &have)
	if err != nil {
		return err
	}
	if !there {
		err := k.own(ctx, ownAct{name: actMakeRoot, subject: k.c.Region + "." + k.c.Base, purpose: string(sign.Issuer)}, func(ctx context.Context) error {
			var err error
			have, err = k.makeRoot(ctx)
			return err
		})
		if err != nil {
			return err
		}
	}
	root, err := x509.ParseCertificate(have.Certificate)
	if err != nil {
		return edited(op, "what is remembered as the root's certificate is none")
	}
	k.authority.mu.Lock()
	k.authority.root = root
	k.authority.mu.Unlock()
	return nil
}

// makeRoot makes the root with the key in its file, which is made when it is
// not there: a crash may have left it without a certificate.
func (k *Keeper) makeRoot(ctx context.Context) (knownRoot, error) {
	s, err := readRootKey(k.c.Dir)
	if fault.Is(err, fault.Missing) {
		s, err = writeRootKey(k.c.Dir)
	}
	if err != nil {
		return knownRoot{}, err
	}
	c, err := sign.NewRoot(sign.Key{Signer: s, Use: sign.Issuer}, k.c.Region, k.c.Base, rootLife, k.now())
	if err != nil {
		return knownRoot{}, err
	}
	made := knownRoot{Certificate: c.Raw}
	return made, k.remember(ctx, rememberRoot, made)
}

// use makes a remembered issuer the one that issues.
func (a *authority) use(ctx context.Context, i onlineIssuer) error {
	const op = "keeper.Authority"
	c, err := x509.ParseCertificate(i.Certificate)
	if err != nil {
		return edited(op, "what is remembered as the issuer's certificate is none")
	}
	a.mu.RLock()
	root := a.root
	a.mu.RUnlock()
	if err := c.CheckSignatureFrom(root); err != nil {
		return edited(op, "the issuer that is remembered is none of this region's root")
	}
	d, err := a.k.driver(i.Driver)
	if err != nil {
		return err
	}
	dk, err := a.k.seals.key(ctx, authorityTenant)
	if err != nil {
		return err
	}
	s, err := d.Load(ctx, dk, a.place(i.Serial), i.Handle)
	if err != nil {
		return err
	}
	if !samePublic(s.Public(), c.PublicKey) {
		return edited(op, "the issuer's key is another than its certificate's")
	}
	a.mu.Lock()
	a.online = sign.Authority{Key: sign.Key{Signer: s, Use: sign.Issuer}, Certificate: c}
	a.mu.Unlock()
	return nil
}

func (a *authority) place(serial uint64) seal.Place {
	return seal.Place{Region: a.k.c.Region, Tenant: authorityTenant, Purpose: string(sign.Issuer), Kind: seal.PrivateKey, Epoch: serial}
}

// runAuthority renews the issuer until ctx ends.
func (k *Keeper) runAuthority(ctx context.Context) {
	for sleep(ctx, authorityRun) {
		if err := k.tendAuthority(ctx); err != nil && ctx.Err() == nil {
			k.c.Log.Warn("keeper: the issuer was not renewed", "error", err)
		}
		if err := k.warnEnding(ctx); err != nil && ctx.Err() == nil {
			k.c.Log.Warn("keeper: nobody looked for certificates that end", "error", err)
		}
	}
}

// tendAuthority renews the issuer when its time comes and the root's key is
// there; when it is not, people are told each day.
func (k *Keeper) tendAuthority(ctx context.Context) error {
	a := &k.authority
	left := a.left(k.now())
	if left >= issuerRenew {
		return nil
	}
	s, err := readRootKey(k.c.Dir)
	if err == nil {
		root := sign.Authority{Key: sign.Key{Signer: s, Use: sign.Issuer}, Certificate: k.Root()}
		if !samePublic(s.Public(), root.Certificate.PublicKey) {
			err = fault.New(fault.Conflict, "keeper.Authority", rootKeyFile+" is not the key of this region's root").WithHint("Put the right one there.")
		} else {
			err = k.own(ctx, ownAct{name: "renew-issuer", subject: k.c.Region + "." + k.c.Base, purpose: string(sign.Issuer)},
				func(ctx context.Context) error { return a.renew(ctx, root) })
		}
	}
	if err != nil {
		a.warn(left, err)
	}
	if fault.Is(err, fault.Missing) {
		return nil // it is offline, as it should be
	}
	return err
}

func (a *authority) left(now time.Time) time.Duration {
	a.mu.RLock()
	defer a.mu.RUnlock()
	if a.online.Certificate == nil {
		return 0
	}
	return a.online.Certificate.NotAfter.Sub(now)
}

// warn raises the alarm, once a day.
func (a *authority) warn(left time.Duration, why error) {
	now := a.k.now()
	a.mu.Lock()
	due := left < issuerWarn && (a.told.IsZero() || now.Sub(a.told) >= day || now.Before(a.told))
	if due {
		a.told = now
	}
	a.mu.Unlock()
	if due {
		a.k.alarm(alarmIssuer, "", "the region's issuer ends in "+strconv.Itoa(int(max(left, 0)/day))+" days and is not renewed: "+fault.Sentence(why))
	}
}

// renew makes the next issuer: a new key, a certificate of the root.
func (a *authority) renew(ctx context.Context, root sign.Authority) error {
	var have onlineIssuer
	if _, err := a.k.recall(ctx, rememberIssuer, &have); err != nil {
		return err
	}
	next := onlineIssuer{Serial: have.Serial + 1, Driver: driverName(a.k.c.Driver)}
	dk, err := a.k.seals.key(ctx, authorityTenant)
	if err != nil {
		return err
	}
	made, err := a.k.c.Driver.Make(ctx, dk, a.place(next.Serial), keys.P256)
	if err != nil {
		return err
	}
	now := a.k.now()
	life := min(issuerLife, root.Certificate.NotAfter.Sub(now).Truncate(time.Second))
	c, err := sign.IssueIntermediate(root, made.Public, a.k.c.Region, a.k.c.Base, life, now)
	if err != nil {
		return err
	}
	next.Handle, next.Certificate = made.Handle, c.Raw
	if err := a.k.remember(ctx, rememberIssuer, next); err != nil {
		return err
	}
	return a.use(ctx, next)
}

// sleep waits; false when ctx has ended.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return ctx.Err() == nil
	}
}
