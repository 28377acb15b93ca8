package tenant_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/sallyport-mail/sallyport/internal/store"
	"github.com/sallyport-mail/sallyport/internal/tenant"
)

// The size that the registry must carry: 36,100 tenants with 72,200 domains.
const (
	manyTenants = 36_100
	perTenant   = 2
)

// fill writes many tenants; concurrent changes share commits.
func fill(b *testing.B, r *tenant.Registry) {
	b.Helper()
	var wg sync.WaitGroup
	for w := range 64 {
		wg.Go(func() {
			for i := w; i < manyTenants; i += 64 {
				name := fmt.Sprintf("t%05d", i)
				if _, err := r.Add(b.Context(), "system", tenant.Tenant{Name: name, Region: "us"}); err != nil {
					b.Error(err)
					return
				}
				for d := range perTenant {
					domain := tenant.Domain{Name: fmt.Sprintf("d%d.%s.example", d, name), Tenant: name}
					if _, err := r.AddDomain(b.Context(), "system", domain); err != nil {
						b.Error(err)
						return
					}
				}
			}
		})
	}
	wg.Wait()
	if b.Failed() {
		b.FailNow()
	}
}

func BenchmarkManyTenants(b *testing.B) {
	s, c := openSQLite(b), newClock()
	r := openRegistry(b, s, c)
	fill(b, r)
	_, secret, err := r.AddToken(b.Context(), "system", tenant.Token{Role: tenant.Operator})
	must(b, err)
	must(b, r.SetLists(b.Context(), "system", tenant.Lists{Block: []string{".bad.example", "203.0.113.0/24"}}))

	b.Run("load", func(b *testing.B) { benchLoad(b, s, c) })
	b.Run("domain", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, ok := r.Domain("d1.t20000.example"); !ok {
				b.Fatal("not found")
			}
		}
	})
	b.Run("tenant", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, ok := r.Tenant("t20000"); !ok {
				b.Fatal("not found")
			}
		}
	})
	b.Run("sender", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			r.Sender("t20000", "192.0.2.1", "someone@mail.shop.example")
		}
	})
	b.Run("authenticate", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := r.Authenticate(secret); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("change", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			if _, err := r.Set(b.Context(), "system", "t20000", tenant.Settings{TraceDays: 1 + i%9}); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func benchLoad(b *testing.B, s *store.Store, c *clock) {
	for b.Loop() {
		begin := time.Now()
		r, err := tenant.New(context.Background(), tenant.Config{DB: s.Control, Regions: []string{"us"}, Now: c.now})
		must(b, err)
		if took := time.Since(begin); took > 10*time.Second {
			b.Errorf("loading took %v", took)
		}
		if n, d := r.Count(); n != manyTenants || d != manyTenants*perTenant {
			b.Fatalf("%d tenants, %d domains", n, d)
		}
	}
}
