package ledger

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/store"
)

// sabotage makes a statement fail until the returned function is called.
func (d *desk) sabotage(point string) (mend func()) {
	d.Helper()
	op, table, _ := strings.Cut(point, " ")
	name := "killed_" + strings.ToLower(op) + "_" + table
	if d.db.SkipLocked() == "" {
		d.sql("CREATE TRIGGER " + name + " BEFORE " + op + " ON " + table + " BEGIN SELECT RAISE(ABORT, 'killed'); END")
		return func() { d.sql("DROP TRIGGER " + name) }
	}
	d.sql("CREATE OR REPLACE FUNCTION killed() RETURNS trigger AS 'BEGIN RAISE EXCEPTION ''killed''; END' LANGUAGE plpgsql",
		"CREATE TRIGGER "+name+" BEFORE "+op+" ON "+table+" FOR EACH ROW EXECUTE FUNCTION killed()")
	return func() { d.sql("DROP TRIGGER " + name + " ON " + table) }
}

// TestKill stops each deed at each statement, starts anew, and finds all of it
// or nothing; then the deed is done and has its whole effect.
func TestKill(t *testing.T) {
	const year = 365 * 24 * time.Hour
	clock := start()
	deeds := []struct {
		name string
		do   func(d *desk) error
	}{
		{"append", func(d *desk) error {
			_, err := d.l.Append(d.Context(), keyed("one"), keyed("two"), entry(3), entry(4), entry(5), entry(6), entry(7), entry(8), keyed("three"))
			return err
		}},
		{"checkpoint", func(d *desk) error { _, err := d.l.Checkpoint(d.Context()); return err }},
		{"retire", func(d *desk) error {
			d.l.c.Retention = year
			clock = clock.Add(year + time.Hour)
			d.l.cut = pastCut{d.now(), true}
			_, err := d.l.Retire(d.Context())
			return err
		}},
	}
	points := []string{"INSERT ledger_entry", "INSERT ledger_tile", "INSERT ledger_checkpoint", "UPDATE ledger_entry", "UPDATE ledger_log"}
	each(t, func(d *desk) {
		d.now = func() time.Time { return clock }
		for _, deed := range deeds {
			for _, point := range points {
				d.fill(int((252-d.l.Size()%tileWidth+tileWidth)%tileWidth) + tileWidth)
				d.sign()
				d.fill(3) // the next entry completes a tile
				size := d.l.Size()
				mend := d.sabotage(point)
				err := deed.do(d)
				mend()
				d.open() // a process that starts now
				if err != nil && d.l.Size() != size && deed.name != "retire" {
					d.Errorf("%s at %s: %d of %d entries are there", deed.name, point, d.l.Size()-size, 9)
				}
				if r := d.verify(d.salvage()); !r.OK {
					d.Errorf("%s at %s: %+v", deed.name, point, r)
				}
				if err != nil {
					if err := deed.do(d); err != nil {
						d.Errorf("%s after %s: %v", deed.name, point, err)
					}
				}
				r := d.verify(d.export())
				if !r.OK || deed.name == "retire" && r.Removed < size {
					d.Errorf("%s done after %s: %+v", deed.name, point, r)
				}
				if deed.name == "append" {
					d.once("one", "two", "three")
				}
			}
		}
	})
}

// once holds that however often entries with keys were tried, each is there
// once.
func (d *desk) once(keys ...string) {
	d.Helper()
	for _, key := range keys {
		found, err := d.l.Search(d.Context(), Filter{Trace: "key " + key})
		if err != nil || len(found) != 1 {
			d.Errorf("%s is there %d times: %v", key, len(found), err)
		}
	}
}

func keyed(key string) Entry {
	e := entry(1)
	e.Key, e.Trace = key, "key "+key
	return e
}

// After a failed commit the same ledger goes on, without a gap.
func TestAppendAfterFailure(t *testing.T) {
	each(t, func(d *desk) {
		d.fill(100)
		mend := d.sabotage("INSERT ledger_entry")
		if _, err := d.l.Append(d.Context(), entry(1)); !fault.Is(err, fault.Later) {
			d.Error(err)
		}
		mend()
		if first := d.append(entry(1)); first != 100 {
			d.Error(first)
		}
		if r := d.verify(d.export()); !r.OK || r.Entries != 101 {
			d.Errorf("%+v", r)
		}
	})
}

// A copy of the files in the middle of work, which is what a kill -9 leaves,
// has every entry that was told of.
func TestPowerCut(t *testing.T) {
	dir := t.TempDir()
	d := newDesk(t, store.Config{Dir: dir})
	d.fill(700)
	c := d.sign()
	d.append(entry(1))
	copied := t.TempDir()
	if err := os.CopyFS(filepath.Join(copied, "db"), os.DirFS(filepath.Join(dir, "db"))); err != nil {
		t.Fatal(err)
	}
	e := &desk{TB: t, c: store.Config{Dir: copied}, signer: d.signer, key: d.key, now: start}
	e.connect()
	defer e.db.Close()
	e.open()
	if r := e.verify(e.export(), c.Note...); !r.OK || !r.Anchored || r.Entries != 701 {
		t.Errorf("%+v", r)
	}
}
