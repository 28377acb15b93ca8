package ledger

import (
	"context"
	"fmt"
	"testing"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/store"
)

// since are the indexes that Since calls with.
func (d *desk) since(from int64) (indexes []int64, err error) {
	err = d.l.Since(context.Background(), from, func(e Entry) error {
		indexes = append(indexes, e.Index)
		return nil
	})
	return indexes, err
}

func TestSince(t *testing.T) {
	each(t, func(d *desk) {
		for _, grow := range []int{0, 1, 255, 1, 300, 2500} { // about tiles and pages
			if grow > 0 {
				d.fill(grow)
			}
			size := d.l.Size()
			for _, from := range []int64{0, 1, 255, 256, 257, 512, size - 1, size} {
				got, err := d.since(from)
				if from < 0 || from > size {
					if !fault.Is(err, fault.Conflict) {
						t.Errorf("from %d of %d: %v", from, size, err)
					}
					continue
				}
				if err != nil || int64(len(got)) != size-from || len(got) > 0 && (got[0] != from || got[len(got)-1] != size-1) {
					t.Errorf("from %d of %d: %d entries, %v", from, size, len(got), err)
				}
			}
		}
	})
}

// What was edited is told, also where hashes were made to fit beside it.
func TestSinceTampered(t *testing.T) {
	for name, edit := range map[string]func(d *desk){
		"a text":              func(d *desk) { d.change(700, false) },
		"a text and its hash": func(d *desk) { d.change(700, true) },
		"one that is gone":    func(d *desk) { d.sql("DELETE FROM ledger_entry WHERE idx = 700") },
		"the first":           func(d *desk) { d.sql("DELETE FROM ledger_entry WHERE idx = 600") },
		"the last":            func(d *desk) { d.sql("DELETE FROM ledger_entry WHERE idx = 999") },
		"a hash": func(d *desk) {
			d.sql("UPDATE ledger_entry SET hash = (SELECT hash FROM ledger_entry WHERE idx = 3) WHERE idx = 700")
		},
		"a tile that it needs": func(d *desk) { d.sql("DELETE FROM ledger_tile WHERE level = 0 AND n = 1") },
	} {
		t.Run(name, func(t *testing.T) {
			d := newDesk(t, store.Config{Dir: t.TempDir()})
			d.fill(1000)
			edit(d)
			if got, err := d.since(600); !fault.Is(err, fault.Conflict) || fault.HintOf(err) == "" {
				t.Errorf("%d entries: %v", len(got), err)
			}
		})
	}
}

// An error of the caller's ends it.
func TestSinceEnds(t *testing.T) {
	each(t, func(d *desk) {
		d.fill(10)
		want := fmt.Errorf("enough")
		if err := d.l.Since(context.Background(), 0, func(Entry) error { return want }); err != want {
			t.Error(err)
		}
	})
}
