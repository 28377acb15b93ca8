package queue

import (
	"bytes"
	"context"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/sallyport-mail/sallyport/internal/mail"
	"github.com/sallyport-mail/sallyport/internal/store"
	"github.com/sallyport-mail/sallyport/internal/trace"
)

func cpuTime() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkPutReport10K is the road without its wire: 20 writers put messages
// of 10 KB, 20 deliverers take and report them, with the trace behind.
func BenchmarkPutReport10K(b *testing.B) {
	s, err := store.Open(b.Context(), store.Config{Dir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	log, err := trace.New(trace.Config{Road: s.Road, Trace: s.Trace})
	if err != nil {
		b.Fatal(err)
	}
	q, err := New(b.Context(), Config{Store: s, Trace: log})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.Context())
	var rooms, writers, deliverers sync.WaitGroup
	rooms.Go(func() { q.Run(ctx) })
	rooms.Go(func() { log.Run(ctx) })
	text := bytes.Repeat([]byte("0123456789012345678901234567890123456789012345678901234567890123456789012345678\r\n"), 125)
	var left, done atomic.Int64
	left.Store(int64(b.N))
	finished := make(chan struct{})
	b.ResetTimer()
	cpu := cpuTime()
	for range 20 {
		writers.Go(func() {
			for left.Add(-1) >= 0 {
				if err := putOne(ctx, s, q, text); err != nil {
					b.Error(err)
					return
				}
			}
		})
		deliverers.Go(func() {
			for {
				slot, err := q.Slot(ctx)
				if err != nil {
					return
				}
				for {
					it, ok := slot.Next(ctx, 5*time.Second)
					if !ok {
						break
					}
					if err := q.Report(ctx, it, Attempt{Stage: "sent", Peer: "mx.example.net[192.0.2.1]", Replies: []mail.Reply{ok250}}); err != nil {
						b.Error(err)
					}
					if done.Add(1) == int64(b.N) {
						close(finished)
					}
				}
				slot.Release()
			}
		})
	}
	writers.Wait()
	<-finished
	if _, _, err := log.List(ctx, trace.Filter{Tenant: "acme", Limit: 1}); err != nil {
		b.Error(err)
	}
	b.ReportMetric(float64((cpuTime()-cpu).Microseconds())/float64(b.N), "cpu-µs/msg")
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msg/s")
	cancel()
	deliverers.Wait()
	rooms.Wait()
}

func putOne(ctx context.Context, s *store.Store, q *Queue, text []byte) error {
	body := s.Bodies.New()
	defer body.Discard()
	if _, err := body.Write(text); err != nil {
		return err
	}
	refs, err := body.Finish(ctx, "acme")
	if err != nil {
		return err
	}
	id := "<" + strconv.FormatUint(rand.Uint64(), 36) + "@sender.example.org>"
	peer, words := "sender.example.org[192.0.2.9]", "250 2.0.0 accepted"
	return q.Put(ctx, []Message{{
		Summary: trace.Message{Tenant: "acme", MessageID: id, Region: "us", Direction: "inbound",
			From: "someone@sender.example.org", To: []string{"else@acme.test"}, Subject: "An ordinary subject", Size: int64(len(text))},
		Steps: []trace.Step{{Time: time.Now(), Step: "received", Peer: &peer, Text: &words}},
		Body:  body, Ref: refs[0],
		Items: []Item{{
			Region: "us", Direction: "inbound", Destination: "acme/mailbox", Connection: "mailbox", Domain: "acme.test",
			From: mail.Address{Local: "someone", Domain: "sender.example.org"}, MessageID: id,
			Subject: "An ordinary subject", Prefix: bytes.Repeat([]byte("r"), 300),
			Recipients: []Recipient{{Recipient: mail.Recipient{Address: mail.Address{Local: "else", Domain: "acme.test"}}}},
		}},
	}})
}
