package keeper

import (
	"cmp"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/keeper/act"
	"github.com/sallyport-mail/sallyport/internal/keeper/keys"
	"github.com/sallyport-mail/sallyport/internal/keeper/seal"
	"github.com/sallyport-mail/sallyport/internal/keeper/sign"
	"github.com/sallyport-mail/sallyport/internal/keeper/wire"
	"github.com/sallyport-mail/sallyport/internal/store"
)

// Issuer makes certificates.
type Issuer interface {
	Name() string // as it stands in rows and requests
	// Issue gives a chain for a name and a key, leaf first, DER. It makes its
	// own request for a certificate where it needs one.
	Issue(ctx context.Context, r Request) (chain [][]byte, err error)
}

// Request is what an issuer is asked for.
type Request struct {
	Name    string // the one DNS name of the certificate
	Purpose string // smtp-client, entra-app
	Key     crypto.Signer
	Life    time.Duration // 0: the issuer's usual
	// Replaces is the certificate that this one renews, DER; nil for none.
	Replaces []byte
}

// Advisor is an issuer that advises when to renew (RFC 9773).
type Advisor interface {
	Advice(ctx context.Context, chain [][]byte) (renewAt time.Time, explanation string, err error)
}

const (
	builtin     = "builtin"
	mostUnended = 4        // identities of a place that are neither retired nor compromised
	mostShown   = 2        // the two gates
	maxChain    = 48 << 10 // bytes
	wantedTime  = 10 * time.Minute
	otherWanted = 24 * time.Hour // of issuers that are asked over a network
	issueHelp   = "Issue smtp-client or entra-app for a connection that is bound, dkim or arc for a domain."
)

// wish is an identity that somebody wants.
type wish struct {
	id string // ULID
	seat
	epoch  uint64 // 0: under the newest name
	renew  uint64 // or under the name of this epoch; 0 is the newest
	life   time.Duration
	issuer string
	decoy  bool
	// standby: its key is sealed under the KEK of standbys, where there is one.
	standby bool
}

// IssueIdentity makes a key and a certificate of a connection.
func (k *Keeper) IssueIdentity(ctx context.Context, p wire.Peer, q act.Issue) (act.Identity, error) {
	w := wish{id: ulid.Make().String(), seat: seat{q.Tenant, q.Connection, q.Purpose},
		epoch: q.Epoch, renew: q.Renew, life: seconds(q.LifeSeconds), issuer: q.Issuer, standby: q.Standby}
	return carryOut(ctx, k, task{peer: p, name: act.IssueIdentity, about: q.Context, subject: w.id}, func(ctx context.Context) (act.Identity, error) {
		if err := ours(q.Context); err != nil {
			return act.Identity{}, err
		}
		if isMail(w.purpose) {
			w.issuer = selfIssued
		}
		if w.standby && isMail(w.purpose) {
			return act.Identity{}, fault.New(fault.Invalid, "keeper.Issue", "no standby is made of a key for messages").WithHint("Issue the next one when it is needed.")
		}
		by, err := k.issuer(w.issuer)
		if err != nil {
			return act.Identity{}, err
		}
		make := k.request
		if by.Name() == builtin || by.Name() == selfIssued {
			make = k.issue
		}
		r, err := make(ctx, w, by)
		if err != nil {
			return act.Identity{}, err
		}
		return r.told(), nil
	})
}

// issue makes an identity: the row is there as wanted before the key is used,
// and issued with its chain after, so that a crash between is seen.
func (k *Keeper) issue(ctx context.Context, w wish, by Issuer) (*identity, error) {
	if w.life < 0 || w.life > 366*24*time.Hour {
		return nil, fault.New(fault.Invalid, "keeper.Issue", "the life of a certificate is 0 for the usual, or at most a year").WithHint("Leave it out.")
	}
	r, public, err := k.want(ctx, w, by.Name())
	if err != nil {
		return nil, err
	}
	chain, err := by.Issue(ctx, Request{Name: r.name, Purpose: r.purpose, Key: lazyKey{ctx, k, r, public}, Life: w.life})
	if err == nil {
		err = k.certify(ctx, r, chain, public)
	}
	if err != nil {
		k.giveUp(ctx, r, err)
		return nil, err
	}
	return r, nil
}

