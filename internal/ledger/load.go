package ledger

import (
	"bytes"
	"context"
	"fmt"
	"strings"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/store"
)

// claim writes whose log this is, or checks it.
func (l *Ledger) claim(ctx context.Context) error {
	var origin, keys string
	var removed int64
	want := strings.Join(l.c.Keys, "\n")
	err := store.Fault("ledger.Open", l.door.QueryRow(ctx, selectLog).Scan(&origin, &keys, &removed))
	switch {
	case fault.Is(err, fault.Missing):
		return l.door.Change(ctx, func(tx store.KeeperTx) error {
			_, err := tx.Exec(insertLog, l.origin, want)
			return err
		})
	case err != nil:
		return err
	case origin != l.origin:
		return fault.New(fault.Conflict, "ledger.Open", "this database holds the ledger "+origin+", not "+l.origin).
			WithHint("Give each region's keeper a database of its own.")
	case keys == want:
		return nil
	}
	return l.door.Change(ctx, func(tx store.KeeperTx) error {
		_, err := tx.Exec(updateKeys, want)
		return err
	})
}

// load makes the right edge of the tree out of the newest rows, and holds it
// against the newest checkpoint.
func (l *Ledger) load(ctx context.Context) error {
	f, err := readFrontier(ctx, l.door)
	if err != nil {
		return err
	}
	var text string
	err = store.Fault("ledger.Open", l.door.QueryRow(ctx, newestCheckpoint).Scan(&text))
	if fault.Is(err, fault.Missing) {
		l.tree = f
		return l.checkTail(ctx, f, 0)
	}
	if err != nil {
		return err
	}
	cp, err := OpenCheckpoint([]byte(text), l.origin, l.keys)
	if err != nil {
		return tampered("ledger.Open", "the newest checkpoint of the ledger is not one that its key has signed: "+fault.Sentence(err))
	}
	if cp.Size > f.size {
		return tampered("ledger.Open", fmt.Sprintf("the ledger ends after %d entries, but %d were signed at %s", f.size, cp.Size, stamp(cp.Time)))
	}
	root, err := tiles{ctx, l.door, f}.root(cp.Size)
	if err != nil {
		return err
	}
	if root != cp.Hash {
		return tampered("ledger.Open", fmt.Sprintf("the ledger is not the one whose first %d entries were signed at %s", cp.Size, stamp(cp.Time)))
	}
	l.tree, l.newest = f, cp
	return l.checkTail(ctx, f, cp.Size)
}

// readFrontier reads at most 255 rows of each level.
func readFrontier(ctx context.Context, door store.KeeperDoor) (*frontier, error) {
	f := &frontier{}
	if err := door.QueryRow(ctx, countEntries).Scan(&f.size); err != nil {
		return nil, store.Fault("ledger.Open", err)
	}
	for level := 0; f.size>>(tileHeight*level) > 0; level++ {
		var edge []tlog.Hash
		var err error
		to := f.size >> (tileHeight * level)
		from := to &^ (tileWidth - 1)
		if level == 0 {
			edge, err = readLeaves(ctx, door, from, to)
		} else {
			edge, err = readRoots(ctx, door, level-1, from, to)
		}
		if err != nil {
			return nil, err
		}
		f.levels = append(f.levels, edge)
	}
	f.findPeaks()
	return f, nil
}

// readLeaves are the hashes of the entries from from to to, each held against
// its text.
func readLeaves(ctx context.Context, door store.KeeperDoor, from, to int64) ([]tlog.Hash, error) {
	edge := make([]tlog.Hash, 0, tileWidth)
	err := eachEntry(ctx, door, from, to, func(r row) error {
		if r.index != from+int64(len(edge)) {
			return tampered("ledger.Open", fmt.Sprintf("the entry %d is gone", from+int64(len(edge))))
		}
		if len(r.hash) != tlog.HashSize || r.payload != nil && !bytes.Equal(r.hash, hashOf(r.payload)) {
			return tampered("ledger.Open", fmt.Sprintf("the entry %d is not what it was", r.index))
		}
		edge = append(edge, tlog.Hash(r.hash))
		return nil
	})
	if err == nil && int64(len(edge)) != to-from {
		err = tampered("ledger.Open", fmt.Sprintf("the entry %d is gone", from+int64(len(edge))))
	}
	return edge, err
}

// readRoots are the hashes over the tiles of a level, from from to to.
func readRoots(ctx context.Context, door store.KeeperDoor, level int, from, to int64) ([]tlog.Hash, error) {
	edge := make([]tlog.Hash, 0, tileWidth)
	rows, err := door.Query(ctx, selectTiles, level, from, to)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	gone := func() error {
		return tampered("ledger.Open", fmt.Sprintf("the hashes of entries from %d on are damaged or gone", (from+int64(len(edge)))<<(tileHeight*(level+1))))
	}
	for rows.Next() {
		var n int64
		var data []byte
		if err := rows.Scan(&n, &data); err != nil {
			return nil, store.Fault("ledger.Open", err)
		}
		if n != from+int64(len(edge)) || len(data) != tileWidth*tlog.HashSize {
			return nil, gone()
		}
		edge = append(edge, subtree(unflat(data)))
	}
	if err := rows.Err(); err != nil {
		return nil, store.Fault("ledger.Open", err)
	}
	if int64(len(edge)) != to-from {
		return nil, gone()
	}
	return edge, nil
}

// row is an entry as it is stored.
type row struct {
	index   int64
	hash    []byte
	payload []byte // nil when it was removed
}

// eachEntry reads entries in the order of their indexes. It holds one read
// open, so the range is to be small.
func eachEntry(ctx context.Context, door store.KeeperDoor, from, to int64, f func(row) error) error {
	rows, err := door.Query(ctx, selectEntries, from, to)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var r row
		if err := rows.Scan(&r.index, &r.hash, &r.payload); err != nil {
			return store.Fault("ledger.read", err)
		}
		if err := f(r); err != nil {
			return err
		}
	}
	return store.Fault("ledger.read", rows.Err())
}

func hashOf(payload []byte) []byte {
	h := tlog.RecordHash(payload)
	return h[:]
}
