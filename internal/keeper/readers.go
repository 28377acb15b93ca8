package keeper

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/keeper/act"
	"github.com/sallyport-mail/sallyport/internal/keeper/wire"
	"github.com/sallyport-mail/sallyport/internal/ledger"
)

const (
	usualFound = 100
	maxFound   = 1000
	pageBytes  = 900 << 10 // of one answer
)

// readable says why the ledger can't be read, if it can't.
func (k *Keeper) readable(op string) error {
	if k.ledger != nil {
		return nil
	}
	return k.forGood(op)
}

// SearchLedger is of wire.Acts.
func (k *Keeper) SearchLedger(ctx context.Context, _ wire.Peer, q act.Search) (act.Entries, error) {
	const op = "keeper.SearchLedger"
	none := act.Entries{Entries: []json.RawMessage{}}
	if err := k.readable(op); err != nil {
		return none, err
	}
	if q.Limit < 0 || q.Limit > maxFound || q.From < 0 {
		return none, fault.New(fault.Invalid, op, "a search gives 1 to 1000 entries, from one that is there").WithHint("Ask for fewer.")
	}
	if q.Limit == 0 {
		q.Limit = usualFound
	}
	f := ledger.Filter{
		Tenant: q.Tenant, Connection: q.Connection, Actor: q.Actor, Act: q.Act, Trace: q.Of,
		Since: q.Since, Until: q.Until, From: q.From, Limit: q.Limit,
	}
	found, err := k.ledger.Search(ctx, f)
	if err != nil {
		return none, err
	}
	bytes := 0
	for _, e := range found {
		d, err := document(e)
		if err != nil {
			return none, err
		}
		if bytes += len(d.Document) + 1; bytes > pageBytes {
			none.Next = e.Index
			return none, nil
		}
		none.Entries = append(none.Entries, d.Document)
	}
	if len(found) == q.Limit {
		none.Next, err = k.another(ctx, f, found[len(found)-1].Index+1)
	}
	return none, err
}

// another is the index of the next entry that a filter matches, 0 when there is
// none.
func (k *Keeper) another(ctx context.Context, f ledger.Filter, from int64) (int64, error) {
	f.From, f.Limit = from, 1
	more, err := k.ledger.Search(ctx, f)
	if err != nil || len(more) == 0 {
		return 0, err
	}
	return more[0].Index, nil
}

// ShowEntry is of wire.Acts.
func (k *Keeper) ShowEntry(ctx context.Context, _ wire.Peer, q act.Entry) (act.Document, error) {
	e, err := k.oneEntry(ctx, "keeper.ShowEntry", q)
	if err != nil {
		return act.Document{}, err
	}
	return document(e)
}

// ProveEntry is of wire.Acts.
func (k *Keeper) ProveEntry(ctx context.Context, _ wire.Peer, q act.Entry) (act.Document, error) {
	if _, err := k.oneEntry(ctx, "keeper.ProveEntry", q); err != nil {
		return act.Document{}, err
	}
	p, err := k.ledger.Prove(ctx, q.Index)
	if err != nil {
		return act.Document{}, err
	}
	return document(p)
}

// oneEntry is an entry, if it is of the tenant that was stated.
func (k *Keeper) oneEntry(ctx context.Context, op string, q act.Entry) (ledger.Entry, error) {
	if err := k.readable(op); err != nil {
		return ledger.Entry{}, err
	}
	e, err := k.ledger.Show(ctx, q.Index)
	if err == nil && q.Tenant != "" && (e.Tenant != q.Tenant || q.Connection != "" && e.Connection != q.Connection) {
		err = fault.New(fault.Missing, op, "the tenant has no entry "+strconv.FormatInt(q.Index, 10)).WithHint("Look at: ledger search")
	}
	return e, err
}

func document(v any) (act.Document, error) {
	b, err := json.Marshal(v)
	return act.Document{Document: b}, fault.Wrap(fault.Internal, "keeper.Document", err)
}

// ExportLedger is of wire.Acts. A ledger that does not open is exported as it
// lies there, so that it can be said what is wrong with it.
func (k *Keeper) ExportLedger(ctx context.Context, p wire.Peer, q act.Plain, w io.Writer) error {
	if k.ledger == nil {
		return ledger.Salvage(ctx, k.c.DB, k.now(), w, k.keptCheckpoint()...)
	}
	// The whole log leaves the house, which shall be seen. It holds no secret, so
	// it is not withheld when nothing can be entered.
	if err := k.enter(ctx, k.entry(task{peer: p, name: act.ExportLedger, about: q.Context}, carried)); err != nil {
		k.c.Log.Warn("keeper: an export of the ledger was not entered", "error", err)
	}
	return k.ledger.Export(ctx, w, k.keptCheckpoint()...)
}

// keptCheckpoint is the newest checkpoint as it lies beside the database: of an
// old copy it says that there was more. There is none at first.
func (k *Keeper) keptCheckpoint() [][]byte {
	raw, err := os.ReadFile(filepath.Join(k.c.Dir, newestFile))
	switch {
	case err == nil:
		return [][]byte{raw}
	case !errors.Is(err, fs.ErrNotExist):
		k.c.Log.Warn("keeper: an export is without the checkpoint that is kept beside the database", "error", err)
	}
	return nil
}

// Checkpoint is of wire.Acts.
func (k *Keeper) Checkpoint(ctx context.Context, _ wire.Peer, _ act.Plain) (act.Log, error) {
	if err := k.readable("keeper.Checkpoint"); err != nil {
		return act.Log{}, err
	}
	c, err := k.ledger.Checkpoint(ctx)
	return act.Log{Note: string(c.Note)}, err
}
