package keeper

import (
	"context"
	"database/sql"
	"errors"
	"sync"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/keeper/seal"
	"github.com/sallyport-mail/sallyport/internal/store"
)

// Tenants of the region's own things. A colon is in no tenant's name.
const (
	ledgerTenant    = "region:ledger"
	authorityTenant = "region:authority"
	hostsTenant     = "region:hosts"
	memoryTenant    = "region:memory"
)

// seals opens tenants' data keys and keeps some open.
type seals struct {
	k  *Keeper
	mu sync.Mutex
	// open is bounded by forgetting all: they are quickly opened again.
	open map[string]*seal.DataKey
}

const mostOpen = 2000

func (s *seals) init(k *Keeper) { s.k, s.open = k, map[string]*seal.DataKey{} }

// key is a tenant's data key, made when it has none.
func (s *seals) key(ctx context.Context, tenant string) (*seal.DataKey, error) {
	if k := s.known(tenant); k != nil {
		return k, nil
	}
	w, err := s.row(ctx, tenant)
	if fault.Is(err, fault.Missing) {
		return s.make(ctx, tenant)
	}
	if err != nil {
		return nil, err
	}
	kek, err := s.kek(w.KEK)
	if err != nil {
		return nil, err
	}
	k, err := seal.OpenDataKey(ctx, kek, s.k.c.Region, tenant, w)
	if err != nil {
		return nil, err
	}
	s.keep(tenant, k)
	return k, nil
}

func (s *seals) known(tenant string) *seal.DataKey {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.open[tenant]
}

func (s *seals) keep(tenant string, k *seal.DataKey) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.open) >= mostOpen {
		clear(s.open)
	}
	s.open[tenant] = k
}

// kek is the KEK of that id.
func (s *seals) kek(id string) (seal.KEK, error) {
	for _, k := range s.k.c.KEKs {
		if k.ID() == id {
			return k, nil
		}
	}
	return nil, fault.New(fault.Later, "keeper.KEK", "a data key is under the KEK "+id+", which this keeper was not given").
		WithHint("Name that KEK in the keeper's settings, after the one in force.")
}

func (s *seals) row(ctx context.Context, tenant string) (seal.Wrapped, error) {
	w := seal.Wrapped{Region: s.k.c.Region, Tenant: tenant}
	err := s.k.door.QueryRow(ctx, selectDataKey, tenant).Scan(&w.KEK, &w.Blob)
	if errors.Is(err, sql.ErrNoRows) {
		return w, fault.New(fault.Missing, "keeper.DataKey", "the tenant has no data key")
	}
	return w, store.Fault("keeper.DataKey", err)
}

// make makes a tenant's data key. Of two that are made at a time one is kept,
// and both callers get that one.
func (s *seals) make(ctx context.Context, tenant string) (*seal.DataKey, error) {
	_, w, err := seal.NewDataKey(ctx, s.k.c.KEKs[0], s.k.c.Region, tenant)
	if err != nil {
		return nil, err
	}
	err = s.k.door.Change(ctx, func(tx store.KeeperTx) error {
		_, err := tx.Exec(insertDataKey, tenant, w.KEK, w.Blob)
		return err
	})
	if err != nil && !fault.Is(err, fault.Conflict) {
		return nil, err
	}
	if w, err = s.row(ctx, tenant); err != nil {
		return nil, err
	}
	kek, err := s.kek(w.KEK)
	if err != nil {
		return nil, err
	}
	k, err := seal.OpenDataKey(ctx, kek, s.k.c.Region, tenant, w)
	if err == nil {
		s.keep(tenant, k)
	}
	return k, err
}
