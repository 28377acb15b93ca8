package ledger

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/store"
)

const (
	maxPage = 1000 // entries of one answer
	// block is how many entries one read looks through; the indexes of tenants
	// and traces are by such blocks (0001_ledger.sql has the number too).
	block = 16384
)

// Filter of Search; empty fields match everything. Entries past their retention
// match only a filter that names nothing.
type Filter struct {
	Tenant, Actor, Act, Connection, Trace string
	Since, Until                          time.Time // from, and before
	From                                  int64     // the first index
	Limit                                 int       // at most 1000, which is also what 0 means
}

// Search returns entries in the order of their indexes. What it returns was
// held against the entries' hashes. To go on, ask from the last index and one.
func (l *Ledger) Search(ctx context.Context, f Filter) ([]Entry, error) {
	if f.From < 0 || f.Limit < 0 {
		return nil, fault.New(fault.Invalid, "ledger.Search", "a search from before the first entry, or for less than none")
	}
	if f.Limit == 0 || f.Limit > maxPage {
		f.Limit = maxPage
	}
	size := l.Size()
	q := searchAll
	switch {
	case f.Trace != "":
		q = searchTrace
	case f.Tenant != "":
		q = searchTenant
	}
	found := []Entry{}
	for at, to := f.From, int64(0); at < size && len(found) < f.Limit; at = to {
		to = min(size, (at/block+1)*block)
		if err := l.searchIn(ctx, q, f, at, to, &found); err != nil {
			return nil, err
		}
	}
	return found, nil
}

func (l *Ledger) searchIn(ctx context.Context, q store.KeeperSQL, f Filter, from, to int64, found *[]Entry) error {
	since, until := int64(math.MinInt64), int64(math.MaxInt64)
	if !f.Since.IsZero() {
		since = f.Since.UnixMicro()
	}
	if !f.Until.IsZero() {
		until = f.Until.UnixMicro()
	}
	rows, err := l.door.Query(ctx, q, f.Tenant, from, to, f.Actor, f.Act, f.Connection, f.Trace, since, until, f.Limit-len(*found), from/block)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var r row
		if err := rows.Scan(&r.index, &r.hash, &r.payload); err != nil {
			return store.Fault("ledger.Search", err)
		}
		e, err := r.entry()
		if err != nil {
			return err
		}
		*found = append(*found, e)
	}
	return store.Fault("ledger.Search", rows.Err())
}

// entry reads a stored row, and refuses one that was changed.
func (r row) entry() (Entry, error) {
	if r.payload == nil {
		return Entry{Index: r.index, Hash: fmt.Sprintf("%x", r.hash), Removed: true}, nil
	}
	e, err := readLeaf(r.payload)
	if err != nil || e.Index != r.index || !bytes.Equal(r.hash, hashOf(r.payload)) {
		return Entry{}, tampered("ledger.read", fmt.Sprintf("the entry %d is not what it was", r.index))
	}
	e.Hash = fmt.Sprintf("%x", r.hash)
	return e, nil
}

// Show returns one entry.
func (l *Ledger) Show(ctx context.Context, index int64) (Entry, error) {
	r, err := l.row(ctx, index)
	if err != nil {
		return Entry{}, err
	}
	return r.entry()
}

func (l *Ledger) row(ctx context.Context, index int64) (row, error) {
	if size := l.Size(); index < 0 || index >= size {
		return row{}, fault.New(fault.Missing, "ledger.Show", fmt.Sprintf("there is no entry %d: the ledger has %d", index, size)).
			WithHint("Entries are counted from 0.")
	}
	var r row
	found := false
	err := eachEntry(ctx, l.door, index, index+1, func(one row) error { r, found = one, true; return nil })
	if err == nil && !found {
		err = tampered("ledger.Show", fmt.Sprintf("the entry %d is gone", index))
	}
	return r, err
}