func (k *Keeper) issuer(name string) (Issuer, error) {
	if name == "" || name == builtin {
		return &k.authority, nil
	}
	if name == selfIssued {
		return mailKeys{}, nil
	}
	for _, i := range k.others.all() {
		if i.Name() == name {
			return i, nil
		}
	}
	return nil, fault.New(fault.Invalid, "keeper.Issue", "there is no issuer "+strconv.Quote(name)).WithHint("Leave it out for the region's own CA, or set that issuer up.")
}

// algorithmOf is what keys of a purpose are.
func algorithmOf(purpose string) (keys.Algorithm, error) {
	switch purpose {
	case string(sign.TLSClient):
		return keys.P256, nil
	case string(sign.EntraApp):
		return keys.RSA2048, nil
	case string(sign.DKIM), string(sign.ARC):
		return keys.RSA2048, nil
	}
	return "", fault.New(fault.Invalid, "keeper.Issue", "no identities are issued for "+strconv.Quote(purpose)).WithHint(issueHelp)
}

// want makes the key and enters the row.
func (k *Keeper) want(ctx context.Context, w wish, issuer string) (*identity, crypto.PublicKey, error) {
	algorithm, err := algorithmOf(w.purpose)
	if err != nil {
		return nil, nil, err
	}
	defer k.places.lock(w.tenant, w.connection)()
	binding := bindingText(act.Binding{})
	if !isMail(w.purpose) {
		if binding, err = k.bindingText(ctx, w.tenant, w.connection); err != nil {
			return nil, nil, err
		}
	}
	now := k.now().UnixMicro()
	r := &identity{id: w.id, tenant: w.tenant, connection: w.connection, purpose: w.purpose, state: act.Wanted,
		issuer: issuer, algorithm: string(algorithm), binding: binding, created: now, changed: now}
	if w.standby && k.standbys.configured() {
		r.sealer = standbySealer
	}
	if err := k.nameIt(ctx, r, w); err != nil {
		return nil, nil, err
	}
	public, err := k.makeKey(ctx, r, algorithm, w.decoy)
	if err != nil {
		return nil, nil, err
	}
	return r, public, k.door.Change(ctx, func(tx store.KeeperTx) error {
		_, err := tx.Exec(insertIdentity, r.values()...)
		return err
	})
}

// nameIt gives a row its epoch and name.
func (k *Keeper) nameIt(ctx context.Context, r *identity, w wish) error {
	const op = "keeper.Issue"
	have, err := k.epochsOf(ctx, r)
	if err != nil {
		return err
	}
	if have.unended >= mostUnended {
		return fault.New(fault.Conflict, op, "the connection has "+strconv.Itoa(have.unended)+" identities for "+r.purpose+" that are not retired").
			WithHint("Retire those that are not needed: identity list.")
	}
	if isMail(r.purpose) {
		return have.nameMail(r, w.epoch)
	}
	if w.epoch == 0 && (w.renew != 0 || have.newest > 0) {
		return have.renew(r, cmp.Or(w.renew, have.newest))
	}
	switch {
	case w.renew != 0:
		return fault.New(fault.Invalid, op, "a renewal is of an epoch that there is, and a new epoch renews none").WithHint("Ask for one of them.")
	case w.epoch != 0 && w.epoch != have.newest+1:
		return fault.New(fault.Conflict, op, "the newest epoch is "+strconv.FormatUint(have.newest, 10)+", and "+strconv.FormatUint(w.epoch, 10)+" is not the next").
			WithHint("Ask for the next epoch, or for none to renew under the newest.")
	}
	r.epoch = have.newest + 1
	r.name = sign.Name{Epoch: r.epoch, Label: label(), Region: k.c.Region, Base: k.c.Base}.String()
	return nil
}

// epochs are what a place has.
type epochs struct {
	newest  uint64
	of      map[uint64]epoch
	unended int
}

// epoch is what the identities of one epoch have in common.
type epoch struct {
	name        string
	compromised bool // one of them is
}

