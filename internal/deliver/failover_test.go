package deliver

import (
	"fmt"
	"net"
	"strings"
	"testing"

	"github.com/sallyport-mail/sallyport/internal/testpeer"
)

// nobody is an address where nobody listens.
func nobody(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func TestFailOver(t *testing.T) {
	for _, c := range []struct {
		name  string
		fault testpeer.Fault // of the first host; none: it is not there
		note  string
	}{
		{"not there", testpeer.Fault{}, "connect: connect: connection refused"},
		{"554 greeting", testpeer.Fault{Stage: testpeer.AtGreeting, Do: testpeer.Answer, Reply: "554 5.3.2 not here"}, "greeting: 554 5.3.2 not here"},
		{"EHLO refused", testpeer.Fault{Stage: testpeer.AtHello, Do: testpeer.Answer, Reply: "421 4.7.0 too busy"}, "hello: 421 4.7.0 too busy"},
		{"421 to MAIL", testpeer.Fault{Stage: testpeer.AtMail, Do: testpeer.Answer, Reply: "421 4.3.2 going"}, "mail: 421 4.3.2 going"},
		{"closes at RCPT", testpeer.Fault{Stage: testpeer.AtRcpt, Do: testpeer.Hangup}, "rcpt: "},
		{"silent", testpeer.Fault{Stage: testpeer.AtGreeting, Do: testpeer.Hang}, "greeting: no answer in the time"},
	} {
		t.Run(c.name, func(t *testing.T) {
			first := nobody(t)
			if c.fault.Do != "" {
				first = testpeer.StartRogue(t, c.fault).Addr
			}
			sink := testpeer.StartSink(t, testpeer.SinkRules{})
			b, q := newBook(), newDesk(item("1", "acme", "d"))
			b.set("d", first, sink.Addr)
			b.hasten(c.fault.Stage)
			q.width = 1
			d := run(t, q, b, func(c *Config) { c.PerConnection = 1 })
			o := q.wait(t, 1)[0]
			if o.Replies[0].Code != 250 || !strings.HasPrefix(o.Peer, "mx2.test [") {
				t.Fatalf("%+v at %s", o.Replies, o.Peer)
			}
			if text := o.Replies[0].Text; !strings.Contains(text, "kept by the sink\n(tried before: mx1.test [127.0.0.1]:") || !strings.Contains(text, c.note) {
				t.Errorf("the attempt says %q", text)
			}
			q.add(item("2", "acme", "d"))
			o = q.wait(t, 2)[1]
			if strings.Contains(o.Replies[0].Text, "tried before") {
				t.Errorf("the host that failed was tried again at once: %q", o.Replies[0].Text)
			}
			d.stop()
			<-d.done
		})
	}
}

func TestAllHostsFail(t *testing.T) {
	away := nobody(t)
	refuse := testpeer.Fault{Stage: testpeer.AtGreeting, Do: testpeer.Answer, Reply: "554 5.3.2 no mail here"}
	b, q := newBook(), newDesk(item("1", "acme", "d"), item("2", "acme", "only"))
	b.set("d", testpeer.StartRogue(t, refuse).Addr, away)
	// A host of its own: one that has just failed the other item comes last there.
	b.set("only", testpeer.StartRogue(t, refuse).Addr)
	run(t, q, b, nil)
	for _, o := range q.wait(t, 2) {
		if o.Item.ID == "2" {
			if o.Stage != "greeting" || o.Whole.String() != "554 5.3.2 no mail here" {
				t.Errorf("one host: stage %s, %v", o.Stage, o.Whole)
			}
			continue
		}
		text := o.Whole.Text
		if o.Stage != "connect" || o.Whole.Code != 0 || !strings.Contains(text, "greeting: 554 5.3.2 no mail here; mx2.test") || !strings.Contains(text, "connection refused") {
			t.Errorf("two hosts: stage %s, %v", o.Stage, o.Whole)
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.health) == 0 || *b.health[0].OK || b.health[0].Reason == nil {
		t.Errorf("health: %+v", b.health)
	}
}

// A server that ends a connection between messages has refused nothing.
func TestReusedConnectionEndsIsNoFailure(t *testing.T) {
	for _, fault := range []testpeer.Fault{
		{Stage: testpeer.AtMail, Do: testpeer.Hangup, From: 2},
		{Stage: testpeer.AtMail, Do: testpeer.Reset, From: 2},
		{Stage: testpeer.AtMail, Do: testpeer.Answer, Reply: "421 4.7.0 one message a connection", From: 2},
		{Stage: testpeer.AtRcpt, Do: testpeer.Answer, Reply: "421 4.7.0 one message a connection", From: 2},
		{Stage: testpeer.AtMail, Do: testpeer.Hang, From: 2},
	} {
		t.Run(fault.Do+" at "+fault.Stage, func(t *testing.T) {
			rogue := testpeer.StartRogue(t, fault)
			b, q := newBook(), newDesk()
			b.set("d", rogue.Addr)
			b.hasten(fault.Stage)
			q.width = 1
			for i := range 4 {
				q.add(item(fmt.Sprint(i), "acme", "d"))
			}
			run(t, q, b, nil)
			for _, o := range q.wait(t, 4) {
				if o.Whole != nil || o.Replies[0].Code != 250 || strings.Contains(o.Replies[0].Text, "tried") {
					t.Errorf("item %s: %+v %v", o.Item.ID, o.Attempt, o.Whole)
				}
			}
			if len(rogue.Messages()) != 4 || rogue.Conns() != 4 {
				t.Errorf("%d messages over %d connections", len(rogue.Messages()), rogue.Conns())
			}
		})
	}
}
