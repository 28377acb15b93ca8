package ledger

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/ledger/audit"
	"github.com/sallyport-mail/sallyport/internal/store"
)

// change alters one byte of an entry's text, and perhaps its hash with it.
func (d *desk) change(index int64, rehash bool) {
	d.Helper()
	var r row
	if err := eachEntry(d.Context(), d.db.Keeper(), index, index+1, func(one row) error { r = one; return nil }); err != nil {
		d.Fatal(err)
	}
	r.payload = bytes.Replace(r.payload, []byte("done"), []byte("gone"), 1)
	if rehash {
		r.hash = hashOf(r.payload)
	}
	err := d.db.Keeper().Change(d.Context(), func(tx store.KeeperTx) error {
		_, err := tx.Exec(`UPDATE ledger_entry SET payload = $1, hash = $2 WHERE idx = $3`, r.payload, r.hash, index)
		return err
	})
	if err != nil {
		d.Fatal(err)
	}
}

func deleteRow(index int) string {
	return fmt.Sprintf("DELETE FROM ledger_entry WHERE idx = %d", index)
}

// swap exchanges two rows' places.
func swap(a, b int) []string {
	move := func(from, to int) string {
		return fmt.Sprintf("UPDATE ledger_entry SET idx = %d WHERE idx = %d", to, from)
	}
	return []string{move(a, 1_000_000), move(b, a), move(1_000_000, b)}
}

// A database edited by hand, in each way that somebody would try: verify names
// what was done and where.
func TestTampering(t *testing.T) {
	const size = 1500
	for _, c := range []struct {
		name  string
		edit  func(d *desk)
		index int64  // of the first problem
		what  string // in it
		count int    // problems
	}{
		{"nothing", func(*desk) {}, 0, "", 0},
		{"one byte", func(d *desk) { d.change(300, false) }, 300, "the entry was changed", 1},
		{"one byte and its hash", func(d *desk) { d.change(300, true) }, 300, "the entry was changed", 1},
		{"one byte in the newest tile", func(d *desk) { d.change(1499, false) }, 1499, "the entry was changed", 1},
		{"one byte, its hash, in the newest tile", func(d *desk) { d.change(1499, true) }, 1000, "do not lead to what was signed", 1},
		{"one row deleted", func(d *desk) { d.sql(deleteRow(700)) }, 700, "its row was deleted", 1},
		{"two rows deleted", func(d *desk) { d.sql(deleteRow(700), deleteRow(256)) }, 256, "its row was deleted", 2},
		{"two rows swapped", func(d *desk) { d.sql(swap(40, 41)...) }, 40, "the entry 41 stands here: rows were swapped", 2},
		{"two rows swapped far apart", func(d *desk) { d.sql(swap(40, 1200)...) }, 40, "the entry 1200 stands here", 2},
		{"tail cut", func(d *desk) { d.sql("DELETE FROM ledger_entry WHERE idx >= 1200") }, 1200, "its end was cut off", 1},
		{"tile rewritten", func(d *desk) {
			d.change(300, true)
			d.sql("UPDATE ledger_tile SET hashes = (SELECT hashes FROM ledger_tile WHERE n = 0 AND level = 0) WHERE level = 0 AND n = 1")
		}, 256, "the entry was changed", 256 + 2},
		{"tile deleted", func(d *desk) { d.change(300, true); d.sql("DELETE FROM ledger_tile WHERE level = 0") }, 0, "do not lead to what was signed", 2},
		{"text removed", func(d *desk) { d.sql("UPDATE ledger_entry SET payload = NULL WHERE idx = 33") }, 33, "the log says so only below 0", 1},
		{"another hand's checkpoint", func(d *desk) {
			d.sql("UPDATE ledger_checkpoint SET note = REPLACE(note, 'T12:00:00Z', 'T11:00:00Z') WHERE size = 1500")
		}, 1499, "a checkpoint does not count", 1},
		{"checkpoints deleted", func(d *desk) { d.sql("DELETE FROM ledger_checkpoint") }, 0, "no checkpoint was signed", 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			each(t, func(d *desk) {
				d.fill(1000)
				d.sign()
				d.fill(size - 1000)
				d.sign()
				c.edit(d)
				r := d.verify(d.salvage())
				if r.OK != (c.count == 0) || len(r.Problems) != c.count {
					d.Fatalf("%d problems: %.2000v", len(r.Problems), r)
				}
				if c.count > 0 && (r.Problems[0].Index != c.index || !strings.Contains(r.Problems[0].What, c.what)) {
					d.Errorf("%+v", r.Problems[0])
				}
			})
		})
	}
}