// renew gives a row the name of an epoch. Partners match names, so that one of
// which a key was stolen is never given to another key.
func (e epochs) renew(r *identity, number uint64) error {
	const op = "keeper.Issue"
	have, there := e.of[number]
	text := strconv.FormatUint(number, 10)
	switch {
	case !there:
		return fault.New(fault.Conflict, op, "there is no epoch "+text+" to renew").WithHint("Name one of identity list.")
	case have.compromised && number == e.newest:
		return fault.New(fault.Conflict, op, "an identity of the newest epoch is compromised, and partners match the name").
			WithHint("Ask for epoch " + strconv.FormatUint(e.newest+1, 10) + ", which has a new name.")
	case have.compromised:
		return fault.New(fault.Conflict, op, "an identity of epoch "+text+" is compromised, and partners match the name").
			WithHint("Use one of a later epoch.")
	}
	r.epoch, r.name = number, have.name
	return nil
}

func (k *Keeper) epochsOf(ctx context.Context, r *identity) (epochs, error) {
	const op = "keeper.Issue"
	e := epochs{of: map[uint64]epoch{}}
	rows, err := k.door.Query(ctx, selectPlace, r.tenant, r.connection, r.purpose)
	if err != nil {
		return e, err
	}
	defer rows.Close()
	for rows.Next() {
		var one identity
		if err := rows.Scan(&one.id, &one.epoch, &one.name, &one.state); err != nil {
			return e, store.Fault(op, err)
		}
		e.newest = max(e.newest, one.epoch)
		e.of[one.epoch] = epoch{one.name, e.of[one.epoch].compromised || one.state == act.Compromised}
		if one.state != act.Retired && one.state != act.Compromised {
			e.unended++
		}
	}
	return e, store.Fault(op, rows.Err())
}

// label is the part of a name that nobody can guess: 60 random bits. A name
// that told the tenant would tell everybody who reads a certificate log.
func label() string {
	const letters = "abcdefghijklmnopqrstuvwxyz234567"
	b := make([]byte, 12)
	rand.Read(b)
	for i := range b {
		b[i] = letters[b[i]&31]
	}
	return string(b)
}

// makeKey makes a row's key and marker. The key of a standby is none of the
// pool's: those have lain under the region's KEK, and an old copy still has them.
func (k *Keeper) makeKey(ctx context.Context, r *identity, a keys.Algorithm, decoy bool) (crypto.PublicKey, error) {
	p, err := r.place(k.c.Region, seal.PrivateKey)
	if err != nil {
		return nil, err
	}
	dk, err := k.sealerOf(ctx, r)
	if err != nil {
		return nil, err
	}
	r.driver = driverName(k.c.Driver)
	var made keys.Made
	if pool := k.pool.Load(); a == keys.RSA2048 && pool != nil && r.driver == driverName(keys.Software{}) && r.sealer == "" {
		made, err = pool.Take(ctx, dk, p)
	} else {
		made, err = k.c.Driver.Make(ctx, dk, p, a)
	}
	if err != nil {
		return nil, err
	}
	r.handle = made.Handle
	r.marker, err = k.mark(ctx, r, r.state, decoy)
	return made.Public, err
}

// certify holds what an issuer gave against what was asked for, and makes the
// row issued.
func (k *Keeper) certify(ctx context.Context, r *identity, chain [][]byte, public crypto.PublicKey) error {
	const op = "keeper.Issue"
	var err error
	if isMail(r.purpose) {
		err = r.publish(chain[0], public, k.now())
	} else {
		err = r.take(chain, public)
	}
	if err != nil {
		return err
	}
	if r.marker, err = k.remark(ctx, r, act.Issued); err != nil {
		return err
	}
	r.state, r.changed = act.Issued, k.now().UnixMicro()
	return k.door.Change(ctx, func(tx store.KeeperTx) error {
		n, err := tx.Exec(updateIssued, r.chain, r.sha256, r.notBefore, r.notAfter, r.changed, r.marker, r.id)
		if err == nil && n != 1 {
			err = fault.New(fault.Conflict, op, "the identity is not wanted any more").WithHint("The connection was released meanwhile.")
		}
		return err
	})
}

