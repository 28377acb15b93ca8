package ledger

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/ledger/audit"
	"github.com/sallyport-mail/sallyport/internal/store"
	"github.com/sallyport-mail/sallyport/internal/testpeer"
)

func start() time.Time { return time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC) }

// desk is a ledger with its database and its key, that can be opened anew.
type desk struct {
	testing.TB
	c      store.Config
	db     *store.KeeperDB
	signer note.Signer
	key    string
	now    func() time.Time
	l      *Ledger
}

// each runs f on both databases.
func each(t *testing.T, f func(d *desk)) {
	t.Helper()
	testpeer.EachConfig(t, func(t *testing.T, c store.Config) { f(newDesk(t, c)) })
}

func newDesk(t testing.TB, c store.Config) *desk {
	t.Helper()
	d := &desk{TB: t, c: c, now: start}
	d.signer, d.key = makeKey(t, "sallyport.us.example.test")
	d.connect()
	t.Cleanup(func() {
		if err := d.db.Close(); err != nil {
			t.Error(err)
		}
	})
	d.open()
	return d
}

func makeKey(t testing.TB, name string) (note.Signer, string) {
	t.Helper()
	secret, key, err := note.GenerateKey(nil, name)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := note.NewSigner(secret)
	if err != nil {
		t.Fatal(err)
	}
	return signer, key
}

func (d *desk) connect() {
	d.Helper()
	var err error
	if d.db, err = store.OpenKeeper(d.Context(), d.c); err != nil {
		d.Fatal(err)
	}
}

func (d *desk) config() Config {
	return Config{DB: d.db, Region: "us", Signer: d.signer, Keys: []string{d.key}, Now: func() time.Time { return d.now() }}
}

// open opens the ledger, as a process that starts now.
func (d *desk) open(change ...func(*Config)) {
	d.Helper()
	l, err := d.tryOpen(change...)
	if err != nil {
		d.Fatal(err)
	}
	d.l = l
}

func (d *desk) tryOpen(change ...func(*Config)) (*Ledger, error) {
	c := d.config()
	for _, f := range change {
		f(&c)
	}
	return Open(d.Context(), c)
}

func entry(n int) Entry {
	return Entry{Source: Witnessed, Actor: "keeper", Act: "key.sign", Tenant: fmt.Sprintf("t%d", n%3), Connection: "mailbox",
		Subject: fmt.Sprint("subject ", n), Trace: fmt.Sprintf("trace%d", n%7), Outcome: "done"}
}

// fill appends n entries, many at once.
func (d *desk) fill(n int) {
	d.Helper()
	for n > 0 {
		some := make([]Entry, min(n, 1000))
		for i := range some {
			some[i] = entry(i)
		}
		d.append(some...)
		n -= len(some)
	}
}

func (d *desk) append(e ...Entry) int64 {
	d.Helper()
	first, err := d.l.Append(d.Context(), e...)
	if err != nil {
		d.Fatal(err)
	}
	return first
}

func (d *desk) sign() Checkpoint {
	d.Helper()
	c, err := d.l.Checkpoint(d.Context())
	if err != nil {
		d.Fatal(err)
	}
	return c
}

func (d *desk) export() []byte {
	d.Helper()
	var b bytes.Buffer
	if err := d.l.Export(d.Context(), &b); err != nil {
		d.Fatal(err)
	}
	return b.Bytes()
}

func (d *desk) salvage() []byte {
	d.Helper()
	var b bytes.Buffer
	if err := Salvage(d.Context(), d.db, start(), &b); err != nil {
		d.Fatal(err)
	}
	return b.Bytes()
}

func (d *desk) verify(export []byte, anchor ...byte) audit.Report {
	d.Helper()
	r, err := audit.Verify(bytes.NewReader(export), audit.Options{Keys: []string{d.key}, Anchor: anchor})
	if err != nil {
		d.Fatal(err)
	}
	return r
}

// sql runs statements on the database behind the ledger's back.
func (d *desk) sql(statements ...string) {
	d.Helper()
	err := d.db.Keeper().Change(d.Context(), func(tx store.KeeperTx) error {
		for _, s := range statements {
			if _, err := tx.Exec(store.KeeperSQL(s)); err != nil {
				return fmt.Errorf("%s: %w", s, err)
			}
		}
		return nil
	})
	if err != nil {
		d.Fatal(err)
	}
}

