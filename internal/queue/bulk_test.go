package queue

import (
	"fmt"
	"slices"
	"testing"

	"github.com/sallyport-mail/sallyport/internal/store"
	"github.com/sallyport-mail/sallyport/internal/testpeer"
)

// TestScattered has a bulk act over more lanes than are met one after the
// other: it meets the same items, in the order of their ids, page by page.
func TestScattered(t *testing.T) {
	testpeer.EachStore(t, func(t *testing.T, s *store.Store) {
		b := newBench(t, s)
		var messages []Message
		tenants := []string{"acme", "beta", "gamma"}
		const lanes, each = 2 * fewLanes, 15
		for i := range len(tenants) * lanes * each {
			m := b.message(tenants[i%len(tenants)], fmt.Sprint("t:", i/len(tenants)%lanes), "a@far.test", "b@here.test")
			if i%7 == 0 {
				m.Items[0].State = Held
			}
			messages = append(messages, m)
		}
		b.must(b.q.Put(t.Context(), messages))
		var want, kept []string
		for _, m := range messages {
			if it := m.Items[0]; m.Summary.Tenant == "acme" && it.State != Held {
				want = append(want, it.ID)
			} else {
				kept = append(kept, it.ID)
			}
		}
		f := Filter{Tenant: "acme", States: []State{Ready}}
		in := statesOf(f, onDrop)
		if !b.q.scattered(b.q.lanes(f.Tenant, ""), in) {
			t.Fatal("the lanes of a third of all items are met one after the other")
		}
		if b.q.scattered(b.q.lanes("acme", "t:1"), in) {
			t.Error("one lane is not met by itself")
		}
		var met []string
		b.must(b.q.each(t.Context(), f, in, func(rows []row) error {
			for _, r := range rows {
				if f.matches(&r, b.clock.now()) {
					met = append(met, r.id)
				}
			}
			return nil
		}))
		if !slices.Equal(met, want) {
			t.Errorf("%d items are met, in order: %v; want %d", len(met), slices.IsSorted(met), len(want))
		}
		if n, err := b.q.Drop(t.Context(), "op", f, "no use"); err != nil || n != len(want) {
			t.Errorf("%d dropped, %v; want %d", n, err, len(want))
		}
		var left []string
		for _, name := range tenants {
			list, _, err := b.q.List(t.Context(), Filter{Tenant: name, Limit: len(messages)})
			b.must(err)
			for _, it := range list {
				left = append(left, it.ID)
			}
		}
		slices.Sort(left)
		if slices.Sort(kept); !slices.Equal(left, kept) {
			t.Errorf("%d items are left, want %d", len(left), len(kept))
		}
	})
}
