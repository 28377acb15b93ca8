package keeper

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"maps"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/store"
)

// Names of what the keeper remembers of itself.
const (
	rememberLedgerKey = "ledger-key" // sealed
	rememberBreaker   = "breaker"
	rememberRotation  = "rotation"
	rememberApart     = "rotation-standby"
	rememberFrozen    = "frozen"
	rememberRoot      = "root"     // certificate
	rememberIssuer    = "issuer"   // sealed
	rememberAccount   = "account"  // sealed: of ACME
	rememberManifest  = "manifest" // sealed: of all the others
	rememberRestored  = "restored" // in a backup alone: when it was made
)

// recall reads what was remembered under a name into v; false when nothing was.
// What is not as the manifest has it is refused, unless operators are to decide
// what becomes of it.
func (k *Keeper) recall(ctx context.Context, name string, v any) (bool, error) {
	const op = "keeper.Recall"
	m := &k.memory
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.resolve(ctx); err != nil {
		return false, err
	}
	var text string
	err := k.door.QueryRow(ctx, selectState, name).Scan(&text)
	there := !errors.Is(err, sql.ErrNoRows)
	if err != nil && there {
		return false, store.Fault(op, err)
	}
	if !m.has(name, text, there) {
		return false, edited(op, "what the keeper remembers as "+name)
	}
	if !there {
		return false, nil
	}
	return true, fault.Wrap(fault.Internal, op, json.Unmarshal([]byte(text), v))
}

// rotations are the names of those that may be under way.
func rotations() []string { return []string{rememberRotation, rememberApart} }

// remember keeps v under a name, durably, with the manifest of it.
func (k *Keeper) remember(ctx context.Context, name string, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return fault.Wrap(fault.Internal, "keeper.Remember", err)
	}
	return k.memory.change(ctx, name, string(text))
}

// forget is remember of nothing.
func (k *Keeper) forget(ctx context.Context, name string) error {
	return k.memory.change(ctx, name, "")
}

// change makes a row what it is to be; "" takes it away.
func (m *memory) change(ctx context.Context, name, value string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if name == rememberLedgerKey { // there is no ledger yet that a manifest could be entered in
		return m.k.door.Change(ctx, func(tx store.KeeperTx) error {
			_, err := tx.Exec(upsertState, name, value)
			return err
		})
	}
	if m.edited != "" && !m.taken {
		if err := m.take(ctx); err != nil {
			return err
		}
	}
	rows := maps.Clone(m.now.Rows)
	if value == "" {
		delete(rows, name)
	} else {
		rows[name] = digest([]byte(value))
	}
	return m.write(ctx, name, rows, func(tx store.KeeperTx) error {
		if value == "" {
			_, err := tx.Exec(deleteState, name)
			return err
		}
		_, err := tx.Exec(upsertState, name, value)
		return err
	})
}

// has reports whether a row is as the manifest has it. The caller holds the lock.
func (m *memory) has(name, text string, there bool) bool {
	if m.now.Rows == nil || name == rememberRestored || m.edited != "" && !m.taken {
		return true // before it is opened, or it is frozen for what was found
	}
	want, known := m.now.Rows[name]
	return known == there && (!there || want == digest([]byte(text)))
}
