package ledger

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sallyport-mail/sallyport/internal/ledger/audit"
	"github.com/sallyport-mail/sallyport/internal/store"
	"github.com/sallyport-mail/sallyport/internal/testpeer"
)

const million = 1_000_000

// BenchmarkAppend is 20 writers with one entry each at a time, durable, on an
// empty log.
func BenchmarkAppend(b *testing.B) {
	b.Run("sqlite", func(b *testing.B) { benchAppend(b, newDesk(b, store.Config{Dir: b.TempDir()})) })
	b.Run("postgres", func(b *testing.B) {
		url := testpeer.StartPostgres(b, "fsync=on").Database(b)
		benchAppend(b, newDesk(b, store.Config{Dir: b.TempDir(), URL: url}))
	})
}

func benchAppend(b *testing.B, d *desk) {
	b.ReportAllocs()
	b.ResetTimer()
	began := time.Now()
	d.writers(20, b.N)
	b.ReportMetric(float64(b.N)/time.Since(began).Seconds(), "entries/s")
}

// writers append n entries, one at a time each.
func (d *desk) writers(writers, n int) {
	var wg sync.WaitGroup
	var next atomic.Int64
	for range writers {
		wg.Go(func() {
			for {
				i := next.Add(1)
				if i > int64(n) {
					return
				}
				e := entry(int(i))
				e.Tenant, e.Trace = fmt.Sprintf("tenant%d", i*7919%36100), fmt.Sprintf("01J%020d", i)
				if _, err := d.l.Append(d.Context(), e); err != nil {
					d.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// TestMillion grows a log to a million entries and holds what it costs against
// what it may: appending as fast as at the start, verify in a minute, a proof
// in 50 ms, opening in no time. It runs when it is asked for.
func TestMillion(t *testing.T) {
	if os.Getenv("SALLYPORT_CHAOS") == "" && os.Getenv("SALLYPORT_BENCH") == "" {
		t.Skip("set SALLYPORT_BENCH=1 for a ledger of a million entries")
	}
	d := newDesk(t, store.Config{Dir: t.TempDir()})
	rate := func() float64 {
		began := time.Now()
		d.writers(20, 30_000)
		return 30_000 / time.Since(began).Seconds()
	}
	empty := rate()
	began := time.Now()
	for n := int(d.l.Size()); n < million; n += 2000 {
		some := make([]Entry, 2000)
		for i := range some {
			some[i] = entry(n + i)
			some[i].Tenant, some[i].Trace = fmt.Sprintf("tenant%d", (n+i)*7919%36100), fmt.Sprintf("01K%020d", n+i)
		}
		d.append(some...)
		if n%100_000 < 2000 {
			d.sign()
		}
	}
	t.Logf("filled with %.0f entries/s", float64(million)/time.Since(began).Seconds())
	full := rate()
	t.Logf("20 writers: %.0f entries/s at 0, %.0f at a million", empty, full)
	if full < empty*0.6 {
		t.Error("appending is not flat")
	}
	anchor := d.sign()
	began = time.Now()
	d.open()
	t.Log("opened in", time.Since(began))
	began = time.Now()
	const proofs = 200
	for i := range int64(proofs) {
		if _, err := d.l.Prove(t.Context(), i*4999); err != nil {
			t.Fatal(err)
		}
	}
	one := time.Since(began) / proofs
	t.Log("a proof takes", one)
	if one > 50*time.Millisecond {
		t.Error("a proof takes", one)
	}
	began = time.Now()
	found, err := d.l.Search(t.Context(), Filter{Tenant: "tenant7919"})
	if err != nil || len(found) < 25 {
		t.Error(len(found), err)
	}
	t.Logf("%d entries of one of 36,100 tenants found in %v", len(found), time.Since(began))
	d.verifyMillion(anchor)
}

// verifyMillion exports and verifies, one feeding the other.
func (d *desk) verifyMillion(anchor Checkpoint) {
	began := time.Now()
	in, out := io.Pipe()
	go func() { out.CloseWithError(d.l.Export(d.Context(), out)) }()
	r, err := audit.Verify(in, audit.Options{Keys: []string{d.key}, Anchor: anchor.Note})
	took := time.Since(began)
	if err != nil || !r.OK || !r.Anchored || r.Entries < million {
		d.Errorf("%+v %v", r, err)
	}
	d.Logf("exported and verified %d entries in %v", r.Entries, took)
	if took > time.Minute {
		d.Error("verify took", took)
	}
	began = time.Now()
	export := d.export()
	d.Logf("the export has %d bytes and takes %v", len(export), time.Since(began))
	began = time.Now()
	if _, err := audit.Verify(bytes.NewReader(export), audit.Options{Keys: []string{d.key}}); err != nil {
		d.Error(err)
	}
	d.Log("verify alone takes", time.Since(began))
}
