package keeper

import (
	"testing"
	"time"

	"github.com/sallyport-mail/sallyport/internal/keeper/operator"
	"github.com/sallyport-mail/sallyport/internal/keeper/seal"
)

// BenchmarkOpenCredential opens one by many at a time; each opening is on disk
// before it is done.
func BenchmarkOpenCredential(b *testing.B) {
	r := newRig(b, func(c *Config) { c.Limit = 1 << 30 })
	r.bindTo(b, "mx.acme.example", "acme/mailbox")
	r.set(b, "acme/mailbox", "u", "p")
	b.SetParallelism(64)
	b.RunParallel(func(p *testing.PB) {
		for p.Next() {
			if _, err := r.open("acme/mailbox"); err != nil {
				b.Error(err)
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "openings/s")
}

// BenchmarkRotation re-wraps the data keys of 36,100 tenants.
func BenchmarkRotation(b *testing.B) {
	const many = 36_100
	s := newStaff(b)
	for b.Loop() {
		b.StopTimer()
		r := newRig(b, s.known)
		r.manyTenants(b, many)
		r.end()
		next := newKEK(b, "us")
		r = r.again(b, func(c *Config) { c.KEKs = []seal.KEK{next, c.KEKs[0]} })
		b.StartTimer()
		if _, err := r.order(b, signOrder(b, operator.RotateKEK, next.ID(), nil, s.anna)); err != nil {
			b.Fatal(err)
		}
		for r.rotation.progress() != "" {
			time.Sleep(5 * time.Millisecond)
		}
		if left := r.keks(b, next.ID()); left != 0 {
			b.Errorf("%d are left", left)
		}
		r.end()
	}
	b.ReportMetric(many*float64(b.N)/b.Elapsed().Seconds(), "keys/s")
}
