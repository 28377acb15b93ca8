package trace

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"go.uber.org/goleak"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/store"
	"github.com/sallyport-mail/sallyport/internal/testpeer"
)

func start() time.Time { return time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC) }

func newLog(t testing.TB, s *store.Store, change ...func(*Config)) *Log {
	t.Helper()
	c := Config{Road: s.Road, Trace: s.Trace, Now: start}
	for _, f := range change {
		f(&c)
	}
	l, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// id is a ULID of n milliseconds after the start.
func id(n int) string {
	var u ulid.ULID
	if err := u.SetTime(ulid.Timestamp(start()) + uint64(n)); err != nil {
		panic(err)
	}
	return u.String()
}

func accepted(tenant string, n int) Event {
	peer := "mx.far"
	return Event{
		Tenant: tenant, ID: id(n), Change: Counts{Queued: 2},
		Message: &Message{ID: id(n), Tenant: tenant, MessageID: fmt.Sprintf("<%d@far.test>", n), Direction: "inbound",
			From: "a_b@far.test", To: []string{"x@" + tenant + ".test", "y@" + tenant + ".test"}, Subject: "s", ReceivedAt: start()},
		Steps: []Step{{Time: start().Add(time.Duration(n) * time.Millisecond), Step: "accepted", Peer: &peer}},
	}
}

func happened(tenant string, n int, name string, c Counts) Event {
	return Event{Tenant: tenant, ID: id(n), Change: c, Steps: []Step{{Time: start().Add(time.Hour), Step: name}}}
}

// commit writes events on the road as the queue does.
func commit(t testing.TB, s *store.Store, l *Log, events ...Event) {
	t.Helper()
	var seqs []int64
	err := s.Road.Road().Change(t.Context(), func(tx store.RoadTx) error {
		seqs = seqs[:0]
		for _, e := range events {
			seq, err := Encode(e).Write(tx)
			if err != nil {
				return err
			}
			seqs = append(seqs, seq)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if l != nil {
		l.Committed(seqs, events)
	}
}

func (l *Log) see(t testing.TB, tenant string, n int) (Message, string) {
	t.Helper()
	m, steps, err := l.Show(t.Context(), tenant, id(n))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, s := range steps {
		names = append(names, s.Step)
	}
	return m, strings.Join(names, ",")
}

func left(t testing.TB, s *store.Store) (n int) {
	t.Helper()
	if err := s.Road.Operator("test").QueryRow(t.Context(), `SELECT COUNT(*) FROM trace_event`).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestStates(t *testing.T) {
	testpeer.EachStore(t, func(t *testing.T, s *store.Store) {
		l := newLog(t, s)
		for n, c := range []struct {
			changes []Counts
			state   string
		}{
			{nil, "queued"},
			{[]Counts{{Queued: -1, Delivered: 1}}, "queued"},
			{[]Counts{{Queued: -2, Delivered: 2}}, "delivered"},
			{[]Counts{{Queued: -1, Delivered: 1}, {Queued: -1, Failed: 1}}, "partial"},
			{[]Counts{{Queued: -1, Delivered: 1}, {Queued: -1, Dropped: 1}}, "partial"},
			{[]Counts{{Queued: -2, Failed: 2}}, "failed"},
			{[]Counts{{Queued: -2, Held: 2}}, "held"},
			{[]Counts{{Queued: -1, Held: 1}}, "queued"},
			{[]Counts{{Queued: -2, Held: 2}, {Held: -2, Dropped: 2}}, "dropped"},
			{[]Counts{{Queued: -2}}, "refused"},
		} {
			commit(t, s, l, accepted("acme", n))
			for _, x := range c.changes {
				commit(t, s, l, happened("acme", n, "step", x))
			}
			m, _ := l.see(t, "acme", n)
			if m.State != c.state {
				t.Errorf("%v: %s, want %s", c.changes, m.State, c.state)
			}
			list, _, err := l.List(t.Context(), Filter{Tenant: "acme", State: c.state})
			if err != nil || len(list) == 0 || list[0].ID != id(n) {
				t.Errorf("%s is not listed by its state: %v", c.state, err)
			}
		}
		if n := left(t, s); n != 0 {
			t.Errorf("%d events are left on the road", n)
		}
	})
}

// TestOnce: events come by memory, by reading, both ways, in pieces, in
// the wrong order, and over a restart; each is applied once.
func TestOnce(t *testing.T) {
	testpeer.EachStore(t, func(t *testing.T, s *store.Store) {
		delivered := happened("acme", 0, "delivered", Counts{Queued: -1, Delivered: 1})
		for name, play := range map[string]func(l *Log){
			"by memory": func(l *Log) {
				l.mover.move(t.Context())
				commit(t, s, l, accepted("acme", 0))
				commit(t, s, l, delivered)
				commit(t, s, l, delivered)
			},
			"moved in between": func(l *Log) {
				commit(t, s, l, accepted("acme", 0))
				l.mover.move(t.Context())
				commit(t, s, l, delivered, delivered)
			},
			"by reading": func(*Log) {
				commit(t, s, nil, accepted("acme", 0), delivered)
				commit(t, s, nil, delivered)
			},
			"both ways": func(l *Log) {
				l.mover.move(t.Context())
				l.mover.setBehind(true)
				commit(t, s, l, accepted("acme", 0), delivered)
				l.mover.setBehind(false) // the next is handed over and also on the road
				commit(t, s, l, delivered)
				l.mover.mu.Lock()
				l.mover.behind = true
				l.mover.mu.Unlock()
			},
			"in the wrong order": func(l *Log) {
				l.mover.move(t.Context())
				commit(t, s, l, delivered)
				l.mover.move(t.Context())
				commit(t, s, l, accepted("acme", 0))
				l.mover.move(t.Context())
				commit(t, s, l, delivered)
			},
			"after a restart": func(l *Log) {
				commit(t, s, l, accepted("acme", 0), delivered)
				newLog(t, s).mover.move(t.Context())
				l.Missed()
				commit(t, s, l, delivered)
			},
		} {
			t.Run(name, func(t *testing.T) {
				l := newLog(t, s)
				play(l)
				m, steps := l.see(t, "acme", 0)
				if m.State != "delivered" || steps != "accepted,delivered,delivered" || m.Subject != "s" || len(m.To) != 2 {
					t.Errorf("%+v, %s", m, steps)
				}
				if n := left(t, s); n != 0 {
					t.Errorf("%d events are left on the road", n)
				}
				if err := s.Trace.Operator("test").Change(t.Context(), func(tx store.OperatorTx) error {
					_, err := tx.Exec(`DELETE FROM trace_message`)
					return err
				}); err != nil {
					t.Fatal(err)
				}
			})
		}
	})
}

// TestKilledBetween: the trace file has the batch, the road still has its
// events. The mover that comes up applies none of them again, however the new
// batch is cut.
func TestKilledBetween(t *testing.T) {
	testpeer.EachStore(t, func(t *testing.T, s *store.Store) {
		l := newLog(t, s)
		l.mover.move(t.Context())
		for n := range 50 {
			commit(t, s, l, accepted("acme", n))
		}
		batch, _ := l.mover.take()
		rows := batch[:30]
		var seqs []int64
		for _, h := range rows {
			seqs = append(seqs, h.seq)
		}
		if err := l.mover.record(t.Context(), rows, seqs); err != nil { // and killed here
			t.Fatal(err)
		}
		for restarts := range 3 {
			l = newLog(t, s)
			if restarts == 0 {
				// Killed again, before the road let go of anything.
				more, err := l.mover.read(t.Context())
				if err != nil || l.mover.remember(t.Context()) != nil {
					t.Fatal(err)
				}
				more = more[len(more)-1:]
				if err := l.mover.record(t.Context(), more, []int64{more[0].seq}); err != nil {
					t.Fatal(err)
				}
				continue
			}
			for n := range 50 {
				m, steps := l.see(t, "acme", n)
				if m.State != "queued" || steps != "accepted" {
					t.Fatalf("message %d: %s, %s", n, m.State, steps)
				}
			}
		}
		var sum int
		if err := s.Trace.Operator("test").QueryRow(t.Context(), `SELECT SUM(queued) FROM trace_message`).Scan(&sum); err != nil || sum != 100 {
			t.Errorf("%d recipients are queued, want 100: %v", sum, err)
		}
		if n := left(t, s); n != 0 {
			t.Errorf("%d events are left on the road", n)
		}
	})
}

// TestOverflow: when more is handed over than is kept, the rest is read.
func TestOverflow(t *testing.T) {
	s := testpeer.OpenStore(t, store.Config{Dir: t.TempDir()})
	l := newLog(t, s)
	l.mover.move(t.Context())
	var all []Event
	for n := range 1500 {
		all = append(all, accepted("acme", n))
	}
	commit(t, s, l, all[:700]...)
	l.mover.mu.Lock()
	l.mover.behind, l.mover.handed = true, nil // as hand does it
	l.mover.mu.Unlock()
	commit(t, s, l, all[700:]...)
	seqs := make([]int64, mostHanded+1)
	l.mover.setBehind(false)
	l.mover.hand(seqs, make([]Event, len(seqs)))
	if !l.mover.isBehind() || l.mover.handed != nil {
		t.Error("too much was kept")
	}
	if err := l.mover.move(t.Context()); err != nil {
		t.Fatal(err)
	}
	m, _ := l.see(t, "acme", 1499)
	if m.State != "queued" || left(t, s) != 0 {
		t.Errorf("%+v, %d left", m, left(t, s))
	}
}

func TestList(t *testing.T) {
	testpeer.EachStore(t, func(t *testing.T, s *store.Store) {
		l := newLog(t, s)
		for n := range 25 {
			tenant := "acme"
			if n%5 == 4 {
				tenant = "other"
			}
			e := accepted(tenant, n)
			if n == 7 {
				e.Message.From, e.Message.To = "Someone@Else.test", []string{"z@sub.acme.test"}
			}
			commit(t, s, l, e)
		}
		ctx := t.Context()
		var got []string
		f := Filter{Tenant: "acme", Limit: 7}
		for {
			page, next, err := l.List(ctx, f)
			if err != nil || len(page) > 7 {
				t.Fatal(err, len(page))
			}
			for _, m := range page {
				got = append(got, m.ID)
			}
			if f.After = next; next == "" {
				break
			}
		}
		if len(got) != 20 || got[0] != id(23) || got[19] != id(0) {
			t.Errorf("%d: %v", len(got), got)
		}
		count := func(name string, want int, f Filter) {
			t.Helper()
			page, _, err := l.List(ctx, f)
			if err != nil || len(page) != want {
				t.Errorf("%s: %d messages, want %d: %v", name, len(page), want, err)
			}
		}
		count("operator", 25, Filter{})
		count("from", 1, Filter{Tenant: "acme", From: "someone@else.test"})
		count("from, a wildcard is none", 0, Filter{Tenant: "acme", From: "a%b@far.test"})
		count("from, an underscore is one", 19, Filter{Tenant: "acme", From: "a_b@far.test"})
		count("from a domain", 19, Filter{Tenant: "acme", From: "@far.test"})
		count("to", 19, Filter{Tenant: "acme", To: "Y@acme.test"})
		count("to, a part is not it", 0, Filter{Tenant: "acme", To: "cme.test"})
		count("to a domain", 1, Filter{Tenant: "acme", To: "@sub.acme.test"})
		count("message id", 1, Filter{Tenant: "acme", MessageID: "<3@far.test>"})
		count("since", 20, Filter{Tenant: "acme", Since: start()})
		count("since later", 0, Filter{Tenant: "acme", Since: start().Add(time.Second)})
		count("of the other", 5, Filter{Tenant: "other"})
		for _, ref := range []string{"<3@far.test>", "3@far.test", id(3), strings.ToLower(id(3))} {
			if m, _, err := l.Show(ctx, "acme", ref); err != nil || m.ID != id(3) {
				t.Errorf("show %s: %v", ref, err)
			}
			if m, _, err := l.Show(ctx, "", ref); err != nil || m.ID != id(3) {
				t.Errorf("operator's show %s: %v", ref, err)
			}
			if _, _, err := l.Show(ctx, "other", ref); !fault.Is(err, fault.Missing) {
				t.Errorf("other's show %s: %v", ref, err)
			}
		}
	})
}

func TestRetention(t *testing.T) {
	testpeer.EachStore(t, func(t *testing.T, s *store.Store) {
		now := start()
		l := newLog(t, s, func(c *Config) {
			c.Now = func() time.Time { return now }
			c.Keep = func(tenant string) time.Duration {
				return map[string]time.Duration{"acme": time.Hour, "other": 100 * time.Hour, "": time.Hour}[tenant]
			}
		})
		for _, tenant := range []string{"acme", "other"} {
			for n := range 3 {
				commit(t, s, l, accepted(tenant, n))
			}
			commit(t, s, l, happened(tenant, 0, "delivered", Counts{Queued: -2, Delivered: 2}))
			commit(t, s, l, happened(tenant, 1, "held", Counts{Queued: -2, Held: 2}))
			l.Refused(Refusal{Tenant: tenant, Peer: "192.0.2.1", Code: 550})
		}
		l.Refused(Refusal{Peer: "192.0.2.1", Code: 550})
		if _, _, err := l.Refusals(t.Context(), Filter{}); err != nil {
			t.Fatal(err)
		}
		now = now.Add(2 * time.Hour)
		if err := errors.Join(l.mover.move(t.Context()), l.retain(t.Context())); err != nil {
			t.Fatal(err)
		}
		for tenant, want := range map[string]int{"acme": 2, "other": 3} {
			if page, _, err := l.List(t.Context(), Filter{Tenant: tenant}); err != nil || len(page) != want {
				t.Errorf("%s: %d messages, want %d: %v", tenant, len(page), want, err)
			}
		}
		page, _, err := l.Refusals(t.Context(), Filter{})
		if err != nil || len(page) != 1 || page[0].Tenant != "other" {
			t.Errorf("refusals: %+v %v", page, err)
		}
	})
}

func TestRefusals(t *testing.T) {
	testpeer.EachStore(t, func(t *testing.T, s *store.Store) {
		l := newLog(t, s, func(c *Config) { c.RefusalsPerMinute = 10 })
		ctx := t.Context()
		for range 1000 {
			l.Refused(Refusal{Peer: "192.0.2.1", Tenant: "acme", Command: "RCPT", Code: 550, Enhanced: "5.1.1", To: "x@acme.test", Text: "no \x00 such\xff"})
		}
		page, _, err := l.Refusals(ctx, Filter{Tenant: "acme"})
		if err != nil || len(page) != 1 || page[0].Count != 1000 {
			t.Fatalf("%+v %v", page, err)
		}
		l.Refused(Refusal{Peer: "192.0.2.1", Tenant: "acme", Command: "RCPT", Code: 550, Enhanced: "5.1.1"})
		for i := range 50_000 {
			l.Refused(Refusal{Peer: fmt.Sprintf("198.51.%d.%d", i/250%200, i%250), Command: "EHLO", Code: 554, Enhanced: "5.7.1", Text: fmt.Sprint(i)})
		}
		var total int64
		f := Filter{Limit: 4}
		rows := 0
		for {
			page, next, err := l.Refusals(ctx, f)
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range page {
				total += r.Count
				rows++
			}
			if f.After = next; next == "" {
				break
			}
		}
		if total != 51_001 || rows != 11 {
			t.Errorf("%d refusals in %d rows", total, rows)
		}
		if page, _, err := l.Refusals(ctx, Filter{Tenant: "other"}); err != nil || len(page) != 0 {
			t.Errorf("other: %+v %v", page, err)
		}
		if page, _, err := l.Refusals(ctx, Filter{To: "x@acme.test"}); err != nil || len(page) != 1 || page[0].Count != 1001 {
			t.Errorf("by recipient: %+v %v", page, err)
		}
	})
}

// TestRun moves by itself, and moves the rest when it ends.
func TestRun(t *testing.T) {
	s := testpeer.OpenStore(t, store.Config{Dir: t.TempDir()})
	before := goleak.IgnoreCurrent()
	l := newLog(t, s)
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	all.Go(func() {
		if err := l.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	commit(t, s, l, accepted("acme", 0))
	for deadline := time.Now().Add(10 * time.Second); left(t, s) > 0; {
		if time.Now().After(deadline) {
			t.Fatal("nothing was moved")
		}
	}
	commit(t, s, l, accepted("acme", 1))
	l.Refused(Refusal{Peer: "192.0.2.1", Code: 550})
	cancel()
	all.Wait()
	if n := left(t, s); n != 0 {
		t.Errorf("%d events are left", n)
	}
	goleak.VerifyNone(t, before, goleak.IgnoreAnyFunction("database/sql.(*DB).connectionOpener"))
}

// FuzzDecode: what lies on the road is ours, but a broken row must be an
// error and not the end of the mover.
func FuzzDecode(f *testing.F) {
	f.Add(Encode(accepted("acme", 1)).payload)
	f.Add(`{"c":[1]}`)
	f.Fuzz(func(t *testing.T, text string) {
		e, err := decode("acme", "m", text)
		if err != nil {
			return
		}
		again, err := decode("acme", "m", Encode(e).payload)
		if err != nil {
			t.Fatal(err)
		}
		for i := range e.Steps { // RFC 3339 as it is written has no zone but UTC
			e.Steps[i].Time = e.Steps[i].Time.UTC()
		}
		if e.Message != nil {
			e.Message.ReceivedAt = e.Message.ReceivedAt.UTC()
		}
		if a, b := plain(t, e), plain(t, again); a != b {
			t.Errorf("%s became %s", a, b)
		}
	})
}

func plain(t *testing.T, e Event) string {
	t.Helper()
	if e.Message != nil && e.Message.To == nil {
		e.Message.To = []string{}
	}
	text, err := json.Marshal(e)
	if err != nil {
		t.Skip(err) // a year above 9999, which no clock of ours shows
	}
	return strings.NewReplacer(`"Steps":null`, `"Steps":[]`, `\ufffd`, "\ufffd").Replace(string(text))
}

// TestEncode holds what is appended by hand against encoding/json.
func TestEncode(t *testing.T) {
	words, code := "a \"quoted\" \\ line\r\n\t\x01 é \xff 漢 \u2028 <&>", 250
	s := Step{Time: start().Add(123456 * time.Microsecond), Step: "delivered", Recipient: &words, Code: &code, Enhanced: &words,
		Text: &words, TLS: &TLS{Version: "TLS 1.3", Cipher: "x", Verified: true, Client: words}}
	m := Message{ID: "i", MessageID: words, To: []string{words, ""}, Size: 5, ReceivedAt: start(), State: "queued"}
	for _, e := range []Event{
		{Tenant: "a", ID: "m"},
		{Tenant: "a", ID: "m", Change: Counts{1, -2, 3, -4, 5}, Steps: []Step{s}},
		{Tenant: "a", ID: "m", Message: &m, Steps: []Step{s, {}, s}},
	} {
		x := Encode(e)
		got, err := decode("a", "m", x.payload)
		if err != nil {
			t.Fatal(err)
		}
		want := e
		if want.Message != nil {
			c := *want.Message
			want.Message = &c
		}
		if a, b := plain(t, want), plain(t, got); a != b {
			t.Errorf("%s\nbecame\n%s", a, b)
		}
		steps, err := parseSteps(x.Event.steps)
		if err != nil || len(steps) != len(e.Steps) {
			t.Errorf("%d steps: %v", len(steps), err)
		}
	}
}

func BenchmarkEncode(b *testing.B) {
	e := accepted("acme", 1)
	b.ReportAllocs()
	for b.Loop() {
		Encode(e)
	}
}
