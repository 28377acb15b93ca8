package deliver

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-mail/sallyport/internal/mail"
	"github.com/sallyport-mail/sallyport/internal/testpeer"
)

// What is in DATA when the end comes is finished and recorded; what waits is
// left alone.
func TestEndFinishesWhatHasBegun(t *testing.T) {
	inDot, finish := make(chan struct{}), make(chan struct{})
	sink := testpeer.StartSink(t, testpeer.SinkRules{Dot: func(testpeer.Received) *mail.Reply {
		close(inDot)
		<-finish
		return nil
	}})
	b, q := newBook(), newDesk(item("1", "acme", "d"), item("2", "acme", "d"))
	b.set("d", sink.Addr)
	q.width = 1
	d := run(t, q, b, nil)
	<-inDot
	d.stop()
	select {
	case <-d.done:
		t.Fatal("it ended in the middle of a transaction")
	default:
	}
	close(finish)
	<-d.done
	o := q.wait(t, 1)
	if len(o) != 1 || o[0].Replies[0].Code != 250 {
		t.Errorf("outcomes: %+v", o)
	}
	if len(sink.Messages()) != 1 || len(q.items["d"]) != 1 {
		t.Errorf("%d messages arrived, %d wait", len(sink.Messages()), len(q.items["d"]))
	}
}

// When the grace is over a transaction is cut off; what may have been
// delivered is said to be so, what was not sent is given back.
func TestEndOfGrace(t *testing.T) {
	for _, c := range []struct{ stage, want string }{
		{testpeer.AtDot, "sent"},
		{testpeer.AtRcpt, ""},
	} {
		rogue := testpeer.StartRogue(t, testpeer.Fault{Stage: c.stage, Do: testpeer.Hang})
		b, q := newBook(), newDesk(item("1", "acme", "d"))
		b.set("d", rogue.Addr)
		d := build(quietConfig(), q, b, fewTenants{})
		ctx, stop := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- d.Run(ctx, 50*time.Millisecond) }()
		for e := range rogue.Events() {
			if e == "1 "+c.stage {
				break
			}
		}
		begun := time.Now()
		stop()
		<-done
		if took := time.Since(begun); took > 3*time.Second {
			t.Errorf("%s: the end took %v", c.stage, took)
		}
		switch {
		case c.want == "" && (q.skips != 1 || len(q.outcomes) != 0):
			t.Errorf("%s: given back %d times, outcomes %+v", c.stage, q.skips, q.outcomes)
		case c.want != "" && (len(q.outcomes) != 1 || q.outcomes[0].Stage != c.want || !strings.Contains(q.outcomes[0].Whole.Text, "may have been delivered")):
			t.Errorf("%s: outcomes %+v", c.stage, q.outcomes)
		}
	}
}
