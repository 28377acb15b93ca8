package test

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-mail/sallyport/internal/mail"
	"github.com/sallyport-mail/sallyport/internal/smtp"
	"github.com/sallyport-mail/sallyport/internal/testpeer"
)

// rogueTenant is a tenant whose mailbox misbehaves.
type rogueTenant struct {
	name, domain string
	rogue        *testpeer.Rogue
	sent         []string // sequence numbers
}

// badConns is how many connections a rogue spoils before it becomes honest.
const badConns = 2

// TestRogueDestinations has a tenant for every way in which a mailbox can
// misbehave, at every stage. Senders notice nothing, an honest tenant's mail
// flows, memory stays flat, and all arrives once the mailboxes behave.
func TestRogueDestinations(t *testing.T) {
	eachProcess(t, func(t *testing.T, p *process) {
		p.appendSettings("\n[delivery]\nreply_timeout_s = 2\n")
		sink := startForeignSink(t)
		p.start()
		p.tenant("honest", "us", "acme.test", sink.addr)
		rogues := startRogues(t, p)
		before := p.resident(t)
		for _, r := range rogues {
			r.send(t, p.smtp, 3)
		}
		honest := &load{addr: p.smtp, size: 10_000}
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		honest.run(ctx, 4)
		onlyReplies(t, honest, 250)
		verifyArrived(t, p, sink, honest.numbers(), 0)
		most := untilDelivered(t, p, rogues)
		t.Logf("%d rogues; resident: %d MiB before, at most %d MiB", len(rogues), before, most)
		if most > before+100 {
			t.Errorf("the gateway grew from %d to %d MiB", before, most)
		}
	})
}

func startRogues(t *testing.T, p *process) []*rogueTenant {
	t.Helper()
	var all []*rogueTenant
	for i, do := range testpeer.Misbehaviours() {
		for j, stage := range testpeer.RogueStages() {
			name := fmt.Sprintf("rogue-%d%d", i, j)
			all = append(all, &rogueTenant{name: name, domain: name + ".test",
				rogue: testpeer.StartRogue(t, testpeer.Fault{Stage: stage, Do: do, Conns: badConns})})
		}
	}
	for _, r := range all {
		p.addTenant(r.name, r.domain, r.rogue.Addr)
	}
	return all
}

// send hands the gateway messages for the tenant; each must be accepted.
func (r *rogueTenant) send(t *testing.T, addr string, n int) {
	t.Helper()
	c, err := smtp.Dial(t.Context(), smtp.Target{Address: addr, Hello: "sender.example.org"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for i := range n {
		seq := fmt.Sprintf("%s-%d", r.name, i)
		body := loadMessage(seq, 100_000)
		env := mail.Envelope{From: mail.Address{Local: "a", Domain: "example.org"},
			To: []mail.Recipient{{Address: mail.Address{Local: "b", Domain: r.domain}}}}
		res, err := c.Send(t.Context(), env, smtp.Content{Bytes: body, Size: int64(len(body))}, nil)
		if err != nil || len(res.Data) != 1 || res.Data[0].Code != 250 {
			t.Fatalf("a message for %s was not accepted: %+v, %v", r.name, res, err)
		}
		r.sent = append(r.sent, seq)
	}
}

// missing are the messages that have not come.
func (r *rogueTenant) missing() int {
	got := map[string]bool{}
	for _, m := range r.rogue.Messages() {
		seq, _, _ := readLoad(m.Data)
		got[seq] = true
	}
	return len(r.sent) - len(got)
}

// untilDelivered has destinations tried until all mail has come, and returns
// the most memory that the gateway had meanwhile.
func untilDelivered(t *testing.T, p *process, rogues []*rogueTenant) (most int) {
	t.Helper()
	deadline := time.Now().Add(90 * time.Second)
	left := rogues
	for len(left) > 0 && time.Now().Before(deadline) {
		var still []*rogueTenant
		for _, r := range left {
			if r.missing() > 0 {
				still = append(still, r)
			}
		}
		for _, r := range still {
			p.mustCall("POST", "/v1/destinations/resume", map[string]any{"destination": "t:" + r.name + ":mailbox"}, nil)
		}
		p.mustCall("POST", "/v1/queue/retry", map[string]any{"all": true}, nil)
		left = still
		most = max(most, p.resident(t))
		time.Sleep(200 * time.Millisecond)
	}
	for _, r := range left {
		t.Errorf("%s: %d messages did not come; %d connections\n%s", r.name, r.missing(), r.rogue.Conns(),
			p.must("queue", "list", "--tenant", r.name))
	}
	return most
}

// resident is the gateway's memory in MiB.
func (p *process) resident(t testing.TB) int { return p.status(t, "VmRSS:") }

// status is a figure of the kernel's, in MiB.
func (p *process) status(t testing.TB, field string) int {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), field)
	kb, err := strconv.Atoi(strings.Fields(rest)[0])
	if err != nil {
		t.Fatal(err)
	}
	return kb >> 10
}
