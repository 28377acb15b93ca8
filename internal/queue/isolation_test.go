package queue

import (
	"testing"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/mail"
	"github.com/sallyport-mail/sallyport/internal/store"
	"github.com/sallyport-mail/sallyport/internal/testpeer"
)

// TestIsolation tries tenant B's hand on what is tenant A's, verb by verb.
func TestIsolation(t *testing.T) {
	testpeer.EachStore(t, func(t *testing.T, s *store.Store) {
		b := newBench(t, s)
		a := b.put(b.message("acme", "mx:far", "x@acme.test", "b@far.test"))
		own := b.put(b.message("other", "mx:far", "x@other.test", "b@far.test"))
		id := a.Items[0].ID
		ctx := t.Context()
		if _, err := b.q.Show(ctx, "other", id); !fault.Is(err, fault.Missing) {
			t.Errorf("show: %v", err)
		}
		for _, f := range []Filter{{Tenant: "other"}, {Tenant: "other", Destination: "mx:far"}} {
			list, _, err := b.q.List(ctx, f)
			if err != nil || len(list) != 1 || list[0].ID != own.Items[0].ID {
				t.Errorf("list: %+v %v", list, err)
			}
		}
		for _, f := range []Filter{{Tenant: "other", Item: id}, {Tenant: "other", Message: a.Summary.ID}} {
			if list, _, err := b.q.List(ctx, f); err != nil || len(list) != 0 {
				t.Errorf("list: %+v %v", list, err)
			}
			for name, act := range map[string]func() (int, error){
				"hold":    func() (int, error) { return b.q.Hold(ctx, "op", f, "") },
				"drop":    func() (int, error) { return b.q.Drop(ctx, "op", f, "") },
				"reroute": func() (int, error) { return b.q.Reroute(ctx, "op", f, "x", "") },
				"retry":   func() (int, error) { return b.q.Retry(ctx, "op", f) },
				"release": func() (int, error) { return b.q.Unhold(ctx, "op", f) },
			} {
				if n, err := act(); n != 0 || err != nil {
					t.Errorf("%s: %d items, %v", name, n, err)
				}
			}
		}
		if _, err := b.q.c.Store.Bodies.Read(ctx, store.BodyRef{Tenant: "other", ID: a.Ref.ID, Size: a.Ref.Size, Sum: a.Ref.Sum}); err == nil {
			t.Error("the body was read")
		}
		if _, _, err := b.log.Show(ctx, "other", a.Summary.ID); !fault.Is(err, fault.Missing) {
			t.Errorf("trace: %v", err)
		}
		if n, err := b.q.Drop(ctx, "op", Filter{Tenant: "other"}, ""); n != 1 || err != nil {
			t.Errorf("drop all: %d, %v", n, err)
		}
		if d, err := b.q.Destinations(ctx, "other"); err != nil || len(d) != 0 {
			t.Errorf("destinations: %+v %v", d, err)
		}
		if d, err := b.q.Destinations(ctx, "acme"); err != nil || len(d) != 1 || d[0].Queued != 1 {
			t.Errorf("destinations: %+v %v", d, err)
		}
		// Reading across tenants needs no tenant, and is seen by the ledger.
		list, _, err := b.q.List(ctx, Filter{})
		if err != nil || len(list) != 1 || list[0].ID != id {
			t.Errorf("operator: %+v %v", list, err)
		}
	})
}

// TestSharedBody: the items of one message share a body, which goes with the
// last of them.
func TestSharedBody(t *testing.T) {
	testpeer.EachStore(t, func(t *testing.T, s *store.Store) {
		b := newBench(t, s)
		m := b.message("acme", "acme/one", "x@far.test", "b@acme.test")
		for _, dest := range []string{"acme/two", "acme/three"} {
			it := m.Items[0]
			it.Destination = dest
			it.Recipients = []Recipient{{Recipient: mail.Recipient{Address: address("c@acme.test")}}}
			m.Items = append(m.Items, it)
		}
		m = b.put(m)
		for i := range 3 {
			if n := b.bodies(); n != 1 {
				t.Fatalf("%d bodies before item %d", n, i)
			}
			if i == 1 {
				if n, err := b.q.Drop(t.Context(), "op", Filter{Item: m.Items[2].ID}, ""); n != 1 || err != nil {
					t.Fatal(n, err)
				}
				continue
			}
			slot, it := b.next()
			b.report(slot, it, ok250)
		}
		if n := b.bodies(); n != 0 {
			t.Errorf("%d bodies are left", n)
		}
		if s, _ := b.trace(m.Summary.ID); s.State != "partial" {
			t.Errorf("%+v", s)
		}
	})
}

// TestListPages walks the listing in small pages.
func TestListPages(t *testing.T) {
	testpeer.EachStore(t, func(t *testing.T, s *store.Store) {
		b := newBench(t, s)
		want := map[string]bool{}
		for i := range 23 {
			dest := []string{"acme/one", "acme/two", "mx:far"}[i%3]
			m := b.message("acme", dest, "x@far.test", "b@acme.test")
			if i%4 == 0 {
				m.Items[0].State = Held
			}
			want[b.put(m).Items[0].ID] = true
		}
		f := Filter{Tenant: "acme", Limit: 4}
		for pages := 0; ; pages++ {
			list, next, err := b.q.List(t.Context(), f)
			if err != nil || pages > 10 {
				t.Fatal(err, pages)
			}
			for _, x := range list {
				if !want[x.ID] {
					t.Errorf("%s is listed twice", x.ID)
				}
				delete(want, x.ID)
			}
			if f.After = next; next == "" {
				break
			}
		}
		if len(want) != 0 {
			t.Errorf("%d items are not listed", len(want))
		}
		if _, _, err := b.q.List(t.Context(), Filter{After: "!"}); !fault.Is(err, fault.Invalid) {
			t.Errorf("a bad cursor: %v", err)
		}
		list, _, err := b.q.List(t.Context(), Filter{Tenant: "acme", States: []State{Held}})
		if err != nil || len(list) != 6 {
			t.Errorf("%d held: %v", len(list), err)
		}
	})
}
