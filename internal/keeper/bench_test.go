package keeper

import (
	"context"
	"crypto"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sallyport-mail/sallyport/internal/keeper/act"
)

const region = 36_100 // tenants of a large region

// BenchmarkIssue is a region that is being set up: tenants are bound, and get
// two identities each, 64 at a time. -benchtime=36100x is the whole region.
func BenchmarkIssue(b *testing.B) {
	r := newRig(b)
	began := time.Now()
	b.ResetTimer()
	callers(b, 64, b.N, func(i int) error { return r.settle(b.Context(), fmt.Sprintf("tenant%d", i)) })
	took := time.Since(began)
	b.ReportMetric(2*float64(b.N)/took.Seconds(), "identities/s")
	b.ReportMetric(took.Seconds()/float64(b.N)*region, "s/36100-tenants")
}

// settle binds a tenant's mailbox and issues its first identity and one that
// stands by.
func (r *rig) settle(ctx context.Context, tenant string) error {
	_, err := r.BindConnection(ctx, someone(), act.Bind{Context: of(tenant, "binding"), Binding: aBinding()})
	for epoch := uint64(1); err == nil && epoch <= 2; epoch++ {
		_, err = r.IssueIdentity(ctx, someone(), act.Issue{Context: of(tenant, ofClient), Epoch: epoch})
	}
	return err
}

// callers call f n times, so many at a time.
func callers(t testing.TB, at, n int, f func(i int) error) {
	t.Helper()
	var next atomic.Int64
	var all sync.WaitGroup
	for range at {
		all.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				if err := f(i); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
}

// BenchmarkHandshake is handshake signatures over the socket, gateway and
// keeper in one process, with their entries on disk: as many as go, and the
// time of each at 1,000 a second.
func BenchmarkHandshake(b *testing.B) {
	const tenants = 2000
	r := newRig(b)
	gate := r.remote(b)
	signers := make([]crypto.MessageSigner, tenants)
	callers(b, 64, tenants, func(i int) error {
		tenant := fmt.Sprintf("tenant%d", i)
		if err := r.settle(b.Context(), tenant); err != nil {
			return err
		}
		all, err := r.list(b.Context(), act.IdentityQuery{Context: of(tenant, "list")})
		if err != nil {
			return err
		}
		if _, err = r.MoveIdentity(b.Context(), someone(), act.Move{Context: of(tenant, ofClient), Identity: all.Identities[0].ID, To: act.Active}); err != nil {
			return err
		}
		cert, err := gate.ClientCertificate(b.Context(), tenant, "mailbox")
		if err == nil {
			signers[i] = cert.PrivateKey.(crypto.MessageSigner)
		}
		return err
	})
	message := strings.Repeat(" ", 64) + "TLS 1.3, client CertificateVerify\x00" + strings.Repeat("h", 32)
	shake := func(i int) error {
		_, err := signers[i%tenants].SignMessage(nil, []byte(message), crypto.SHA256)
		return err
	}
	b.Run("most", func(b *testing.B) {
		times := make([]time.Duration, b.N)
		began := time.Now()
		callers(b, 64, b.N, func(i int) error {
			start := time.Now()
			err := shake(i)
			times[i] = time.Since(start)
			return err
		})
		b.ReportMetric(float64(b.N)/time.Since(began).Seconds(), "handshakes/s")
		quantiles(b, times)
	})
	b.Run("paced", func(b *testing.B) {
		times := make([]time.Duration, b.N)
		began := time.Now()
		callers(b, 64, b.N, func(i int) error {
			due := began.Add(time.Duration(i) * time.Millisecond)
			time.Sleep(time.Until(due))
			err := shake(i)
			times[i] = time.Since(due)
			return err
		})
		b.ReportMetric(float64(b.N)/time.Since(began).Seconds(), "handshakes/s")
		quantiles(b, times)
	})
}

func quantiles(b *testing.B, times []time.Duration) {
	slices.Sort(times)
	b.ReportMetric(float64(times[len(times)/2].Microseconds())/1000, "p50-ms")
	b.ReportMetric(float64(times[len(times)*99/100].Microseconds())/1000, "p99-ms")
}
