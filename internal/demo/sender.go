package demo

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sallyport-mail/sallyport/internal/mail"
	"github.com/sallyport-mail/sallyport/internal/smtp"
)

// acks is what the gateway answered with 250, and when.
type acks struct {
	mu    sync.Mutex
	at    map[copyKey]time.Time
	count atomic.Int64 // messages
}

func newAcks() *acks { return &acks{at: map[copyKey]time.Time{}} }

func (l *acks) note(keys []copyKey) {
	now := time.Now()
	l.mu.Lock()
	for _, k := range keys {
		l.at[k] = now
	}
	l.mu.Unlock()
	l.count.Add(1)
}

func (l *acks) messages() int { return int(l.count.Load()) }

func (l *acks) copies() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.at)
}

func (l *acks) all() map[copyKey]time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return maps.Clone(l.at)
}

// sendAll lets the senders work until every message has been answered with 250.
func (r *run) sendAll(ctx context.Context) error {
	work := make(chan int)
	errs := make(chan error, r.Senders)
	var wg sync.WaitGroup
	for i := range r.Senders {
		wg.Go(func() {
			s := sender{run: r, rand: rand.New(rand.NewPCG(uint64(i), 7))}
			defer s.hangUp()
			for n := range work {
				if err := s.deliver(ctx, n); err != nil {
					errs <- err
					return
				}
			}
		})
	}
	var err error
	for n := 0; n < r.Messages && err == nil; n++ {
		select {
		case work <- n:
		case err = <-errs:
		case <-ctx.Done():
			err = ctx.Err()
		}
	}
	close(work)
	wg.Wait()
	select {
	case e := <-errs:
		err = errors.Join(err, e)
	default:
	}
	return err
}

// sender is one mail server of the outside world. It behaves as one: what was
// not answered with 250 is tried again.
type sender struct {
	run    *run
	rand   *rand.Rand
	client *smtp.Client
	used   int
}

// deliver sends message n until it is answered with 250.
func (s *sender) deliver(ctx context.Context, n int) error {
	env, body, keys := compose(n, s.rand)
	deadline := time.Now().Add(30 * time.Second)
	for {
		err := s.try(ctx, env, body)
		if err == nil {
			s.run.sent.note(keys)
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("message %d was not accepted: %w", n, err)
		}
		if err := pause(ctx, 20*time.Millisecond); err != nil {
			return err
		}
	}
}

// try runs one transaction; a connection is used for a few messages, as real
// senders do.
func (s *sender) try(ctx context.Context, env mail.Envelope, body []byte) error {
	if s.client == nil {
		c, err := smtp.Dial(ctx, smtp.Target{Address: s.run.gateway.smtp, Hello: "sender.example.org"})
		if err != nil {
			return err
		}
		s.client, s.used = c, 0
	}
	res, err := s.client.Send(ctx, env, smtp.Content{Bytes: body, Size: int64(len(body))}, nil)
	s.used++
	if err != nil || s.used > 1+s.rand.IntN(8) {
		defer s.hangUp()
	}
	switch {
	case err != nil:
		return err
	case len(res.Data) != 1 || res.Data[0].Code != 250:
		return fmt.Errorf("answered %v", res)
	}
	for _, reply := range res.Rcpt {
		if !reply.Positive() {
			return fmt.Errorf("recipient answered %v", reply)
		}
	}
	return nil
}

func (s *sender) hangUp() {
	if s.client != nil {
		s.client.Close()
		s.client = nil
	}
}