func TestLedger(t *testing.T) {
	each(t, func(d *desk) {
		first := d.append(Entry{Source: Asserted, Actor: "token:1", Act: "tenant.add", Tenant: "acme", Subject: "say \"é\"\x00\xff\n", Purpose: "p"})
		d.now = func() time.Time { return start().Add(time.Hour) }
		second := d.append(Entry{Source: Witnessed, Actor: "keeper", Act: "key.sign", Tenant: "acme", Trace: "T", Count: 3},
			Entry{Source: Witnessed, Actor: "keeper", Act: "key.sign", Tenant: "globex"})
		d.append(Entry{Source: Witnessed, Actor: "keeper", Act: "key.sign", Of: &second, Outcome: "done", Trace: "T"})
		if first != 0 || second != 1 || d.l.Size() != 4 {
			d.Error(first, second, d.l.Size())
		}
		e, err := d.l.Show(d.Context(), 0)
		if err != nil || e.Subject != "say \"é\"\x00\uFFFD\n" || e.Source != Asserted || !e.Time.Equal(start()) || len(e.Hash) != 64 {
			d.Errorf("%+v %v", e, err)
		}
		for _, c := range []struct {
			f    Filter
			want string
		}{
			{Filter{}, "0 1 2 3"}, {Filter{Tenant: "acme"}, "0 1"}, {Filter{Trace: "T"}, "1 3"}, {Filter{Tenant: "globex", Act: "key.sign"}, "2"},
			{Filter{Actor: "token:1"}, "0"}, {Filter{Act: "nothing"}, ""}, {Filter{From: 2}, "2 3"}, {Filter{Limit: 1, From: 1}, "1"},
			{Filter{Until: start().Add(time.Minute)}, "0"}, {Filter{Since: start().Add(time.Minute)}, "1 2 3"}, {Filter{Trace: "T", Tenant: "acme"}, "1"},
		} {
			found, err := d.l.Search(d.Context(), c.f)
			if err != nil {
				d.Fatal(err)
			}
			var got []string
			for _, e := range found {
				got = append(got, fmt.Sprint(e.Index))
			}
			if strings.Join(got, " ") != c.want {
				d.Errorf("%+v: %s", c.f, got)
			}
		}
		root := d.sign().Hash
		d.open()
		if d.l.Size() != 4 || d.sign().Hash != root {
			d.Error("another ledger was opened")
		}
		if r := d.verify(d.export()); !r.OK || r.Entries != 4 || r.Verdict != "consistent, not anchored" {
			d.Errorf("%+v", r)
		}
	})
}

// Fields by the contract, null when absent.
func TestEntryJSON(t *testing.T) {
	raw, err := json.Marshal(Entry{Index: 1, Act: "a", Hash: "00"})
	want := `{"index":1,"time":null,"source":null,"actor":null,"act":"a","tenant":null,"connection":null,"subject":null,"purpose":null,"trace":null,"outcome":null,"of":null,"count":null,"key":null,"hash":"00","removed":false}`
	if err != nil || string(raw) != want {
		t.Errorf("%s %v", raw, err)
	}
}

