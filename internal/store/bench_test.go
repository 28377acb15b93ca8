package store_test

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/sallyport-mail/sallyport/internal/store"
)

const benchWriters = 20

// BenchmarkCommit10K is the road's durable write alone: 20 writers, bodies of
// 10 KB in rows.
func BenchmarkCommit10K(b *testing.B) { benchCommit(b, 10<<10, 0, false) }

// BenchmarkCommitDrop10K drops each body in a second commit, as a delivery
// does.
func BenchmarkCommitDrop10K(b *testing.B) { benchCommit(b, 10<<10, 0, true) }

// BenchmarkRowLimit compares bodies as rows and as files: where files become
// cheaper is the default of Config.RowLimit.
func BenchmarkRowLimit(b *testing.B) {
	for _, size := range []int{16 << 10, 32 << 10, 64 << 10, 100 << 10} {
		b.Run(fmt.Sprintf("%dK/row", size>>10), func(b *testing.B) { benchCommit(b, size, size, true) })
		b.Run(fmt.Sprintf("%dK/file", size>>10), func(b *testing.B) { benchCommit(b, size, 1, true) })
	}
}

func benchCommit(b *testing.B, size, limit int, drop bool) {
	s, err := store.Open(b.Context(), store.Config{Dir: b.TempDir(), RowLimit: limit})
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

// BenchmarkRead10K is reading a body back for its delivery.
func BenchmarkRead10K(b *testing.B) {
	s, err := store.Open(b.Context(), store.Config{Dir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	var refs []store.BodyRef
	for range 1000 {
		refs = append(refs, mustKeep(b, s, "acme", 10<<10))
	}
	b.ReportAllocs()
	before := cpu()
	for i := 0; b.Loop(); i++ {
		if _, err := s.Bodies.Read(b.Context(), refs[i%len(refs)]); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64((cpu()-before).Microseconds())/float64(b.N), "cpu-µs/msg")
}
