package store_test

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/store"
	"github.com/sallyport-mail/sallyport/internal/testpeer"
)

const (
	pageCount store.RoadSQL = `PRAGMA page_count`
	maxPages  store.RoadSQL = `PRAGMA max_page_count = %d`
	pageSize  store.RoadSQL = `PRAGMA page_size`
)

// limitPages lets the road's file have at most spare more pages: SQLite then
// answers as it does on a full disk.
func limitPages(t *testing.T, s *store.Store, spare int) {
	t.Helper()
	must(t, s.Road.Road().Change(t.Context(), func(tx store.RoadTx) error {
		var n int
		if err := tx.QueryRow(pageCount).Scan(&n); err != nil {
			return err
		}
		return tx.QueryRow(store.RoadSQL(fmt.Sprintf(string(maxPages), n+spare))).Scan(&n)
	}))
}

// The size must be given before the file has its first page; the bounds of the
// WAL are reckoned with it.
func TestPageSize(t *testing.T) {
	s := testpeer.OpenStore(t, store.Config{Dir: t.TempDir()})
	for _, db := range []*store.DB{s.Road, s.Control, s.Trace} {
		var n int
		must(t, db.Road().QueryRow(t.Context(), pageSize).Scan(&n))
		if n != 4096 {
			t.Errorf("pages have %d bytes", n)
		}
	}
}

// On a full disk changes fail with kind later, each for itself, and what was
// there stays; deleting works, and then there is room again.
func TestDiskFull(t *testing.T) {
	s := testpeer.OpenStore(t, store.Config{Dir: t.TempDir()})
	kept := []store.BodyRef{mustKeep(t, s, "acme", 20000)}
	limitPages(t, s, 60)
	var mu sync.Mutex
	var wg sync.WaitGroup
	release := blockWriters(t, s)
	full := 0
	for range 40 {
		wg.Go(func() {
			ref, err := keep(t.Context(), s, "acme", 20000)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				kept = append(kept, ref)
			case fault.Is(err, fault.Later) && fault.HintOf(err) != "":
				full++
			default:
				t.Error(err)
			}
		})
	}
	release()
	wg.Wait()
	if full < 20 || len(kept) < 5 {
		t.Errorf("%d kept, %d refused", len(kept), full)
	}
	for _, ref := range kept {
		must(t, holds(t.Context(), s, ref))
		must(t, drop(t.Context(), s, ref))
	}
	mustKeep(t, s, "acme", 20000)
	if n := count(t, s); n != 1 {
		t.Error(n)
	}
}

// The WAL begins anew while there is traffic, and it is empty after Close.
func TestWALIsBounded(t *testing.T) {
	dir := t.TempDir()
	s, err := store.Open(t.Context(), store.Config{Dir: dir})
	must(t, err)
	wal := filepath.Join(dir, "db", "road.db-wal")
	var most int64
	for range 1500 {
		must(t, drop(t.Context(), s, mustKeep(t, s, "acme", 30000)))
		info, err := os.Stat(wal)
		must(t, err)
		most = max(most, info.Size())
	}
	if most > 24<<20 {
		t.Errorf("the WAL had %d bytes", most)
	}
	must(t, s.Close())
	if info, err := os.Stat(wal); err == nil && info.Size() > 0 {
		t.Errorf("a WAL of %d bytes stayed", info.Size())
	}
}

// A reader that stays keeps the WAL from beginning anew; it is cut off.
func TestLongReader(t *testing.T) {
	t.Parallel()
	s := testpeer.OpenStore(t, store.Config{Dir: t.TempDir()})
	for range 50 {
		mustKeep(t, s, "acme", 10)
	}
	rows, err := s.Road.Road().Query(t.Context(), `SELECT a.id FROM body a, body b, body c, body d, body e, body f`)
	must(t, err)
	defer rows.Close()
	for rows.Next() {
	}
	if err := store.Fault("test", rows.Err()); !fault.Is(err, fault.Later) {
		t.Error(err)
	}
}
