package deliver

import (
	"context"
	"fmt"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/sallyport-mail/sallyport/internal/queue"
	"github.com/sallyport-mail/sallyport/internal/testpeer"
)

// counter is a work that costs nothing: it hands out b.N items and counts.
type counter struct {
	*desk
	mu   sync.Mutex
	left int
	done sync.WaitGroup
	body []byte
	proto
}

type proto struct{ item *queue.Item }

func (c *counter) Slot(ctx context.Context) (slot, error) {
	c.desk.mu.Lock()
	open := c.open["d"]
	c.open["d"]++
	c.desk.mu.Unlock()
	if open >= 20 {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return &counterSlot{c}, nil
}

type counterSlot struct{ *counter }

func (s *counterSlot) Next(ctx context.Context, _ time.Duration) (*queue.Item, bool) {
	s.mu.Lock()
	s.left--
	more := s.left >= 0
	s.mu.Unlock()
	if !more {
		<-ctx.Done()
		return nil, false
	}
	it := *s.item
	return &it, true
}

func (s *counterSlot) Release() {}

func (c *counter) Bytes(*queue.Item) []byte { return c.body }

func (c *counter) Report(_ context.Context, _ *queue.Item, a queue.Attempt) error {
	if a.Whole != nil || a.Skipped {
		panic(fmt.Sprint(a))
	}
	time.Sleep(time.Millisecond) // about what a commit takes
	c.done.Done()
	return nil
}

// BenchmarkDeliver10K is the way out alone: 20 connections to smtp-sink, 10 KB
// each. cpu-µs/op is this process's processor time.
func BenchmarkDeliver10K(b *testing.B) {
	sink := testpeer.StartSMTPSink(b, false)
	book := newBook()
	book.set("d", sink.Addr)
	c := &counter{desk: newDesk(), left: b.N, body: make([]byte, 0, 10240)}
	for len(c.body) < 10240 {
		c.body = append(c.body, "0123456789012345678901234567890123456789012345678901234567890\r\n"...)
	}
	c.item = item("1", "acme", "d")
	c.item.Size = int64(len(c.body))
	c.done.Add(b.N)
	cfg := quietConfig()
	d := build(cfg, c, book, fewTenants{})
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan struct{})
	b.ReportAllocs()
	begun := cpu(b)
	b.ResetTimer()
	go func() { defer close(ended); d.Run(ctx, time.Second) }()
	c.done.Wait()
	b.StopTimer()
	b.ReportMetric(float64((cpu(b)-begun).Microseconds())/float64(b.N), "cpu-µs/op")
	stop()
	<-ended
}

func cpu(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