// take gives a row the chain that an issuer gave, if it is of its key and name.
func (r *identity) take(chain [][]byte, public crypto.PublicKey) error {
	const op = "keeper.Issue"
	leaf, err := leafOf(op, chain)
	if err != nil {
		return err
	}
	if !samePublic(public, leaf.PublicKey) || leaf.VerifyHostname(r.name) != nil {
		return fault.New(fault.Later, op, "the issuer "+r.issuer+" gave a certificate of another key or name").WithHint("Look at that issuer's settings and log.")
	}
	r.chain, r.sha256 = chainText(chain), sumOf(leaf.Raw)
	r.notBefore, r.notAfter = leaf.NotBefore.UnixMicro(), leaf.NotAfter.UnixMicro()
	return nil
}

// leafOf is the first certificate of a chain of bearable size.
func leafOf(op string, chain [][]byte) (*x509.Certificate, error) {
	size := 0
	for _, der := range chain {
		size += len(der)
	}
	if len(chain) == 0 || size > maxChain {
		return nil, fault.New(fault.Later, op, "the issuer gave no chain, or one that is too long").WithHint("Look at that issuer's settings and log.")
	}
	leaf, err := x509.ParseCertificate(chain[0])
	if err != nil {
		return nil, (&fault.Error{Kind: fault.Later, Op: op, Err: err}).WithHint("Look at that issuer's settings and log.")
	}
	return leaf, nil
}

// giveUp retires what was wanted and did not come.
func (k *Keeper) giveUp(ctx context.Context, r *identity, why error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), outcomeTime)
	defer cancel()
	r.explanation = clip("not issued: " + fault.Sentence(why))
	err := k.door.Change(ctx, func(tx store.KeeperTx) error {
		_, err := tx.Exec(updateGiveUp, r.explanation, k.now().UnixMicro(), []byte{}, r.id)
		return err
	})
	if err != nil {
		k.c.Log.Warn("keeper: what was not issued stays wanted until the next start", "identity", r.id, "error", err)
	}
}

// lazyKey is a wanted identity's key, opened only if the issuer wants it to
// sign: the region's own CA does not.
type lazyKey struct {
	ctx    context.Context // of the one issue
	k      *Keeper
	r      *identity
	public crypto.PublicKey
}

func (l lazyKey) Public() crypto.PublicKey { return l.public }

func (l lazyKey) Sign(rand io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	s, err := l.k.load(l.ctx, l.r)
	if err != nil {
		return nil, err
	}
	return s.Sign(rand, digest, opts)
}

// parseName takes a name of this region's apart.
func parseName(name, region, base string) (sign.Name, error) {
	n := sign.Name{Region: region, Base: base}
	head, ok := strings.CutSuffix(name, "."+region+"."+base)
	first, label, ok2 := strings.Cut(head, ".")
	digits, ok3 := strings.CutPrefix(first, "e")
	epoch, err := strconv.ParseUint(digits, 10, 63)
	n.Epoch, n.Label = epoch, label
	if !ok || !ok2 || !ok3 || err != nil || n.String() != name {
		return n, fault.New(fault.Invalid, "keeper.Name", strconv.Quote(name)+" is no name of an identity of this region").WithHint("Leave the name to the keeper.")
	}
	return n, nil
}

// initIdentities makes what needs no database.
func (k *Keeper) initIdentities() {
	k.signers.init()
	k.places.init()
	k.awaited.init()
	k.authority.k = k
}

// openIdentities ends what a crash has left wanted: the key of none of them was
// shown to anybody.
func (k *Keeper) openIdentities(ctx context.Context) error {
	now := k.now()
	all, err := k.rows(ctx, selectWanted, now.Add(-wantedTime).UnixMicro())
	if err != nil {
		return err
	}
	for _, r := range all {
		if r.issuer != builtin && now.Sub(moment(r.created)) < otherWanted {
			continue
		}
		err := k.own(ctx, ownAct{name: string(act.MoveIdentity), tenant: r.tenant, connection: r.connection, purpose: r.purpose,
			subject: moved(r.id, act.Wanted, act.Retired)}, func(ctx context.Context) error {
			return k.door.Change(ctx, func(tx store.KeeperTx) error {
				_, err := tx.Exec(updateGiveUp, "not issued: the keeper stopped in the middle of it", k.now().UnixMicro(), []byte{}, r.id)
				return err
			})
		})
		if err != nil {
			return err
		}
	}
	return nil
}
