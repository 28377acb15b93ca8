package store_test

import (
	"bytes"
	"context"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/sallyport-mail/sallyport/internal/store"
)

const benchWriters = 20

// BenchmarkCommit10K is the road's durable write alone: 20 writers, bodies of
// 10 KB in rows, each dropped by a second commit as a delivery would.
func BenchmarkCommit10K(b *testing.B)     { benchCommit(b, 10<<10, false) }
func BenchmarkCommitDrop10K(b *testing.B) { benchCommit(b, 10<<10, true) }
func BenchmarkCommit100K(b *testing.B)    { benchCommit(b, 100<<10, true) }

func benchCommit(b *testing.B, size int, drop bool) {
	s, err := store.Open(b.Context(), store.Config{Dir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	content := bytes.Repeat([]byte("0123456789abcdef"), size/16)
	work := make(chan int)
	var wg sync.WaitGroup
	b.ResetTimer()
	before, from := cpu(), time.Now()
	for range benchWriters {
		wg.Go(func() {
			for range work {
				if err := benchOne(b.Context(), s, content, drop); err != nil {
					b.Error(err)
				}
			}
		})
	}
	for i := range b.N {
		work <- i
	}
	close(work)
	wg.Wait()
	took := time.Since(from)
	b.ReportMetric(float64(b.N)/took.Seconds(), "msg/s")
	b.ReportMetric(float64((cpu()-before).Microseconds())/float64(b.N), "cpu-µs/msg")
	st := s.Stats()
	b.ReportMetric(float64(st.Changes)/float64(st.Commits), "changes/commit")
}

func benchOne(ctx context.Context, s *store.Store, content []byte, drop bool) error {
	body := s.Bodies.New()
	defer body.Discard()
	body.Write(content)
	refs, err := body.Finish(ctx, "acme")
	if err != nil {
		return err
	}
	err = s.Road.Road().Change(ctx, func(tx store.RoadTx) error { return tx.PutBody(body, refs[0]) })
	if err != nil || !drop {
		return err
	}
	return s.Road.Road().Change(ctx, func(tx store.RoadTx) error { return tx.DropBody(refs[0]) })
}

// cpu is the time this process has spent, in user and system.
func cpu() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
