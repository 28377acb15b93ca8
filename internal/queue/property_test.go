package queue

import (
	"os"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/sallyport-mail/sallyport/internal/mail"
	"github.com/sallyport-mail/sallyport/internal/store"
)

// model is what the queue ought to hold, kept the simplest way there is.
type model struct {
	items   map[string]*modelItem
	held    []modelLease
	tenants []string
}

type modelItem struct {
	tenant, dest string
	state        State
}

type modelLease struct {
	slot *Slot
	it   *Item
}

// TestModel plays random histories against the model: no item is lost, none is
// leased twice, windows stay bounded, figures are right, also after restarts.
func TestModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		dir, err := os.MkdirTemp(t.TempDir(), "")
		if err != nil {
			rt.Fatal(err)
		}
		s, err := store.Open(t.Context(), store.Config{Dir: dir})
		if err != nil {
			rt.Fatal(err)
		}
		defer os.RemoveAll(dir)
		defer s.Close()
		b := newBench(t, s, func(c *Config) { c.Window = 20 })
		m := &model{items: map[string]*modelItem{}, tenants: []string{"a", "b"}}
		rt.Repeat(m.actions(b))
		m.finish(b, rt)
	})
}

func (m *model) actions(b *bench) map[string]func(*rapid.T) {
	return map[string]func(*rapid.T){
		"":       func(rt *rapid.T) { m.check(b, rt) },
		"put":    func(rt *rapid.T) { m.put(b, rt) },
		"lease":  func(rt *rapid.T) { m.lease(b, rt) },
		"report": func(rt *rapid.T) { m.report(b, rt) },
		"bulk":   func(rt *rapid.T) { m.bulk(b, rt) },
		"time": func(rt *rapid.T) {
			b.clock.step(time.Duration(rapid.IntRange(1, 90).Draw(rt, "minutes")) * time.Minute)
			b.fill()
		},
		"restart": func(rt *rapid.T) {
			for _, l := range m.held {
				m.items[l.it.ID].state = Ready // or still deferred, and due: the same
			}
			m.held = nil
			b.open()
		},
	}
}

func (m *model) put(b *bench, rt *rapid.T) {
	tenant := rapid.SampledFrom(m.tenants).Draw(rt, "tenant")
	dest := rapid.SampledFrom([]string{"mx:one", "mx:two", tenant + "/own"}).Draw(rt, "destination")
	var ms []Message
	for range rapid.IntRange(1, 30).Draw(rt, "n") {
		ms = append(ms, b.message(tenant, dest, "x@far.test", "b@"+tenant+".test"))
	}
	if err := b.q.Put(b.Context(), ms); err != nil {
		rt.Fatal(err)
	}
	for _, x := range ms {
		m.items[x.Items[0].ID] = &modelItem{tenant, dest, Ready}
	}
	b.fill()
}

func (m *model) lease(b *bench, rt *rapid.T) {
	s := b.slot()
	if s == nil {
		return
	}
	it, ok := s.Next(b.Context(), 0)
	if !ok {
		s.Release()
		return
	}
	x := m.items[it.ID]
	if x == nil || (x.state != Ready && x.state != Deferred) || x.dest != s.Destination || x.tenant != it.Tenant {
		rt.Fatalf("leased %s of %s for %s: %+v", it.ID, it.Tenant, s.Destination, x)
	}
	x.state = Leased
	m.held = append(m.held, modelLease{s, it})
	b.fill()
}

func (m *model) report(b *bench, rt *rapid.T) {
	if len(m.held) == 0 {
		return
	}
	i := rapid.IntRange(0, len(m.held)-1).Draw(rt, "which")
	l := m.held[i]
	m.held = append(m.held[:i], m.held[i+1:]...)
	outcomes := []struct {
		a    Attempt
		then State
	}{
		{Attempt{Stage: "sent", Replies: []mail.Reply{ok250}}, absent},
		{Attempt{Stage: "rcpt", Replies: []mail.Reply{{Code: 450}}}, Deferred},
		{Attempt{Stage: "data", Replies: []mail.Reply{{Code: 550, Enhanced: "5.6.0"}}}, Failed},
		{Attempt{Stage: "connect", Whole: &mail.Reply{Text: "refused"}}, Ready},
		{Attempt{Stage: "mail", Whole: &mail.Reply{Code: 550, Enhanced: "5.7.64"}}, Ready},
		{Attempt{Skipped: true}, Ready},
	}
	o := rapid.SampledFrom(outcomes).Draw(rt, "outcome")
	if err := b.q.Report(b.Context(), l.it, o.a); err != nil {
		rt.Fatal(err)
	}
	l.slot.Release()
	m.items[l.it.ID].state = o.then
	if o.then == absent {
		delete(m.items, l.it.ID)
	}
	b.fill()
}

