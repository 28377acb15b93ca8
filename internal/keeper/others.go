package keeper

import (
	"context"
	"crypto"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/keeper/act"
	"github.com/sallyport-mail/sallyport/internal/keeper/keys"
	"github.com/sallyport-mail/sallyport/internal/keeper/seal"
)

// accountKey is the key of an account at a public CA as it is remembered.
type accountKey struct {
	Sealed []byte `json:"sealed"`
}

// publicIssuers are the issuers beside the region's own CA; none before they are
// opened.
type publicIssuers struct{ list atomic.Pointer[[]Issuer] }

func (o *publicIssuers) all() []Issuer {
	if list := o.list.Load(); list != nil {
		return *list
	}
	return nil
}

// openIssuers makes the issuers beside the region's own CA. Their account's key
// is sealed like any other, and made when it is wanted for the first time.
func (k *Keeper) openIssuers(ctx context.Context) error {
	if k.others.list.Load() != nil {
		return nil // of before a freeze
	}
	if k.c.MoreIssuers == nil {
		k.others.list.Store(&k.c.Issuers)
		return nil
	}
	account, err := k.account(ctx)
	if err != nil {
		return err
	}
	more, err := k.c.MoreIssuers(account)
	if err != nil {
		return err
	}
	all := append(slices.Clone(k.c.Issuers), more...)
	k.others.list.Store(&all)
	return nil
}

func (k *Keeper) account(ctx context.Context) (crypto.Signer, error) {
	place := seal.Place{Region: k.c.Region, Tenant: authorityTenant, Purpose: "acme-account", Kind: seal.PrivateKey}
	dk, err := k.seals.key(ctx, authorityTenant)
	if err != nil {
		return nil, err
	}
	var have accountKey
	there, err := k.recall(ctx, rememberAccount, &have)
	if err != nil {
		return nil, err
	}
	if !there {
		made, err := keys.Software{}.Make(ctx, dk, place, keys.P256)
		if err != nil {
			return nil, err
		}
		have.Sealed = made.Handle
		if err := k.remember(ctx, rememberAccount, have); err != nil {
			return nil, err
		}
	}
	return keys.Software{}.Load(ctx, dk, place, have.Sealed)
}

const (
	issuesAtATime = 4
	issuePause    = 10 * time.Second // before an issuer that said later is asked again
	longestPause  = 15 * time.Minute
)

// awaited are identities that an issuer over the network has been asked for.
// Who asked has them as wanted, and looks again.
type awaited struct {
	wake chan struct{}
	mu   sync.Mutex
	due  map[string]await // by id
}

type await struct {
	at     time.Time // when it is tried
	pause  time.Duration
	waited time.Duration // all pauses: a clock that jumps ahead ends no request
}

func (a *awaited) init() { a.wake, a.due = make(chan struct{}, 1), map[string]await{} }

func (a *awaited) add(id string, w await) {
	a.mu.Lock()
	a.due[id] = w
	a.mu.Unlock()
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

// take are those whose time has come, and when the next one's does.
func (a *awaited) take(now time.Time) (ready map[string]await, next time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	ready, next = map[string]await{}, longestPause
	for id, w := range a.due {
		if wait := w.at.Sub(now); wait > 0 && wait <= longestPause { // longer: the clock went back
			next = min(next, wait)
		} else if len(ready) < issuesAtATime {
			ready[id] = w
			delete(a.due, id)
		} else {
			next = 0
		}
	}
	return ready, next
}

// request makes a key and a wanted row, and leaves the rest to runAwaited: a
// public CA takes longer than an act may.
func (k *Keeper) request(ctx context.Context, w wish, by Issuer) (*identity, error) {
	r, _, err := k.want(ctx, w, by.Name())
	if err != nil {
		return nil, err
	}
	k.awaited.add(r.id, await{at: k.now()})
	return r, nil
}

// runAwaited asks issuers for what is wanted of them, until ctx ends.
func (k *Keeper) runAwaited(ctx context.Context) {
	for {
		ready, next := k.awaited.take(k.now())
		var all sync.WaitGroup
		for id, w := range ready {
			all.Go(func() { k.tryAwaited(ctx, id, w) })
		}
		all.Wait()
		if len(ready) > 0 {
			continue
		}
		select {
		case <-ctx.Done():
			return
		case <-k.awaited.wake:
		case <-time.After(next):
		}
	}
}

// leftAwaited are those that an earlier process has left: its last acts may
// have ended between the key and the certificate.
func (k *Keeper) leftAwaited(ctx context.Context) error {
	rows, err := k.rows(ctx, selectWanted, k.now().UnixMicro())
	for _, r := range rows {
		k.awaited.add(r.id, await{at: k.now()})
	}
	return err
}

// tryAwaited asks once. A CA that says later is asked again, anything else ends
// it.
func (k *Keeper) tryAwaited(ctx context.Context, id string, w await) {
	r, err := k.row(ctx, selectByID, id)
	if err != nil || r.state != act.Wanted {
		return // released meanwhile, or done
	}
	by, err := k.issuer(r.issuer)
	if err == nil {
		err = k.own(ctx, ownAct{name: string(act.IssueIdentity), tenant: r.tenant, connection: r.connection, purpose: r.purpose, subject: r.id + " by " + r.issuer},
			func(ctx context.Context) error { return k.issueAwaited(ctx, r, by) })
	}
	if err == nil || ctx.Err() != nil {
		return
	}
	if fault.Is(err, fault.Later) && w.waited < otherWanted {
		w.pause = min(max(2*w.pause, issuePause), longestPause)
		w.waited += w.pause
		w.at = k.now().Add(w.pause)
		k.c.Log.Warn("keeper: an issuer is asked again", "issuer", r.issuer, "identity", r.id, "after", w.pause.String(), "error", err)
		k.awaited.add(id, w)
		return
	}
	k.giveUp(ctx, r, err)
	k.alarm(alarmIssuer, r.tenant, r.issuer+" issued nothing for "+r.tenant+"/"+r.connection+": "+fault.Sentence(err))
}

func (k *Keeper) issueAwaited(ctx context.Context, r *identity, by Issuer) error {
	key, err := k.load(ctx, r)
	if err != nil {
		return err
	}
	chain, err := by.Issue(ctx, Request{Name: r.name, Purpose: r.purpose, Key: key, Replaces: k.replaced(ctx, r)})
	if err != nil {
		return err
	}
	return k.certify(ctx, r, chain, key.Public())
}

// replaced is the certificate that a row's renews: of the same name and issuer
// the active one, else the newest that a standby has. nil for none.
func (k *Keeper) replaced(ctx context.Context, r *identity) []byte {
	all, err := k.rows(ctx, selectConnection, r.tenant, r.connection)
	if err != nil {
		return nil
	}
	var found *identity
	for _, have := range all {
		same := have.purpose == r.purpose && have.name == r.name && have.issuer == r.issuer && have.id != r.id && have.chain != ""
		if same && (found == nil || found.state != act.Active) {
			found = have
		}
	}
	if found == nil {
		return nil
	}
	if der := chainOf(found.chain); len(der) > 0 {
		return der[0]
	}
	return nil
}
