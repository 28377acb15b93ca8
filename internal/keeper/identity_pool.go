package keeper

import (
	"context"
	"database/sql"
	"errors"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/keeper/keys"
	"github.com/sallyport-mail/sallyport/internal/store"
)

const poolSize = 4

// openPool has RSA keys made ahead. They are software keys: a token makes its
// own on the spot.
func (k *Keeper) openPool(ctx context.Context) error {
	if k.pool.Load() != nil {
		return nil // of before a freeze: its keys are rows
	}
	size := k.c.Pool
	if size == 0 {
		size = poolSize
	}
	if size < 0 || driverName(k.c.Driver) != driverName(keys.Software{}) {
		return nil
	}
	dk, err := k.seals.key(ctx, keys.PoolTenant)
	if err != nil {
		return err
	}
	p, err := keys.NewPool(keys.PoolConfig{
		Region: k.c.Region, Algorithm: keys.RSA2048, Size: size, Sealer: dk, Storage: spares{k.door, keys.RSA2048},
		Failed: func(err error) { k.c.Log.Warn("keeper: no key could be made ahead", "error", err) },
	})
	if err == nil {
		k.pool.Store(p)
	}
	return err
}

func (k *Keeper) runPool(ctx context.Context) {
	if p := k.pool.Load(); p != nil {
		p.Run(ctx)
	}
}

// spares are the pool's rows of one algorithm.
type spares struct {
	door      store.KeeperDoor
	algorithm keys.Algorithm
}

// Put is of keys.Storage.
func (s spares) Put(ctx context.Context, one keys.Spare) error {
	return s.door.Change(ctx, func(tx store.KeeperTx) error {
		_, err := tx.Exec(insertSpare, one.ID, string(s.algorithm), one.Handle)
		return err
	})
}

// Take is of keys.Storage: of two that read the same row, one deletes it, and
// the other looks again.
func (s spares) Take(ctx context.Context) (keys.Spare, error) {
	const op = "keeper.TakeSpare"
	for {
		var one keys.Spare
		taken := false
		err := s.door.Change(ctx, func(tx store.KeeperTx) error {
			taken = false
			err := tx.QueryRow(selectSpare, string(s.algorithm)).Scan(&one.ID, &one.Handle)
			if errors.Is(err, sql.ErrNoRows) {
				return fault.New(fault.Missing, op, "no key was made ahead")
			}
			if err != nil {
				return store.Fault(op, err)
			}
			n, err := tx.Exec(deleteSpare, one.ID)
			taken = n == 1
			return err
		})
		if err != nil || taken {
			return one, err
		}
	}
}

// Count is of keys.Storage.
func (s spares) Count(ctx context.Context) (int, error) {
	var n int
	err := s.door.QueryRow(ctx, countSpares, string(s.algorithm)).Scan(&n)
	return n, store.Fault("keeper.CountSpares", err)
}

// spares counts the keys made ahead, for Status.
func (k *Keeper) spares(ctx context.Context) (int64, error) {
	n, err := spares{k.door, keys.RSA2048}.Count(ctx)
	return int64(n), err
}
