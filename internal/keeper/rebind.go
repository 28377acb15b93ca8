package keeper

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/keeper/act"
	"github.com/sallyport-mail/sallyport/internal/keeper/seal"
	"github.com/sallyport-mail/sallyport/internal/store"
)

const updateBound store.KeeperSQL = `UPDATE keeper_binding SET binding = $3, set_at = $4 WHERE tenant = $1 AND connection = $2`

// rebind changes a connection's binding; more seals anew what is sealed for it,
// in the same transaction.
func (k *Keeper) rebind(ctx context.Context, tenant, connection string, to act.Binding, more func(tx store.KeeperTx, from, to seal.Binding) error) error {
	const op = "keeper.Rebind"
	text, err := json.Marshal(to)
	if err != nil {
		return fault.Wrap(fault.Internal, op, err)
	}
	return k.door.Change(ctx, func(tx store.KeeperTx) error {
		var bound string
		err := tx.QueryRow(selectBoundTo, tenant, connection).Scan(&bound)
		if errors.Is(err, sql.ErrNoRows) {
			return fault.New(fault.Missing, op, "there is no connection "+tenant+"/"+connection).WithHint("Look at its name.")
		}
		if err != nil {
			return store.Fault(op, err)
		}
		from, err := bindingOf(bound)
		if err != nil {
			return err
		}
		if _, err := tx.Exec(updateBound, tenant, connection, string(text), k.now().UnixMicro()); err != nil {
			return err
		}
		return more(tx, from, seal.Binding(to))
	})
}