// bulk does an act for one tenant, in the queue and in the model.
func (m *model) bulk(b *bench, rt *rapid.T) {
	tenant := rapid.SampledFrom(m.tenants).Draw(rt, "tenant")
	f, ctx := Filter{Tenant: tenant}, b.Context()
	var n, want int
	var err error
	on := rapid.SampledFrom([]event{onHold, onRelease, onRetry, onDrop, onReroute}).Draw(rt, "act")
	switch on {
	case onHold:
		n, err = b.q.Hold(ctx, "op", f, "")
	case onRelease:
		n, err = b.q.Unhold(ctx, "op", f)
	case onRetry:
		n, err = b.q.Retry(ctx, "op", f)
	case onDrop:
		n, err = b.q.Drop(ctx, "op", f, "")
	case onReroute:
		n, err = b.q.Reroute(ctx, "op", f, tenant+"/own", "")
	}
	if err != nil {
		rt.Fatal(err)
	}
	exact := true
	for id, x := range m.items {
		to, ok := next(x.state, on)
		switch {
		case x.tenant != tenant || !ok || x.state == Leased:
			continue
		case on == onRetry && x.state == Ready:
			exact = false // after a restart it may be deferred and due
			continue
		case on == onReroute && x.dest == tenant+"/own":
			continue
		}
		want++
		if x.state = to; to == absent {
			delete(m.items, id)
		}
		if on == onReroute {
			x.dest = tenant + "/own"
		}
	}
	if n < want || (exact && n != want) {
		rt.Fatalf("%s changed %d items, want %d", on, n, want)
	}
	b.fill()
}

// check compares figures and looks at the windows.
func (m *model) check(b *bench, rt *rapid.T) {
	var waiting, held, failed int64
	for _, x := range m.items {
		switch x.state {
		case Held:
			held++
		case Failed:
			failed++
		default:
			waiting++
		}
	}
	var got Stats
	q := b.q
	q.mu.Lock()
	entries := 0
	var cached int64
	for _, d := range q.dests {
		for name, l := range d.lanes {
			if name == m.tenants[0] || name == m.tenants[1] {
				got.Queued += l.waiting()
				got.Held += l.n[storedHeld]
				got.Failed += l.n[storedFailed]
			}
			for _, w := range []*window{&l.fresh, &l.putOff} {
				entries += len(w.list)
				if len(w.list) > q.c.Window {
					rt.Errorf("a window holds %d items", len(w.list))
				}
				for i := range w.list {
					if w.list[i].item != nil {
						cached += w.list[i].item.memory()
					}
					if i > 0 && !w.list[i-1].key().before(w.list[i].key()) {
						rt.Errorf("a window is out of order")
					}
				}
			}
		}
	}
	for _, h := range q.busy {
		if h.entry.item != nil {
			cached += h.entry.item.memory()
		}
	}
	if entries != q.entries || cached != q.cached || len(q.busy) != len(m.held) || q.leased != len(m.held) {
		rt.Errorf("entries %d, counted %d; bytes %d, counted %d; busy %d, leased %d, held %d",
			entries, q.entries, cached, q.cached, len(q.busy), q.leased, len(m.held))
	}
	q.mu.Unlock()
	if got.Queued != waiting || got.Held != held || got.Failed != failed {
		rt.Errorf("queued %d, held %d, failed %d; want %d, %d, %d", got.Queued, got.Held, got.Failed, waiting, held, failed)
	}
}

// finish releases everything and delivers it: nothing may be left, and
// everything must have come.
func (m *model) finish(b *bench, rt *rapid.T) {
	ctx := b.Context()
	for _, l := range m.held {
		if err := b.q.Report(ctx, l.it, Attempt{Skipped: true}); err != nil {
			rt.Fatal(err)
		}
		l.slot.Release()
	}
	for _, name := range m.tenants {
		for _, f := range []func() (int, error){
			func() (int, error) { return b.q.Unhold(ctx, "op", Filter{Tenant: name}) },
			func() (int, error) { return b.q.Retry(ctx, "op", Filter{Tenant: name}) },
		} {
			if _, err := f(); err != nil {
				rt.Fatal(err)
			}
		}
	}
	b.clock.step(time.Hour)
	b.fill()
	for s := b.slot(); s != nil; s = b.slot() {
		for {
			it, ok := s.Next(ctx, 0)
			if !ok {
				break
			}
			if m.items[it.ID] == nil {
				rt.Errorf("%s was delivered twice or never put", it.ID)
			}
			delete(m.items, it.ID)
			if err := b.q.Report(ctx, it, Attempt{Stage: "sent", Replies: []mail.Reply{ok250}}); err != nil {
				rt.Fatal(err)
			}
			b.fill()
		}
		s.Release()
		b.fill()
	}
	if len(m.items) > 0 {
		rt.Errorf("%d items were never delivered", len(m.items))
	}
	if s := b.q.Stats(); s.Queued != 0 || s.InFlight != 0 {
		rt.Errorf("%+v", s)
	}
}