// A ledger that does not agree with its checkpoint is not opened.
func TestOpenRefuses(t *testing.T) {
	for name, edit := range map[string]func(d *desk){
		"tail cut":        func(d *desk) { d.sql("DELETE FROM ledger_entry WHERE idx >= 1200") },
		"newest deleted":  func(d *desk) { d.sql(deleteRow(1499)) },
		"one of the edge": func(d *desk) { d.sql(deleteRow(1490)) },
		"changed":         func(d *desk) { d.change(1490, false) },
		"changed, hash":   func(d *desk) { d.change(1490, true) },
		"tile deleted":    func(d *desk) { d.sql("DELETE FROM ledger_tile WHERE level = 0 AND n = 2") },
		"tile changed": func(d *desk) {
			d.sql("UPDATE ledger_tile SET hashes = (SELECT hashes FROM ledger_tile WHERE n = 0) WHERE n = 1")
		},
		"swapped":          func(d *desk) { d.sql(swap(1480, 1481)...) },
		"checkpoint's own": func(d *desk) { d.sql("UPDATE ledger_checkpoint SET note = REPLACE(note, '12:00', '11:00')") },
	} {
		t.Run(name, func(t *testing.T) {
			each(t, func(d *desk) {
				d.fill(1500)
				d.sign()
				edit(d)
				_, err := d.tryOpen()
				if !fault.Is(err, fault.Conflict) || !strings.Contains(fault.HintOf(err), "ledger verify") {
					d.Error(err)
				}
			})
		})
	}
}

// What was changed while the ledger runs is neither shown nor proved.
func TestTamperedReads(t *testing.T) {
	each(t, func(d *desk) {
		d.fill(1500)
		d.sign()
		d.change(300, false)
		d.change(400, true)
		d.sql(deleteRow(500), "UPDATE ledger_entry SET payload = NULL WHERE idx = 600")
		for _, index := range []int64{300, 400, 500} {
			if _, err := d.l.Prove(d.Context(), index); !fault.Is(err, fault.Conflict) {
				d.Error(index, err)
			}
		}
		if _, err := d.l.Prove(d.Context(), 600); !fault.Is(err, fault.Missing) {
			d.Error(err)
		}
		if _, err := d.l.Show(d.Context(), 300); !fault.Is(err, fault.Conflict) {
			d.Error(err)
		}
		if _, err := d.l.Search(d.Context(), Filter{From: 290, Limit: 20}); !fault.Is(err, fault.Conflict) {
			d.Error(err)
		}
		if _, err := d.l.Prove(d.Context(), 301); err != nil {
			d.Error("a neighbour is not proved:", err)
		}
		d.sql("UPDATE ledger_tile SET hashes = (SELECT hashes FROM ledger_tile WHERE n = 0 AND level = 0) WHERE n = 1 AND level = 0")
		if _, err := d.l.Prove(d.Context(), 301); !fault.Is(err, fault.Conflict) {
			d.Error(err)
		}
		for _, index := range []int64{-1, 1500} {
			if _, err := d.l.Prove(d.Context(), index); !fault.Is(err, fault.Missing) {
				d.Error(err)
			}
		}
	})
}

// An old copy is consistent with itself: an anchor tells.
func TestOldCopy(t *testing.T) {
	dir := t.TempDir()
	d := newDesk(t, store.Config{Dir: dir})
	d.fill(500)
	early := d.sign()
	copied := t.TempDir()
	if err := os.CopyFS(filepath.Join(copied, "db"), os.DirFS(filepath.Join(dir, "db"))); err != nil {
		t.Fatal(err)
	}
	d.fill(500)
	anchor := d.sign()
	old := &desk{TB: t, c: store.Config{Dir: copied}, signer: d.signer, key: d.key, now: start}
	old.connect()
	defer old.db.Close()
	old.open()
	if r := old.verify(old.export()); !r.OK || r.Anchored || r.Verdict != "consistent, not anchored" {
		t.Errorf("%+v", r)
	}
	if r := old.verify(old.export(), early.Note...); !r.OK || !r.Anchored {
		t.Errorf("%+v", r)
	}
	r := old.verify(old.export(), anchor.Note...)
	if r.OK || r.Anchored || len(r.Problems) != 1 || !strings.Contains(r.Problems[0].What, "old copy") || r.Problems[0].Index != 500 {
		t.Errorf("%+v", r)
	}
	// It has grown past the anchor, another way.
	old.now = func() time.Time { return start().Add(time.Minute) }
	old.fill(600)
	r = old.verify(old.export(), anchor.Note...)
	if r.OK || r.Anchored || len(r.Problems) != 1 || !strings.Contains(r.Problems[0].What, "not the one that the anchor") {
		t.Errorf("%+v", r)
	}
}

