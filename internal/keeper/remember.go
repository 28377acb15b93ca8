package keeper

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"

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
	rememberRestored  = "restored" // in a backup alone: when it was made
)

// recall reads what was remembered under a name into v; false when nothing was.
func (k *Keeper) recall(ctx context.Context, name string, v any) (bool, error) {
	const op = "keeper.Recall"
	var text string
	err := k.door.QueryRow(ctx, selectState, name).Scan(&text)
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	if err != nil {
		return false, store.Fault(op, err)
	}
	return true, fault.Wrap(fault.Internal, op, json.Unmarshal([]byte(text), v))
}

// remember keeps v under a name, durably.
func (k *Keeper) remember(ctx context.Context, name string, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return fault.Wrap(fault.Internal, "keeper.Remember", err)
	}
	return k.door.Change(ctx, func(tx store.KeeperTx) error {
		_, err := tx.Exec(upsertState, name, string(text))
		return err
	})
}
