package keeper

import (
	"context"
	"time"

	"github.com/sallyport-mail/sallyport/internal/keeper/keys"
	"github.com/sallyport-mail/sallyport/internal/keeper/seal"
	"github.com/sallyport-mail/sallyport/internal/store"
)

const (
	endedEvery = time.Minute
	endedRest  = 10 * time.Minute // after the end of an identity, for handshakes that have begun elsewhere
	endedPage  = 100
)

// runEnded destroys the keys of identities that are retired or compromised: what
// is not there can't be stolen. The row stays, with its certificate.
func (k *Keeper) runEnded(ctx context.Context) {
	for {
		if err := k.destroyEnded(ctx); err != nil && ctx.Err() == nil {
			k.c.Log.Warn("keeper: keys of ended identities are still there", "error", err)
		}
		if !sleep(ctx, endedEvery) {
			return
		}
	}
}

func (k *Keeper) destroyEnded(ctx context.Context) error {
	for after := ""; ; {
		page, err := k.rows(ctx, selectEnded, k.now().Add(-endedRest).UnixMicro(), after, endedPage)
		if err != nil || len(page) == 0 {
			return err
		}
		for _, r := range page {
			after = r.id
			err := k.own(ctx, ownAct{name: "destroy-key", tenant: r.tenant, connection: r.connection, purpose: r.purpose, subject: r.id},
				func(ctx context.Context) error { return k.destroyKey(ctx, r) })
			if err != nil { // its driver may be away: the next look comes
				k.c.Log.Warn("keeper: a key was not destroyed", "identity", r.id, "error", err)
			}
		}
	}
}

// destroyKey removes a key from where it is, and then what leads to it.
func (k *Keeper) destroyKey(ctx context.Context, r *identity) error {
	d, err := k.driver(r.driver)
	if err != nil {
		return err
	}
	if elsewhere, ok := d.(keys.Remover); ok {
		p, err := r.place(k.c.Region, seal.PrivateKey)
		if err != nil {
			return err
		}
		dk, err := k.sealerOf(ctx, r)
		if err != nil {
			return err
		}
		if err := elsewhere.Remove(ctx, dk, p, r.handle); err != nil {
			return err
		}
	}
	return k.door.Change(ctx, func(tx store.KeeperTx) error {
		_, err := tx.Exec(updateDestroyed, []byte{}, r.id)
		return err
	})
}
