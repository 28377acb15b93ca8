package ledger

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/note"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/store"
)

// old puts a log into the state that it had before there were tails: its
// checkpoints say nothing of one.
func (d *desk) old() {
	d.Helper()
	c := d.sign()
	c.Tailed = false
	raw, err := note.Sign(&note.Note{Text: c.text()}, d.signer)
	if err != nil {
		d.Fatal(err)
	}
	d.sql("DELETE FROM ledger_tail", fmt.Sprintf("DELETE FROM ledger_checkpoint WHERE size < %d", c.Size))
	d.run("UPDATE ledger_checkpoint SET note = $1", string(raw))
}

// run runs one statement with a text.
func (d *desk) run(q store.KeeperSQL, text string) {
	d.Helper()
	err := d.db.Keeper().Change(d.Context(), func(tx store.KeeperTx) error {
		_, err := tx.Exec(q, text)
		return err
	})
	if err != nil {
		d.Fatal(err)
	}
}

func (d *desk) storedTail() string {
	d.Helper()
	var text string
	if err := d.db.Keeper().QueryRow(d.Context(), selectTail).Scan(&text); err != nil {
		d.Fatal(err)
	}
	return text
}

func lastLines(export []byte, n int) []string {
	lines := strings.Split(strings.TrimSuffix(string(export), "\n"), "\n")
	return lines[len(lines)-n:]
}

// The tail of an export is the one in the database, to the byte, and of an
// empty log there is one too.
func TestExportedTail(t *testing.T) {
	each(t, func(d *desk) {
		if r := d.verify(d.export()); !r.OK || r.Tail == nil || r.Tail.Size != 0 {
			d.Errorf("%+v", r)
		}
		d.fill(700)
		for range 2 {
			export := d.export()
			if r := d.verify(export); !r.OK || r.Tail == nil || r.Tail.Size != 700 || strings.Contains(r.Verdict, "no tail") {
				d.Errorf("%+v", r)
			}
			if got, want := lastLines(export, 2)[0], string(marshal(d, tailLine{d.storedTail()})); got != want {
				d.Errorf("%s, want %s", got, want)
			}
			if !bytes.Equal(export, d.salvage()) {
				d.Error("what is salvaged of a sound ledger is another export")
			}
			d.open()
		}
	})
}

// While entries are appended an export has the tail of what is in it.
func TestExportWhileAppending(t *testing.T) {
	each(t, func(d *desk) {
		d.fill(250) // the tile ends while it is exported
		ctx, stop := context.WithCancel(d.Context())
		done := make(chan error, 1)
		go func() {
			for n := 0; ; n++ {
				if _, err := d.l.Append(ctx, entry(n)); err != nil {
					done <- ctx.Err()
					return
				}
			}
		}()
		var last int64
		for n := 0; n < 15 || last < 600 && n < 10_000; n++ {
			r := d.verify(d.export())
			if !r.OK || r.Tail == nil || r.Tail.Size != r.Entries || r.Unsigned != 0 || r.Entries < last {
				d.Fatalf("after %d: %+v", last, r)
			}
			last = r.Entries
		}
		stop()
		if err := <-done; err == nil {
			d.Error("the appending ended by itself")
		}
		// One is appended between what is read of the log and what is stored.
		c := d.sign()
		d.fill(3)
		tail, err := d.l.tailOf(d.Context(), c)
		n, err2 := note.Open([]byte(tail), d.l.keys)
		if err != nil || err2 != nil || n.Text != d.l.tailText(c.Size, c.Hash) {
			d.Error(tail, err, err2)
		}
	})
}

// The end of a ledger that is tampered with while it runs shows in its exports,
// until the next commit writes it anew.
func TestTamperedTail(t *testing.T) {
	other, _ := makeKey(t, "sallyport.uk.example.test")
	for name, c := range map[string]struct {
		edit func(d *desk, early string)
		what string
	}{
		"gone":    {func(d *desk, _ string) { d.sql("DELETE FROM ledger_tail") }, "the tail is missing"},
		"edited":  {func(d *desk, _ string) { d.sql("UPDATE ledger_tail SET note = REPLACE(note, '300', '299')") }, "the tail does not count"},
		"older":   {func(d *desk, early string) { d.run("UPDATE ledger_tail SET note = $1", early) }, "from 260 to 299 were put behind it"},
		"another": {func(d *desk, _ string) { d.run("UPDATE ledger_tail SET note = $1", tailBy(d, other)) }, "another log"},
		"none": {func(d *desk, _ string) {
			d.sql("UPDATE ledger_tail SET note = (SELECT note FROM ledger_checkpoint LIMIT 1)")
		}, "four lines"},
	} {
		t.Run(name, func(t *testing.T) {
			each(t, func(d *desk) {
				d.fill(260)
				early := d.storedTail()
				d.fill(40)
				d.sign()
				c.edit(d, early)
				for name, export := range map[string][]byte{"live": d.export(), "salvaged": d.salvage()} {
					r := d.verify(export)
					if r.OK || len(r.Problems) != 1 || !strings.Contains(r.Problems[0].What, c.what) {
						d.Errorf("%s: %+v", name, r)
					}
				}
				d.fill(1)
				if r := d.verify(d.export()); !r.OK || r.Tail == nil {
					d.Errorf("%+v", r)
				}
			})
		})
	}
}

func tailBy(d *desk, by note.Signer) string {
	d.Helper()
	l := Ledger{origin: by.Name(), c: Config{Signer: by}}
	text, err := l.signedTail(300, d.sign().Hash)
	if err != nil {
		d.Fatal(err)
	}
	return text
}

