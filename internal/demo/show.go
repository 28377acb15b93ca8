package demo

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// show prints a line of live figures a few times a second, until stopped.
func (r *run) show(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		last, at := 0, time.Now()
		for pause(ctx, 400*time.Millisecond) == nil {
			counts, n := r.post.counts()
			rate := float64(n-last) / time.Since(at).Seconds()
			last, at = n, time.Now()
			fmt.Fprintln(r.Progress, r.line(ctx, counts, rate))
		}
	}()
	return sync.OnceFunc(func() { cancel(); <-done })
}

func (r *run) line(ctx context.Context, counts map[string]int, rate float64) string {
	queue := "gateway down"
	if s, err := r.gateway.status(ctx); err == nil {
		queue = fmt.Sprintf("queue %4d, in flight %3d", s.Queue.Queued, s.Queue.InFlight)
	}
	parts := make([]string, 0, len(counts))
	for _, region := range regions() {
		parts = append(parts, fmt.Sprintf("%s %d", region, counts[region]))
	}
	return fmt.Sprintf("%5.1f s  accepted %5d  %6.0f/s  %s  delivered: %s",
		time.Since(r.started).Seconds(), r.sent.messages(), rate, queue, strings.Join(parts, ", "))
}

// count compares what was answered with 250 with what the mailboxes hold.
func (r *run) count(v *Verdict) {
	acks, arrived := r.sent.all(), r.post.arrived()
	v.Sent = len(acks)
	var delays []time.Duration
	var last time.Time
	for k, acked := range acks {
		got := arrived[k]
		if len(got) == 0 {
			v.Lost++
			continue
		}
		v.Delivered++
		v.Duplicated += len(got) - 1
		// The mailbox can have it before the sender has read our 250.
		delays = append(delays, max(0, got[0].Sub(acked)))
		if got[0].After(last) {
			last = got[0]
		}
	}
	v.P50MS, v.P99MS = percentile(delays, 50), percentile(delays, 99)
	if d := last.Sub(r.started).Seconds(); d > 0 {
		v.Rate = float64(int(float64(v.Delivered)/d*10)) / 10
	}
}

// percentile is in milliseconds, to a tenth.
func percentile(d []time.Duration, p int) float64 {
	if len(d) == 0 {
		return 0
	}
	slices.Sort(d)
	i := min(len(d)-1, len(d)*p/100)
	return float64(d[i].Microseconds()/100) / 10
}

// tell prints the verdict for people.
func (r *run) tell(v Verdict) {
	word := "every message answered with 250 is in its mailbox"
	if v.Lost > 0 {
		word = "MAIL WAS LOST"
	}
	fmt.Fprintf(r.Progress, `
counted in the mailboxes
  sent        %6d copies of %d messages, answered with 250
  delivered   %6d
  lost        %6d
  duplicated  %6d   (unacknowledged at the kill, sent again)
  delay       p50 %.1f ms, p99 %.1f ms (kill and changes of identity included)
  rate        %.0f a second
%s
`, v.Sent, r.Messages, v.Delivered, v.Lost, v.Duplicated, v.P50MS, v.P99MS, v.Rate, word)
	for _, c := range []struct {
		Change
		word string
	}{{v.Replaced, "replaced"}, {v.Compromised, "called stolen"}} {
		t := tenantNamed(c.Tenant)
		fmt.Fprintf(r.Progress, "\n%s, %s: its mail came as %s\n", c.Tenant, c.word, strings.Join(r.post.names(t), ", then "))
		if !c.Refused {
			fmt.Fprintf(r.Progress, "  THE OLD NAME %s IS STILL ACCEPTED\n", c.From)
		}
	}
	verified := "verified from their exports alone"
	if !v.LedgerOK {
		verified = "DO NOT VERIFY"
	}
	fmt.Fprintf(r.Progress, "\nledgers: %d entries in %d regions, %s\n", v.LedgerEntries, len(regions()), verified)
}