// A proof convinces, and none that was altered does.
func TestProof(t *testing.T) {
	each(t, func(d *desk) {
		d.fill(777)
		p, err := d.l.Prove(d.Context(), 300)
		if err != nil {
			d.Fatal(err)
		}
		check := func(p Proof) audit.ProofReport {
			r, err := audit.VerifyProof(marshal(d, p), audit.Options{Keys: []string{d.key}})
			if err != nil {
				d.Fatal(err)
			}
			return r
		}
		if r := check(p); !r.OK || r.Index != 300 || r.Checkpoint.Size != 777 {
			d.Errorf("%+v", r)
		}
		for name, change := range map[string]func(*Proof){
			"index":      func(p *Proof) { p.Index++ },
			"entry":      func(p *Proof) { p.Entry = strings.Replace(p.Entry, "done", "gone", 1) },
			"hash":       func(p *Proof) { p.Hashes[3] = hashOf(nil) },
			"short":      func(p *Proof) { p.Hashes = p.Hashes[:len(p.Hashes)-1] },
			"long":       func(p *Proof) { p.Hashes = append(p.Hashes, hashOf(nil)) },
			"half":       func(p *Proof) { p.Hashes[0] = p.Hashes[0][:16] },
			"checkpoint": func(p *Proof) { p.Checkpoint = strings.Replace(p.Checkpoint, "777", "778", 1) },
		} {
			q := p
			q.Hashes = append([][]byte(nil), p.Hashes...)
			change(&q)
			if r := check(q); r.OK || len(r.Problems) == 0 {
				d.Errorf("%s: %+v", name, r)
			}
		}
		// Another's key does not vouch for it.
		_, other := makeKey(d, "sallyport.us.example.test")
		r, err := audit.VerifyProof(marshal(d, p), audit.Options{Keys: []string{other}})
		if err != nil || r.OK {
			d.Errorf("%+v %v", r, err)
		}
	})
}

// An entry that was hidden from searches is found out: each of the columns that
// it is searched by.
func TestHidden(t *testing.T) {
	each(t, func(d *desk) {
		d.fill(600)
		if r := d.verify(d.export()); !r.OK || len(r.Problems) != 0 {
			d.Errorf("%+v", r)
		}
		want := map[int64]bool{}
		for n, column := range []string{"actor", "act", "tenant", "connection", "trace", "key"} {
			index := int64(7 + 97*n)
			d.sql(fmt.Sprintf("UPDATE ledger_entry SET %s = 'x' WHERE idx = %d", column, index))
			want[index] = true
		}
		d.sql("UPDATE ledger_entry SET time = time - 1 WHERE idx = 599")
		want[599] = true
		r := d.verify(d.export())
		for _, p := range r.Problems {
			if !want[p.Index] || !strings.Contains(p.What, "searches") {
				d.Errorf("%+v", p)
			}
			delete(want, p.Index)
		}
		if r.OK || len(want) > 0 {
			d.Errorf("not named: %v", want)
		}
	})
}