// A ledger from before there were tails opens, is exported with one, and has one
// from its next commit on; what does not open is exported in the old format.
func TestExportOfAnOldLedger(t *testing.T) {
	each(t, func(d *desk) {
		d.fill(300)
		d.old()
		if r := d.verify(d.salvage()); !r.OK || r.Tail != nil || !strings.Contains(r.Verdict, "no tail says that these are all") {
			d.Errorf("%+v", r)
		}
		d.open()
		if r := d.verify(d.export()); !r.OK || r.Tail == nil || r.Tail.Size != 300 {
			d.Errorf("%+v", r)
		}
		d.fill(1)
		d.sign()
		d.open()
		if r := d.verify(d.export()); !r.OK || r.Tail == nil || r.Tail.Size != 301 {
			d.Errorf("%+v", r)
		}
	})
}

// What is kept beside the database shows that the database is an old copy, or
// another log; what the database has is not written twice.
func TestExportOfWhatIsKept(t *testing.T) {
	each(t, func(d *desk) {
		d.fill(260)
		d.sign()
		d.fill(10)
		c := d.sign()
		root := c.Hash
		export := func(known ...[]byte) []byte {
			var b, salvaged bytes.Buffer
			if err := d.l.Export(d.Context(), &b, known...); err != nil {
				d.Fatal(err)
			}
			if err := Salvage(d.Context(), d.db, start(), &salvaged, known...); err != nil || !bytes.Equal(b.Bytes(), salvaged.Bytes()) {
				d.Error("what is salvaged is another export", err)
			}
			return b.Bytes()
		}
		if !bytes.Equal(export(), export(c.Note)) {
			d.Error("a checkpoint is written twice")
		}
		root[0] ^= 1
		for _, k := range []struct {
			known []byte
			index int64
			what  string
		}{
			{d.signed(d.signer, d.signer.Name(), 900, root), 270, "900 entries were signed"},
			{d.signed(d.signer, d.signer.Name(), 270, root), 260, "do not lead to what was signed"},
			{d.signed(d.signer, d.signer.Name(), 100, root), 0, "do not lead to what was signed"},
			{[]byte("junk"), 269, "a checkpoint does not count"},
			{nil, 269, "a checkpoint does not count"},
		} {
			r := d.verify(export(c.Note, k.known))
			if r.OK || len(r.Problems) != 1 || r.Problems[0].Index != k.index || !strings.Contains(r.Problems[0].What, k.what) {
				d.Errorf("%s: %+v", k.known, r.Problems)
			}
		}
		// One that the database has lost is written, and agrees.
		d.sql("DELETE FROM ledger_checkpoint WHERE size = 270")
		if r := d.verify(export(c.Note)); !r.OK || r.Checkpoint.Size != 270 {
			d.Errorf("%+v", r)
		}
	})
}

// A database that is edited while its ledger runs: the export of the ledger in
// use names what was done, as that of one that does not open does.
func TestTamperedLive(t *testing.T) {
	for _, c := range []struct {
		name  string
		edit  func(d *desk)
		index int64
		what  string
		count int
	}{
		{"one byte", func(d *desk) { d.change(300, false) }, 300, "the entry was changed", 1},
		{"one byte and its hash", func(d *desk) { d.change(300, true) }, 300, "the entry was changed", 1},
		{"one row deleted", func(d *desk) { d.sql(deleteRow(300)) }, 300, "its row was deleted", 1},
		{"end cut off", func(d *desk) {
			d.sql("DELETE FROM ledger_entry WHERE idx >= 560", "DELETE FROM ledger_checkpoint WHERE size > 500")
		}, 560, "its row was deleted", 40},
		{"two rows swapped", func(d *desk) { d.sql(swap(40, 400)...) }, 40, "the entry 400 stands here: rows were swapped", 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			each(t, func(d *desk) {
				d.fill(500)
				d.sign()
				d.fill(100)
				kept := d.sign()
				c.edit(d)
				var b bytes.Buffer
				if err := d.l.Export(d.Context(), &b, kept.Note); err != nil {
					d.Fatal(err)
				}
				r := d.verify(b.Bytes())
				if r.OK || len(r.Problems) != c.count || r.Problems[0].Index != c.index || !strings.Contains(r.Problems[0].What, c.what) {
					d.Errorf("%+v", r.Problems)
				}
			})
		})
	}
}

// Rows cut off at the end with their checkpoint, and the tail with them or not:
// what does not open any more says so in what is salvaged.
func TestCutDatabase(t *testing.T) {
	for name, c := range map[string]struct {
		also string
		what string
	}{
		"the tail stays":    {"UPDATE ledger_log SET removed = removed", "had 600 entries by its tail"},
		"the tail goes too": {"DELETE FROM ledger_tail", "the tail is missing, and a checkpoint says that"},
	} {
		t.Run(name, func(t *testing.T) {
			each(t, func(d *desk) {
				d.fill(500)
				d.sign()
				d.fill(100)
				kept := d.sign()
				d.sql("DELETE FROM ledger_entry WHERE idx >= 500", "DELETE FROM ledger_checkpoint WHERE size > 500", c.also)
				if _, err := d.tryOpen(); !fault.Is(err, fault.Conflict) {
					d.Error(err)
				}
				r := d.verify(d.salvage())
				if r.OK || len(r.Problems) != 1 || r.Problems[0].Index != 500 || !strings.Contains(r.Problems[0].What, c.what) {
					d.Errorf("%+v", r.Problems)
				}
				var b bytes.Buffer
				if err := Salvage(d.Context(), d.db, start(), &b, kept.Note); err != nil {
					d.Fatal(err)
				}
				if r := d.verify(b.Bytes()); r.OK || !strings.Contains(r.Problems[0].What, "600 entries were signed") {
					d.Errorf("%+v", r.Problems)
				}
			})
		})
	}
}