func TestRefusedEntries(t *testing.T) {
	d := newDesk(t, store.Config{Dir: t.TempDir()})
	for _, change := range []func(*Entry){
		func(e *Entry) { e.Source = "" },
		func(e *Entry) { e.Actor = "" },
		func(e *Entry) { e.Act = "" },
		func(e *Entry) { e.Tenant = "a\x00b" },
		func(e *Entry) { e.Key = "\xff" },
		func(e *Entry) { e.Subject = strings.Repeat("x", maxText+1) },
		func(e *Entry) { e.Count = -1 },
		func(e *Entry) { e.Of = new(int64(0)) },
		func(e *Entry) { e.Time = time.Date(20000, 1, 1, 0, 0, 0, 0, time.UTC) },
	} {
		e := entry(1)
		change(&e)
		if _, err := d.l.Append(t.Context(), e); !fault.Is(err, fault.Invalid) || fault.HintOf(err) == "" {
			t.Errorf("%+v: %v", e, err)
		}
	}
	if _, err := d.l.Append(t.Context()); !fault.Is(err, fault.Invalid) {
		t.Error(err)
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := d.l.Append(over, entry(1)); !fault.Is(err, fault.Later) {
		t.Error(err)
	}
	if d.l.Size() != 0 {
		t.Error(d.l.Size())
	}
	// The largest entry that is let in is read back.
	long := strings.Repeat("\x01", maxText)
	d.append(Entry{Source: Asserted, Actor: strings.Repeat("a", maxText), Act: strings.Repeat("\"", maxText), Subject: long, Purpose: long, Outcome: long})
	if e, err := d.l.Show(t.Context(), 0); err == nil && e.Subject != long {
		t.Error("another text came back")
	} else if err != nil {
		t.Error(err)
	}
}

// An entry with a key is appended once, however it is asked for.
func TestKeys(t *testing.T) {
	each(t, func(d *desk) {
		with := func(key string) Entry { e := entry(1); e.Key = key; return e }
		got, err := d.l.AppendEach(d.Context(), []Entry{with("a"), entry(2), with("b"), with("a")})
		if err != nil || fmt.Sprint(got) != "[0 1 2 0]" {
			d.Error(got, err)
		}
		d.open()
		got, err = d.l.AppendEach(d.Context(), []Entry{with("b"), with("c"), with("a")})
		if err != nil || fmt.Sprint(got) != "[2 3 0]" {
			d.Error(got, err)
		}
		if first := d.append(with("a")); first != 0 || d.l.Size() != 4 {
			d.Error(first, d.l.Size())
		}
	})
}

// Writers at once get indexes without a gap, each its own, and share commits.
func TestManyWriters(t *testing.T) {
	each(t, func(d *desk) {
		defer goleak.VerifyNone(d, goleak.IgnoreCurrent())
		const writers, turns = 20, 40
		var mu sync.Mutex
		seen := map[int64]string{}
		var wg sync.WaitGroup
		for w := range writers {
			wg.Go(func() {
				for i := range turns {
					e := entry(w)
					e.Subject = fmt.Sprint(w, "/", i)
					index, err := d.l.Append(d.Context(), e, e)
					if err != nil {
						d.Error(err)
						return
					}
					mu.Lock()
					seen[index], seen[index+1] = e.Subject, e.Subject
					mu.Unlock()
				}
			})
		}
		wg.Wait()
		if len(seen) != 2*writers*turns || d.l.Size() != int64(len(seen)) {
			d.Fatal(len(seen), d.l.Size())
		}
		all, err := d.l.Search(d.Context(), Filter{})
		if err != nil {
			d.Fatal(err)
		}
		for _, e := range all {
			if seen[e.Index] != e.Subject {
				d.Errorf("entry %d is %q, not %q", e.Index, e.Subject, seen[e.Index])
			}
		}
		if r := d.verify(d.export()); !r.OK {
			d.Errorf("%+v", r)
		}
	})
}

// One caller's fate is not another's: a context that ends takes only its own
// entry along.
func TestLeavingCaller(t *testing.T) {
	d := newDesk(t, store.Config{Dir: t.TempDir()})
	var wg sync.WaitGroup
	var done sync.Map
	for w := range 30 {
		wg.Go(func() {
			for i := range 30 {
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(w*i)*time.Microsecond)
				index, err := d.l.Append(ctx, entry(w))
				cancel()
				if err == nil {
					done.Store(index, true)
				} else if !errors.Is(err, context.DeadlineExceeded) {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	n := 0
	done.Range(func(any, any) bool { n++; return true })
	if int64(n) != d.l.Size() {
		t.Errorf("%d entries, %d were told of", d.l.Size(), n)
	}
}

// The log has its checkpoint at 1,000 entries without anybody waiting for the
// minute, and one at the end.
func TestRunSigns(t *testing.T) {
	each(t, func(d *desk) {
		ctx, cancel := context.WithCancel(d.Context())
		ended := make(chan error)
		go func() { ended <- d.l.Run(ctx) }()
		d.fill(1000)
		for d.l.Status().Checkpoint.Size < 1000 {
			time.Sleep(time.Millisecond)
		}
		d.fill(5)
		cancel()
		if err := <-ended; err != nil {
			d.Error(err)
		}
		s := d.l.Status()
		if s.Checkpoint.Size != 1005 || s.Size != 1005 || s.Error != "" {
			d.Errorf("%+v", s)
		}
		c, err := OpenCheckpoint(s.Checkpoint.Note, d.l.Origin(), d.l.keys)
		if err != nil || c.Size != 1005 || !c.Time.Equal(start()) || !strings.HasPrefix(string(c.Note), "sallyport.us.example.test\n1005\n") {
			d.Errorf("%+v %v", c, err)
		}
	})
}

// A key of one region opens no other's ledger, and a database holds one.
func TestRegions(t *testing.T) {
	d := newDesk(t, store.Config{Dir: t.TempDir()})
	if _, err := d.tryOpen(func(c *Config) { c.Region = "uk" }); !fault.Is(err, fault.Denied) {
		t.Error("another region:", err)
	}
	if _, err := d.tryOpen(func(c *Config) { c.Region = "u" }); !fault.Is(err, fault.Denied) {
		t.Error("a part of the region's name:", err)
	}
	other, key := makeKey(t, "sallyport.uk.example.test")
	_, err := d.tryOpen(func(c *Config) { c.Region, c.Signer, c.Keys = "uk", other, []string{key} })
	if !fault.Is(err, fault.Conflict) || fault.HintOf(err) == "" {
		t.Error("another region's database:", err)
	}
	stranger, _ := makeKey(t, d.signer.Name())
	if _, err := d.tryOpen(func(c *Config) { c.Signer = stranger }); !fault.Is(err, fault.Invalid) {
		t.Error("a signer whose key is not known:", err)
	}
	// After a change of keys the old signature still counts.
	d.fill(3)
	d.sign()
	fresh, freshKey := makeKey(t, d.signer.Name())
	d.open(func(c *Config) { c.Signer, c.Keys = fresh, []string{freshKey, d.key} })
	d.fill(3)
	d.sign()
	r, err := audit.Verify(bytes.NewReader(d.export()), audit.Options{Keys: []string{d.key, freshKey}})
	if err != nil || !r.OK || r.Entries != 6 {
		t.Errorf("%+v %v", r, err)
	}
	d.open(func(c *Config) { c.Signer, c.Keys = fresh, []string{freshKey, d.key} })
	if _, err := d.tryOpen(); !fault.Is(err, fault.Conflict) {
		t.Error("a checkpoint of a key that is not known:", err)
	}
}

// Two processes on one database: the second finds out, and stops.
func TestTwoWriters(t *testing.T) {
	each(t, func(d *desk) {
		d.fill(300)
		first := d.l
		d.open()
		d.fill(3)
		for range 2 {
			_, err := first.Append(d.Context(), entry(1))
			if err == nil {
				d.Fatal("two trees grow from one root")
			}
		}
		if _, err := first.Append(d.Context(), entry(1)); !fault.Is(err, fault.Conflict) || fault.HintOf(err) == "" {
			d.Error(err)
		}
		if s := first.Status(); s.Error == "" {
			d.Error("the status does not tell")
		}
		if r := d.verify(d.export()); !r.OK || r.Entries != 303 {
			d.Errorf("%+v", r)
		}
	})
}

// A commit that failed and took all the same is found before the next, and
// what is brought again is not written twice.
func TestUnknownCommit(t *testing.T) {
	each(t, func(d *desk) {
		d.fill(254)
		before := d.l.committed()
		d.fill(5)
		after := d.l.committed()
		var lines []line
		all, err := d.l.Search(d.Context(), Filter{From: 254})
		if err != nil {
			d.Fatal(err)
		}
		for i, e := range all {
			lines = append(lines, line{index: e.Index, tail: e.tail(), hash: tlog.RecordHash(leaf(e.Index, e.tail()))})
			if fmt.Sprintf("%x", lines[i].hash[:]) != e.Hash {
				d.Fatal("an entry that was read and written is another")
			}
		}
		d.l.publish(before)
		d.l.queue.doubt, d.l.queue.after = lines, after
		other := entry(1)
		other.Trace = "another"
		if first := d.append(other); first != 259 {
			d.Error(first)
		}
		if again, err := d.l.AppendEach(d.Context(), []Entry{all[3], other, all[1]}); err != nil || !slices.Equal(again, []int64{257, 260, 255}) {
			d.Errorf("%v %v", again, err)
		}
		if again, err := d.l.AppendEach(d.Context(), all[3:4]); err != nil || again[0] != 261 { // a second time is another
			d.Errorf("%v %v", again, err)
		}
		// And one that did not take is forgotten.
		d.l.queue.doubt, d.l.queue.after = lines, after
		if first := d.append(other); first != 262 {
			d.Error(first)
		}
		if r := d.verify(d.export()); !r.OK || r.Entries != 263 {
			d.Errorf("%+v", r)
		}
	})
}

// A search finds what lies in several blocks, and goes on where it was left.
func TestSearchAcrossBlocks(t *testing.T) {
	d := newDesk(t, store.Config{Dir: t.TempDir()})
	d.fill(block - 5)
	one := entry(1)
	one.Tenant, one.Trace = "rare", "R"
	d.append(one)
	d.fill(block)
	d.append(one)
	d.fill(20)
	for _, f := range []Filter{{Tenant: "rare"}, {Trace: "R"}, {Tenant: "rare", Trace: "R", Actor: "keeper"}} {
		found, err := d.l.Search(t.Context(), f)
		if err != nil || len(found) != 2 || found[0].Index != block-5 || found[1].Index != 2*block-4 {
			t.Errorf("%+v: %+v %v", f, found, err)
		}
	}
	n := 0
	for f := (Filter{Act: "key.sign", Limit: 999}); ; {
		found, err := d.l.Search(t.Context(), f)
		if err != nil {
			t.Fatal(err)
		}
		if n += len(found); len(found) == 0 {
			break
		}
		f.From = found[len(found)-1].Index + 1
	}
	if int64(n) != d.l.Size() {
		t.Error(n, d.l.Size())
	}
}
