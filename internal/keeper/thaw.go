package keeper

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/keeper/act"
	"github.com/sallyport-mail/sallyport/internal/keeper/operator"
	"github.com/sallyport-mail/sallyport/internal/store"
)

const retireBatch = 1000 // identities in one commit

// thaw ends the freezing: the log goes on from where the database has it. The
// copy cannot know which identities were retired since it was made, so those
// live on alone that the operators name.
func (k *Keeper) thaw(ctx context.Context, o operator.Order) (act.Ordered, error) {
	const op = "keeper.Thaw"
	if k.frozen.reason() == "" {
		return act.Ordered{}, fault.New(fault.Conflict, op, "the keeper is not frozen").WithHint("Look at its status.")
	}
	if err := k.mendMemory(ctx); err != nil {
		return act.Ordered{}, err
	}
	keep := o.Parameters["keep"]
	retired := int64(0)
	if keep != "all" {
		ids, err := k.kept(ctx, keep)
		if err != nil {
			return act.Ordered{}, err
		}
		if retired, err = k.retireAllBut(ctx, ids); err != nil {
			return act.Ordered{}, err
		}
	}
	if _, err := k.takeAsIs(ctx); err != nil {
		return act.Ordered{}, err
	}
	if err := k.endFrozen(ctx); err != nil {
		return act.Ordered{}, err
	}
	return act.Ordered{Text: fmt.Sprintf("thawed; %d identities were retired", retired)}, nil
}

// kept checks the ids that an order names, and returns them between commas.
func (k *Keeper) kept(ctx context.Context, keep string) (string, error) {
	const op = "keeper.Thaw"
	if keep == "" || keep == "none" {
		return ",", nil
	}
	ids := ","
	for _, id := range strings.Split(keep, ",") {
		id = strings.TrimSpace(id)
		var n int
		if err := k.door.QueryRow(ctx, selectUnretired, id).Scan(&n); err != nil {
			return "", store.Fault(op, err)
		}
		if n == 0 {
			return "", fault.New(fault.Invalid, op, "there is no identity "+id+" that could be kept").WithHint("Look at: identity list")
		}
		ids += id + ","
	}
	return ids, nil
}

func (k *Keeper) retireAllBut(ctx context.Context, ids string) (int64, error) {
	total := int64(0)
	for {
		var n int64
		err := k.door.Change(ctx, func(tx store.KeeperTx) (err error) {
			n, err = tx.Exec(retireOthers, ids, k.now().UnixMicro(), retireBatch, []byte{})
			return err
		})
		total += n
		k.signers.dropAll()
		if err != nil || n == 0 {
			return total, err
		}
	}
}

// takeAsIs makes the log as it is here the one that counts: what is kept beside
// the database follows it, and witnesses that know another are overruled. The
// keeper stays frozen.
func (k *Keeper) takeAsIs(ctx context.Context) (act.Ordered, error) {
	const op = "keeper.Restore"
	f := &k.frozen
	why := f.reason()
	if why == "" {
		return act.Ordered{}, fault.New(fault.Conflict, op, "the keeper is not frozen: there is nothing to take as it is").WithHint("Look at its status.")
	}
	c, err := k.ledger.Checkpoint(ctx)
	if err != nil {
		return act.Ordered{}, err
	}
	s := frozenState{Why: why}
	for _, w := range k.c.Witnesses {
		s.Overruled = append(s.Overruled, w.Name())
	}
	if err := k.remember(ctx, rememberFrozen, s); err != nil {
		return act.Ordered{}, err
	}
	if err := replaceFile(filepath.Join(k.c.Dir, newestFile), c.Note); err != nil {
		return act.Ordered{}, fault.Wrap(fault.Internal, op, err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.known = c.Size
	for _, name := range s.Overruled {
		f.overruled[name] = true
	}
	return act.Ordered{Text: fmt.Sprintf("the ledger of %d entries is the one that counts; the keeper stays frozen until an order thaws it", c.Size)}, nil
}

// endFrozen forgets why, on disk first.
func (k *Keeper) endFrozen(ctx context.Context) error {
	f := &k.frozen
	if err := os.Remove(filepath.Join(k.c.Dir, restoredFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fault.Wrap(fault.Internal, "keeper.Thaw", err)
	}
	s := frozenState{}
	f.mu.Lock()
	for name := range f.overruled {
		s.Overruled = append(s.Overruled, name)
	}
	f.mu.Unlock()
	if err := k.remember(ctx, rememberFrozen, s); err != nil {
		return err
	}
	err := k.door.Change(ctx, func(tx store.KeeperTx) error {
		_, err := tx.Exec(deleteState, rememberRestored)
		return err
	})
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.why = ""
	select {
	case f.over <- struct{}{}:
	default: // it is known
	}
	return nil
}
