package queue

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/mail"
	"github.com/sallyport-mail/sallyport/internal/store"
	"github.com/sallyport-mail/sallyport/internal/testpeer"
	"github.com/sallyport-mail/sallyport/internal/trace"
)

// The steps that a commit of the queue can be stopped at: each statement on
// each table, in both files.
func killPoints() []string {
	var list []string
	for _, table := range []string{"item", "item_share", "body", "trace_event", "destination"} {
		list = append(list, "INSERT "+table, "DELETE "+table)
	}
	return append(list, "UPDATE item", "INSERT trace_message", "UPDATE trace_message", "INSERT trace_moved", "DELETE trace_moved")
}

// sabotage makes a statement fail until the returned function is called.
func sabotage(t *testing.T, b *bench, point string) (mend func()) {
	t.Helper()
	op, table, _ := strings.Cut(point, " ")
	db := b.store.Road
	if strings.HasPrefix(table, "trace_m") {
		db = b.store.Trace
	}
	name := "killed_" + strings.ToLower(op) + "_" + table
	do := func(statements ...string) {
		t.Helper()
		err := db.Operator("test").Change(t.Context(), func(tx store.OperatorTx) error {
			for _, s := range statements {
				if _, err := tx.Exec(store.OperatorSQL(s)); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if db.SkipLocked() == "" {
		do("CREATE TRIGGER " + name + " BEFORE " + op + " ON " + table + " BEGIN SELECT RAISE(ABORT, 'killed'); END")
		return func() { do("DROP TRIGGER " + name) }
	}
	do("CREATE OR REPLACE FUNCTION killed() RETURNS trigger AS 'BEGIN RAISE EXCEPTION ''killed''; END' LANGUAGE plpgsql",
		"CREATE TRIGGER "+name+" BEFORE "+op+" ON "+table+" FOR EACH ROW EXECUTE FUNCTION killed()")
	return func() { do("DROP TRIGGER " + name + " ON " + table) }
}

// deed is something that the queue does in one commit, with how the message
// stands before and after it, as people see it.
type deed struct {
	name          string
	before, after string // item state / message state
	prepare       func(b *bench) Message
	do            func(b *bench, m Message) error
}

func deeds() []deed {
	plain := func(b *bench) Message { return b.put(b.message("acme", "acme/mailbox", "a@x.test", "b@acme.test")) }
	attempt := func(b *bench, r mail.Reply, stage string) error {
		slot, it := b.next()
		defer slot.Release()
		return b.q.Report(b.Context(), it, Attempt{Stage: stage, Whole: &r})
	}
	bulk := func(f func(b *bench) (int, error)) func(*bench, Message) error {
		return func(b *bench, _ Message) error { _, err := f(b); return err }
	}
	return []deed{
		{"put", "none/none", "ready/queued",
			func(b *bench) Message {
				m := b.message("acme", "acme/mailbox", "a@x.test", "b@acme.test")
				m.Summary.ID = b.q.ids.next(b.clock.now())
				m.Items = append(m.Items, Item{Destination: "acme/second", Recipients: []Recipient{{Recipient: mail.Recipient{Address: address("z@acme.test")}}}})
				return m
			},
			func(b *bench, m Message) error { return b.q.Put(b.Context(), []Message{m}) }},
		{"deliver", "ready/queued", "none/delivered", plain,
			func(b *bench, _ Message) error { return attempt(b, ok250, "sent") }},
		{"defer", "ready/queued", "deferred/queued", plain,
			func(b *bench, _ Message) error { return attempt(b, mail.Reply{Code: 451, Text: "later"}, "data") }},
		{"fail", "ready/queued", "failed/failed", plain,
			func(b *bench, _ Message) error { return attempt(b, mail.Reply{Code: 554, Text: "no"}, "data") }},
		{"host away", "ready/queued", "ready/queued", plain,
			func(b *bench, _ Message) error { return attempt(b, mail.Reply{Text: "refused"}, "connect") }},
		{"bounce", "ready/queued", "none/failed",
			func(b *bench) Message {
				m := b.message("acme", "mx:x.test", "me@acme.test", "b@x.test")
				m.Items[0].Own = true
				return b.put(m)
			},
			func(b *bench, _ Message) error {
				return attempt(b, mail.Reply{Code: 550, Enhanced: "5.1.1", Text: "no"}, "rcpt")
			}},
		{"hold", "ready/queued", "held/held", plain,
			bulk(func(b *bench) (int, error) { return b.q.Hold(b.Context(), "op", Filter{}, "") })},
		{"drop", "ready/queued", "none/dropped", plain,
			bulk(func(b *bench) (int, error) { return b.q.Drop(b.Context(), "op", Filter{}, "") })},
		{"expire", "ready/queued", "failed/failed", plain,
			func(b *bench, _ Message) error {
				b.clock.step(6 * 24 * time.Hour)
				return b.q.round(b.Context(), 0)
			}},
	}
}

// standing is how a message stands on disk, for a process that starts now.
func (b *bench) standing(m Message) string {
	b.Helper()
	b.open()
	item, message := "none", "none"
	if list, _, err := b.q.List(b.Context(), Filter{Message: m.Summary.ID, Tenant: "acme"}); err != nil {
		b.Fatal(err)
	} else if len(list) > 0 {
		item = string(list[0].State)
		if len(list) != max(1, len(m.Items)) {
			b.Errorf("%d of %d items", len(list), len(m.Items))
		}
	}
	s, _, err := b.log.Show(b.Context(), "acme", m.Summary.ID)
	switch {
	case err == nil:
		message = s.State
	case !fault.Is(err, fault.Missing):
		b.Fatal(err)
	}
	return item + "/" + message
}

// TestKill stops each deed at each statement, starts anew, and finds all of it
// or nothing; then the deed is done and has its whole effect.
func TestKill(t *testing.T) {
	testpeer.EachStore(t, func(t *testing.T, s *store.Store) {
		for _, d := range deeds() {
			for _, point := range killPoints() {
				t.Run(d.name+" at "+point, func(t *testing.T) { kill(t, s, d, point) })
			}
		}
	})
}

func kill(t *testing.T, s *store.Store, d deed, point string) {
	b := newBench(t, s)
	defer func() {
		b.q.Resume(b.Context(), "test", "acme/mailbox") // there may be none
	}()
	m := d.prepare(b)
	mend := sabotage(t, b, point)
	err := d.do(b, m)
	if err == nil && strings.HasPrefix(point, "INSERT trace_me") {
		// Readers do not fail for a trace file that cannot be written.
		b.log.List(t.Context(), trace.Filter{Tenant: "acme"})
	}
	mend()
	want := d.before
	if err == nil {
		want = d.after
	}
	if got := b.standing(m); got != want {
		t.Fatalf("after the kill: %s, want %s (%v)", got, want, err)
	}
	if err != nil {
		b.q.mu.Lock()
		for _, x := range b.q.dests {
			b.q.recover(x, "test")
		}
		b.q.mu.Unlock()
		if err := d.do(b, m); err != nil {
			t.Fatal(err)
		}
		if got := b.standing(m); got != d.after {
			t.Fatalf("done after the kill: %s, want %s", got, d.after)
		}
	}
	if problems := b.orphans(); problems != "" {
		t.Error(problems)
	}
	if _, err := b.q.Drop(t.Context(), "end", Filter{}, ""); err != nil {
		t.Fatal(err)
	}
	if n := b.bodies(); n != 0 {
		t.Errorf("%d bodies are left of nothing", n)
	}
}

// orphans looks for items without a body and bodies without an item.
func (b *bench) orphans() string {
	b.Helper()
	var without, unused int
	road := b.store.Road.Operator("test")
	err := errors.Join(
		road.QueryRow(b.Context(), `SELECT COUNT(*) FROM item WHERE NOT EXISTS
			(SELECT 1 FROM body WHERE body.tenant = item.tenant AND body.id = item.body)`).Scan(&without),
		road.QueryRow(b.Context(), `SELECT COUNT(*) FROM body WHERE NOT EXISTS
			(SELECT 1 FROM item WHERE body.tenant = item.tenant AND body.id = item.body)`).Scan(&unused))
	if err != nil {
		b.Fatal(err)
	}
	if without+unused > 0 {
		return "items without a body, bodies without an item: " + string(rune('0'+without)) + ", " + string(rune('0'+unused))
	}
	return ""
}

// TestReportIsWrittenLater: a report that could not be written keeps the lease
// and is written as soon as the disk lets it, so that nobody delivers again.
func TestReportIsWrittenLater(t *testing.T) {
	testpeer.EachStore(t, func(t *testing.T, s *store.Store) {
		b := newBench(t, s)
		m := b.put(b.message("acme", "acme/mailbox", "a@x.test", "b@acme.test"))
		slot, it := b.next()
		mend := sabotage(t, b, "DELETE item")
		if err := b.q.Report(t.Context(), it, Attempt{Stage: "sent", Whole: &ok250}); err == nil {
			t.Fatal("the report was written")
		}
		slot.Release()
		if b.slot() != nil {
			t.Error("an unrecorded item was leased again")
		}
		if err := b.q.Report(t.Context(), it, Attempt{Stage: "sent", Whole: &ok250}); !fault.Is(err, fault.Conflict) {
			t.Errorf("reported twice: %v", err)
		}
		if err := b.q.writeLate(t.Context()); err == nil {
			t.Error("written while the disk was broken")
		}
		mend()
		if err := b.q.writeLate(t.Context()); err != nil {
			t.Error(err)
		}
		if s := b.q.Stats(); s.InFlight != 0 || s.Queued != 0 || s.Delivered != 1 {
			t.Errorf("%+v", s)
		}
		if got := b.standing(m); got != "none/delivered" {
			t.Error(got)
		}
	})
}

// TestPowerCut copies the files of a store as they are in the middle of work,
// which is what a kill -9 leaves, and opens the copy.
func TestPowerCut(t *testing.T) {
	dir := t.TempDir()
	s := testpeer.OpenStore(t, store.Config{Dir: dir})
	b := newBench(t, s)
	var want []string
	for range 30 {
		m := b.put(b.message("acme", "acme/mailbox", "a@x.test", "b@acme.test"))
		want = append(want, m.Summary.ID)
	}
	for range 10 {
		slot, it := b.next()
		b.report(slot, it, ok250)
	}
	copied := t.TempDir()
	if err := os.CopyFS(filepath.Join(copied, "db"), os.DirFS(filepath.Join(dir, "db"))); err != nil {
		t.Fatal(err)
	}
	c := newBench(t, testpeer.OpenStore(t, store.Config{Dir: copied}))
	left := 0
	for i, id := range want {
		m, _ := c.trace(id)
		if i < 10 != (m.State == "delivered") {
			t.Errorf("message %d is %s", i, m.State)
		}
	}
	for {
		s := c.slot()
		if s == nil {
			break
		}
		it, ok := s.Next(t.Context(), 0)
		if !ok {
			t.Fatal("no item")
		}
		left++
		c.report(s, it, ok250)
	}
	if left != 20 {
		t.Errorf("%d items were left", left)
	}
}
