package ledger

import (
	"context"
	"fmt"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/store"
)

const sincePage = 2000 // entries of one read

// Since calls f with each entry from an index to the end, in order. All of them
// are held against the tree before it returns without an error: one that was
// edited, hidden or taken out in the database is an error of kind conflict,
// which Search, that goes by the columns beside the entries, would not tell.
// What f was called with counts only then. The cost is that of reading them.
func (l *Ledger) Since(ctx context.Context, from int64, f func(Entry) error) error {
	const op = "ledger.Since"
	l.ending.RLock()
	defer l.ending.RUnlock()
	end := l.committed()
	if from < 0 || from > end.size {
		return fault.New(fault.Conflict, op, fmt.Sprintf("the entry %d was asked for, and there are %d", from, end.size)).
			WithHint("Ask for one that there is.")
	}
	at, err := readEdge(ctx, l.door, from&^(tileWidth-1))
	if err != nil {
		return err
	}
	for at.size < end.size {
		to := min(at.size+sincePage, end.size)
		if err := l.grow(ctx, at, to, from, f); err != nil {
			return err
		}
		if at.size != to {
			return tampered(op, fmt.Sprintf("the entry %d is gone", at.size))
		}
	}
	return l.sameRoot(ctx, at, end)
}

// grow appends the stored entries up to to to a tree.
func (l *Ledger) grow(ctx context.Context, at *frontier, to, from int64, f func(Entry) error) error {
	return eachEntry(ctx, l.door, at.size, to, func(r row) error {
		if r.index != at.size || len(r.hash) != tlog.HashSize {
			return tampered("ledger.Since", fmt.Sprintf("the entry %d is gone or damaged", at.size))
		}
		at.push(tlog.Hash(r.hash))
		if r.index < from {
			return nil
		}
		e, err := r.entry()
		if err != nil {
			return err
		}
		return f(e)
	})
}

// sameRoot holds two trees of one size against each other.
func (l *Ledger) sameRoot(ctx context.Context, a, b *frontier) error {
	one, err := tiles{ctx, l.door, a}.root(a.size)
	if err != nil {
		return err
	}
	other, err := tiles{ctx, l.door, b}.root(b.size)
	if err == nil && one != other {
		err = tampered("ledger.Since", "the entries are not those that the tree was grown from")
	}
	return err
}

// readEdge is the right edge of the tree as it was at a size that completes a
// tile.
func readEdge(ctx context.Context, door store.KeeperDoor, size int64) (*frontier, error) {
	f := &frontier{size: size, levels: [][]tlog.Hash{make([]tlog.Hash, 0, tileWidth)}}
	for level := 1; size>>(tileHeight*level) > 0; level++ {
		to := size >> (tileHeight * level)
		edge, err := readRoots(ctx, door, level-1, to&^(tileWidth-1), to)
		if err != nil {
			return nil, err
		}
		f.levels = append(f.levels, edge)
	}
	f.findPeaks()
	return f, nil
}