// Who has the database and no key can put no entry behind the last checkpoint,
// and take none from there, while the keeper is away.
func TestForgedEnd(t *testing.T) {
	forge := func(d *desk, n int64, e Entry) {
		e.Time = start()
		raw := leaf(n, e.tail())
		err := d.db.Keeper().Change(d.Context(), func(tx store.KeeperTx) error {
			return write(tx, []line{{index: n, e: &e, hash: tlog.RecordHash(raw), leaf: raw}}, nil)
		})
		if err != nil {
			d.Fatal(err)
		}
	}
	for name, c := range map[string]struct {
		do   func(d *desk, end int64)
		want string
	}{
		"an entry put behind the end": {func(d *desk, end int64) { forge(d, end, entry(77)) }, "from 262 to 262 were put behind"},
		"the last replaced": {func(d *desk, end int64) {
			d.sql(deleteRow(int(end - 1)))
			forge(d, end-1, entry(77))
		}, "not what it was"},
		"the last gone":   {func(d *desk, end int64) { d.sql(deleteRow(int(end - 1))) }, "ends after 261 entries, and had 262"},
		"the tail gone":   {func(d *desk, end int64) { d.sql("DELETE FROM ledger_tail") }, "from 260 to 261"},
		"the tail edited": {func(d *desk, end int64) { d.sql("UPDATE ledger_tail SET note = note || 'x'") }, "not one that its key has signed"},
		"a checkpoint as the tail": {func(d *desk, end int64) {
			d.sql("UPDATE ledger_tail SET note = (SELECT note FROM ledger_checkpoint LIMIT 1)")
		}, "not what it was"},
	} {
		t.Run(name, func(t *testing.T) {
			each(t, func(d *desk) {
				d.fill(260)
				d.sign()
				d.fill(2)
				if _, err := d.tryOpen(); err != nil {
					d.Fatal(err)
				}
				c.do(d, 262)
				if _, err := d.tryOpen(); !fault.Is(err, fault.Conflict) || !strings.Contains(err.Error(), c.want) {
					d.Errorf("%v", err)
				}
			})
		})
	}
	// All of it signed: the checkpoint says that there was a tail, so the entries
	// behind it were not there alone.
	each(t, func(d *desk) {
		d.fill(260)
		d.sign()
		d.fill(2)
		d.sql("DELETE FROM ledger_tail", "DELETE FROM ledger_entry WHERE idx >= 260")
		if _, err := d.tryOpen(); !fault.Is(err, fault.Conflict) || !strings.Contains(err.Error(), "perhaps with entries behind the 260") {
			d.Errorf("%v", err)
		}
	})
	// A log from before there were tails.
	each(t, func(d *desk) {
		d.fill(260)
		d.old()
		d.open()
		d.fill(1)
		d.open()
	})
}

// Whatever was done to an entry, or to the log's end, is said once.
func TestSaidOnce(t *testing.T) {
	swapped := `UPDATE ledger_entry SET payload = (SELECT payload FROM ledger_entry o WHERE o.idx = %d), hash = (SELECT hash FROM ledger_entry o WHERE o.idx = %d) WHERE idx = %d`
	for name, c := range map[string]struct {
		edit func(d *desk)
		want map[int64]string
	}{
		"what it is found by, in the entry itself": {func(d *desk) { d.retenant(101) }, map[int64]string{101: "the entry was changed"}},
		"the same in the newest tile":              {func(d *desk) { d.retenant(599) }, map[int64]string{599: "the entry was changed"}},
		"texts and hashes swapped": {func(d *desk) {
			d.sql("CREATE TABLE kept AS SELECT * FROM ledger_entry WHERE idx = 40", fmt.Sprintf(swapped, 41, 41, 40),
				"UPDATE ledger_entry SET payload = (SELECT payload FROM kept), hash = (SELECT hash FROM kept) WHERE idx = 41", "DROP TABLE kept")
		}, map[int64]string{40: "the entry 41 stands here", 41: "the entry 40 stands here"}},
		"its end cut behind the first of four checkpoints": {func(d *desk) { d.sql("DELETE FROM ledger_entry WHERE idx >= 310") }, map[int64]string{310: "but 600 entries were signed"}},
		"its end and the last checkpoint": {func(d *desk) {
			d.sql("DELETE FROM ledger_entry WHERE idx >= 310", "DELETE FROM ledger_checkpoint WHERE size = 600")
		}, map[int64]string{310: "but 500 entries were signed at 2026-03-01T12:00:00Z, and it had 600 entries by its tail"}},
	} {
		t.Run(name, func(t *testing.T) {
			each(t, func(d *desk) {
				for _, n := range []int{300, 100, 100, 100} {
					d.fill(n)
					d.sign()
				}
				c.edit(d)
				r := d.verify(d.salvage())
				if r.OK || len(r.Problems) != len(c.want) {
					d.Errorf("%+v", r.Problems)
				}
				for _, p := range r.Problems {
					if what := c.want[p.Index]; what == "" || !strings.Contains(p.What, what) {
						d.Errorf("%+v", p)
					}
				}
			})
		})
	}
}

// retenant changes the tenant in an entry's text, which searches then know by
// another.
func (d *desk) retenant(index int64) {
	d.Helper()
	var payload []byte
	if err := d.db.Keeper().QueryRow(d.Context(), `SELECT payload FROM ledger_entry WHERE idx = $1`, index).Scan(&payload); err != nil {
		d.Fatal(err)
	}
	changed := bytes.Replace(payload, []byte(`"tenant":"`), []byte(`"tenant":"x`), 1)
	err := d.db.Keeper().Change(d.Context(), func(tx store.KeeperTx) error {
		_, err := tx.Exec(`UPDATE ledger_entry SET payload = $1 WHERE idx = $2`, changed, index)
		return err
	})
	if err != nil || bytes.Equal(changed, payload) {
		d.Fatalf("%s: %v", payload, err)
	}
}
