package keeper

import (
	"context"
	"crypto/sha256"
	"time"

	"github.com/sallyport-mail/sallyport/internal/keeper/act"
	"github.com/sallyport-mail/sallyport/internal/keeper/seal"
	"github.com/sallyport-mail/sallyport/internal/keeper/sign"
	"github.com/sallyport-mail/sallyport/internal/keeper/wire"
)

// AssertClient makes the JWT by which a connection's app signs in.
func (k *Keeper) AssertClient(ctx context.Context, p wire.Peer, q act.Assertion) (act.JWT, error) {
	return k.asApp(ctx, p, act.AssertClient, q, func(key sign.Key, b seal.Binding, certificate [32]byte, life time.Duration) (string, error) {
		return sign.AssertClient(key, sign.Assertion{Authority: b.Authority, Tenant: b.EntraTenant, App: b.App, Life: life, Certificate: certificate}, k.now())
	})
}

// ProvePossession makes the JWT that Graph's addKey and removeKey ask for.
func (k *Keeper) ProvePossession(ctx context.Context, p wire.Peer, q act.Assertion) (act.JWT, error) {
	return k.asApp(ctx, p, act.ProvePossession, q, func(key sign.Key, b seal.Binding, certificate [32]byte, life time.Duration) (string, error) {
		return sign.ProvePossession(key, sign.Proof{Object: b.AppObject, Life: life, Certificate: certificate}, k.now())
	})
}

// seconds is a stated life. One that is beyond any is not taken for the rest
// that a multiplication would leave of it.
func seconds(n int) time.Duration {
	const most = 1 << 31
	return time.Duration(max(-most, min(n, most))) * time.Second
}

type tokenMaker func(key sign.Key, b seal.Binding, certificate [32]byte, life time.Duration) (string, error)

// asApp makes a token. What it says of the partner is the binding that the key
// was sealed at: a row that was edited gives no key, and so no token.
func (k *Keeper) asApp(ctx context.Context, p wire.Peer, name act.Name, q act.Assertion, make tokenMaker) (act.JWT, error) {
	at := seat{q.Tenant, q.Connection, string(sign.EntraApp)}
	n, subject, err := k.findNamed(ctx, q.Context, q.Identity)
	err = states(q.Context, at.purpose, err)
	return carryOut(ctx, k, task{peer: p, name: name, about: q.Context, subject: subject}, func(ctx context.Context) (act.JWT, error) {
		if err != nil {
			return act.JWT{}, err
		}
		key, err := k.signer(ctx, n, at)
		if err != nil {
			return act.JWT{}, err
		}
		b, err := readBinding(n.binding)
		if err != nil {
			return act.JWT{}, err
		}
		token, err := make(key, b, sha256.Sum256(n.der[0]), seconds(q.LifeSeconds))
		return act.JWT{Token: token}, err
	})
}
