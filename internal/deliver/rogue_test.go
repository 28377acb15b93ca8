package deliver

import (
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-mail/sallyport/internal/queue"
	"github.com/sallyport-mail/sallyport/internal/testpeer"
)

// zeros is a large body that costs no memory.
type zeros struct{ at, size int }

func (z *zeros) Read(p []byte) (int, error) {
	const line = "0123456789012345678901234567890123456789012345678901234567890\r\n"
	n := 0
	for n < len(p) && z.at < z.size {
		c := copy(p[n:], line[z.at%len(line):])
		z.at += c
		n += c
	}
	if n == 0 {
		return 0, io.EOF
	}
	return n, nil
}

func (z *zeros) Close() error { return nil }

// Every misbehaviour at every stage: the attempt is recorded once, with the
// stage and in words, within the time allowed; the message stays, memory too.
func TestMisbehaviour(t *testing.T) {
	for _, stage := range testpeer.RogueStages() {
		for _, do := range testpeer.Misbehaviours() {
			t.Run(do+" at "+stage, func(t *testing.T) {
				t.Parallel()
				rogue := testpeer.StartRogue(t, testpeer.Fault{Stage: stage, Do: do})
				b, q := newBook(), newDesk(item("1", "acme", "d"))
				b.set("d", rogue.Addr)
				b.hasten(stage)
				if stage == testpeer.AtBody {
					q.bodies = map[string]func() (io.ReadCloser, error){
						"1": func() (io.ReadCloser, error) { return &zeros{size: 63 << 18}, nil }, // 16 MiB
					}
				}
				begun := time.Now()
				run(t, q, b, nil)
				o := q.wait(t, 1)[0]
				if d := time.Since(begun); d > 15*time.Second {
					t.Errorf("it took %v", d)
				}
				if do == testpeer.Reset && o.Stage == "connect" {
					o.Stage = testpeer.AtGreeting // the reset was faster than connect(2)
				}
				if want := stageOf(stage); o.Stage != want {
					t.Errorf("stage %q, want %q", o.Stage, want)
				}
				if o.Whole == nil || o.Whole.Positive() && o.Whole.Code != 0 || o.Whole.Text == "" || o.Peer == "" {
					t.Errorf("the attempt says %+v %v", o.Attempt, o.Whole)
				}
				if stage == testpeer.AtDot && !strings.Contains(o.Whole.Text, "may have been delivered") {
					t.Errorf("nobody is told that it may have been delivered: %v", o.Whole)
				}
				if len(rogue.Messages()) != 0 {
					t.Error("the rogue says 250 where it should not")
				}
			})
		}
	}
}

// stageOf is the queue's word for a rogue's stage.
func stageOf(stage string) string {
	switch stage {
	case testpeer.AtBody:
		return "data"
	case testpeer.AtDot:
		return "sent"
	default:
		return stage
	}
}

// A reply without end, again and again, costs no memory.
func TestEndlessRepliesCostNoMemory(t *testing.T) {
	for _, do := range []string{testpeer.Endless, testpeer.NoLine} {
		rogue := testpeer.StartRogue(t, testpeer.Fault{Stage: testpeer.AtRcpt, Do: do})
		b, q := newBook(), newDesk()
		b.set("d", rogue.Addr)
		for i := range 20 {
			q.add(item(fmt.Sprint(i), "acme", "d"))
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		run(t, q, b, nil)
		q.wait(t, 20)
		runtime.ReadMemStats(&after)
		if spent := after.TotalAlloc - before.TotalAlloc; spent > 80<<20 { // the rogue's own included
			t.Errorf("%s: 20 attempts allocated %d bytes", do, spent)
		}
	}
}

// What was never ended with a dot is never taken for sent, and what comes
// after the trouble is delivered.
func TestNothingIsLostAfterTrouble(t *testing.T) {
	for _, stage := range testpeer.RogueStages() {
		t.Run(stage, func(t *testing.T) {
			rogue := testpeer.StartRogue(t, testpeer.Fault{Stage: stage, Do: testpeer.Hangup, Conns: 2})
			b, q := newBook(), newDesk()
			b.set("d", rogue.Addr)
			for i := range 10 {
				q.add(item(fmt.Sprint(i), "acme", "d"))
			}
			q.report = func(it *queue.Item, a queue.Attempt) error {
				if a.Whole != nil {
					q.add(it) // as the queue does, later
				}
				return nil
			}
			run(t, q, b, nil)
			delivered := map[string]bool{}
			for n := 10; len(delivered) < 10; n++ {
				for _, o := range q.wait(t, n) {
					if o.Whole == nil {
						delivered[o.Item.ID] = true
					}
				}
			}
			if n := len(rogue.Messages()); n != 10 {
				t.Errorf("%d messages arrived", n)
			}
		})
	}
}

// A server that answers a reused connection's MAIL with silence is not tried
// again and again on old connections.
func TestUnsentKeepsItsWords(t *testing.T) {
	rogue := testpeer.StartRogue(t, testpeer.Fault{Stage: testpeer.AtMail, Do: testpeer.Answer, Reply: "421 4.3.2 maintenance until noon"})
	b, q := newBook(), newDesk(item("1", "acme", "d"))
	b.set("d", rogue.Addr)
	run(t, q, b, nil)
	o := q.wait(t, 1)[0]
	if o.Stage != "mail" || o.Whole.String() != "421 4.3.2 maintenance until noon" {
		t.Errorf("stage %s: %v", o.Stage, o.Whole)
	}
}

func TestWords(t *testing.T) {
	if got := words(errors.New("plain")); got != "plain" {
		t.Error(got)
	}
}
