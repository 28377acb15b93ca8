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
	k, err := s.unwrap(ctx, regionRing(s.k.c.KEKs), tenant)
	if err != nil {
		return nil, err
	}
	s.keep(tenant, k)
	return k, nil
}

// unwrap opens a data key that is under one of a ring, and keeps it nowhere. A
// row that names a KEK of another ring does not open.
func (s *seals) unwrap(ctx context.Context, of ring, tenant string) (*seal.DataKey, error) {
	w, err := s.row(ctx, tenant)
	if fault.Is(err, fault.Missing) {
		if err = s.make(ctx, of, tenant); err == nil {
			w, err = s.row(ctx, tenant)
		}
	}
	if err != nil {
		return nil, err
	}
	kek, err := of.kek(w.KEK)
	if err != nil {
		return nil, err
	}
	return seal.OpenDataKey(ctx, kek, s.k.c.Region, tenant, w)
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

// ring are the KEKs that a kind of data keys is under. New ones go under the
// first.
type ring struct {
	keks         []seal.KEK
	setting      string // of the keeper's settings
	what         string // whose data keys they are, for entries
	remember     string // name of a rotation under way
	count, under store.KeeperSQL
}

func regionRing(keks []seal.KEK) ring {
	return ring{keks: keks, setting: "[kek]", what: "rotation", remember: rememberRotation, count: countKEKs, under: selectUnder}
}

func standbyRing(keks []seal.KEK) ring {
	return ring{keks: keks, setting: "[kek_standby]", what: "rotation of standbys", remember: rememberApart, count: countStandbyKEKs, under: selectStandbyUnder}
}

// kek is the KEK of that id.
func (r ring) kek(id string) (seal.KEK, error) {
	for _, k := range r.keks {
		if k.ID() == id && id != "" {
			return k, nil
		}
	}
	return nil, fault.New(fault.Later, "keeper.KEK", "a data key is under the KEK "+id+", which this keeper was not given as one of "+r.setting).
		WithHint("Name that KEK in the keeper's settings: in " + r.setting + ", or among the old ones after the one in force.")
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
// and both callers read that one.
func (s *seals) make(ctx context.Context, of ring, tenant string) error {
	_, w, err := seal.NewDataKey(ctx, of.keks[0], s.k.c.Region, tenant)
	if err != nil {
		return err
	}
	err = s.k.door.Change(ctx, func(tx store.KeeperTx) error {
		_, err := tx.Exec(insertDataKey, tenant, w.KEK, w.Blob)
		return err
	})
	if fault.Is(err, fault.Conflict) {
		return nil
	}
	return err
}
