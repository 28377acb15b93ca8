package deliver

import (
	"context"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/mail"
	"github.com/sallyport-mail/sallyport/internal/mailauth/dns"
	"github.com/sallyport-mail/sallyport/internal/queue"
	"github.com/sallyport-mail/sallyport/internal/testpeer"
)

func TestDeliversAndReuses(t *testing.T) {
	sink := testpeer.StartSink(t, testpeer.SinkRules{})
	b := newBook()
	b.set("d", sink.Addr)
	q := newDesk()
	for i := range 200 {
		q.add(item(fmt.Sprint(i), "acme", "d", "x", "y"))
	}
	run(t, q, b, nil)
	for _, o := range q.wait(t, 200) {
		if o.Whole != nil || len(o.Replies) != 2 || o.Replies[0].Code != 250 || o.Stage != "data" {
			t.Fatalf("item %s: %+v", o.Item.ID, o.Attempt)
		}
		if o.Peer != "mx1.test ["+strings.Replace(sink.Addr, ":", "]:", 1) || o.TLS != nil || o.At.IsZero() {
			t.Fatalf("item %s: peer %q, TLS %v, at %v", o.Item.ID, o.Peer, o.TLS, o.At)
		}
	}
	seen := map[string]int{}
	for _, m := range sink.Messages() {
		text := string(m.Data)
		if !strings.HasPrefix(text, "Received: by us\r\nSubject: ") || !strings.HasSuffix(text, "\r\n.dot\r\n") {
			t.Fatalf("the sink got %q", text)
		}
		seen[text]++
		if m.Hello != "out.test" {
			t.Fatalf("EHLO %s", m.Hello)
		}
	}
	if len(seen) != 200 {
		t.Errorf("%d different messages arrived", len(seen))
	}
	if n := sink.Conns(); n > q.width {
		t.Errorf("%d connections for %d slots", n, q.width)
	}
	if len(b.health) != 1 || !*b.health[0].OK {
		t.Errorf("health was told %d times: %+v", len(b.health), b.health)
	}
	if len(b.sizes) != sink.Conns() {
		t.Errorf("what the far end offers was told %d times", len(b.sizes))
	}
}

func TestPerConnection(t *testing.T) {
	sink := testpeer.StartSink(t, testpeer.SinkRules{})
	b, q := newBook(), newDesk()
	b.set("d", sink.Addr)
	q.width = 1
	for i := range 10 {
		q.add(item(fmt.Sprint(i), "acme", "d"))
	}
	run(t, q, b, func(c *Config) { c.PerConnection = 3 })
	q.wait(t, 10)
	if n := sink.Conns(); n != 4 {
		t.Errorf("%d connections for 10 messages, 3 on each", n)
	}
}

// A slot that is given back and taken again finds its connection.
func TestIdleConnectionIsFound(t *testing.T) {
	sink := testpeer.StartSink(t, testpeer.SinkRules{})
	b, q := newBook(), newDesk()
	b.set("d", sink.Addr)
	run(t, q, b, nil)
	for i := range 3 {
		q.add(item(fmt.Sprint(i), "acme", "d"))
		q.wait(t, i+1)
		q.await(t.Context(), func() bool { return q.open["d"] == 0 })
	}
	if n := sink.Conns(); n != 1 {
		t.Errorf("%d connections for 3 messages, one after the other", n)
	}
}

func TestRepliesAreScripted(t *testing.T) {
	script := map[string]*mail.Reply{
		"nobody": {Code: 550, Enhanced: "5.1.1", Text: "no such user"},
		"full":   {Code: 452, Enhanced: "4.2.2", Text: "mailbox full"},
	}
	sink := testpeer.StartSink(t, testpeer.SinkRules{
		Rcpt: func(to mail.Recipient) *mail.Reply { return script[to.Local] },
		Mail: func(from mail.Address) *mail.Reply {
			if from.Local == "unwanted" {
				return &mail.Reply{Code: 550, Enhanced: "5.7.1", Text: "not you"}
			}
			return nil
		},
		Dot: func(m testpeer.Received) *mail.Reply {
			if len(m.To) == 3 {
				return &mail.Reply{Code: 554, Enhanced: "5.6.0", Text: "not that"}
			}
			return nil
		},
		MaxSize: 100000,
	})
	b, q := newBook(), newDesk()
	b.set("d", sink.Addr)
	large := item("large", "acme", "d")
	large.Size = 100001
	q.add(item("mixed", "acme", "d", "good", "nobody", "full", "fine"), item("refused", "acme", "d", "nobody", "full"),
		item("sender", "unwanted", "d"), item("content", "acme", "d", "a", "b", "c"), large)
	done := item("second", "acme", "d", "good", "nobody", "fine")
	done.Recipients[1].State = "failed"
	q.add(done)
	run(t, q, b, nil)
	got := map[string]string{}
	for _, o := range q.wait(t, 6) {
		text := o.Stage + ":"
		if o.Whole != nil {
			text += " all " + o.Whole.String()
		}
		for _, r := range o.Replies {
			text += " " + r.String()
		}
		got[o.Item.ID] = text
	}
	for id, want := range map[string]string{
		"mixed":   "data: 250 2.0.0 kept by the sink 550 5.1.1 no such user 452 4.2.2 mailbox full 250 2.0.0 kept by the sink",
		"refused": "rcpt: 550 5.1.1 no such user 452 4.2.2 mailbox full",
		"sender":  "mail: all 550 5.7.1 not you",
		"content": "data: all 554 5.6.0 not that",
		"second":  "data: 250 2.0.0 kept by the sink 250 2.0.0 kept by the sink",
	} {
		if got[id] != want {
			t.Errorf("%s:\ngot  %s\nwant %s", id, got[id], want)
		}
	}
	if s := got["large"]; !strings.HasPrefix(s, "mail: all 552 5.3.4 the message has 100001 bytes, mx1.test [") {
		t.Errorf("large: %s", s)
	}
	if n := sink.Conns(); n > q.width+1 { // "sender" is another tenant's
		t.Errorf("refusals cost connections: %d", n)
	}
}

// The final dot of a message is not sent while the 250 before it on the same
// connection is unrecorded.
func TestOneUnrecorded(t *testing.T) {
	rogue := testpeer.StartRogue(t, testpeer.Fault{})
	b, q := newBook(), newDesk(item("1", "acme", "d"), item("2", "acme", "d"))
	b.set("d", rogue.Addr)
	q.width = 1
	hold := make(chan struct{})
	q.report = func(it *queue.Item, _ queue.Attempt) error {
		if it.ID == "1" {
			<-hold
		}
		return nil
	}
	run(t, q, b, nil)
	for n := 0; n < 2; {
		if e := <-rogue.Events(); e == "1 data" {
			n++
		}
	}
	// The second DATA was answered with 354, and the report is still held.
	if n := rogue.Dots(); n != 1 {
		t.Errorf("%d messages were ended while the first was unrecorded", n)
	}
	close(hold)
	q.wait(t, 2)
	if rogue.Dots() != 2 || rogue.Conns() != 1 {
		t.Errorf("%d messages over %d connections", rogue.Dots(), rogue.Conns())
	}
}

// The same over many messages and connections: at each dot, everything that
// was answered before on that connection is recorded.
func TestOneUnrecordedAlways(t *testing.T) {
	var mu sync.Mutex
	unrecorded := map[string]string{} // by subject, the connection
	answered := map[string]int{}      // by connection
	sink := testpeer.StartSink(t, testpeer.SinkRules{Dot: func(m testpeer.Received) *mail.Reply {
		mu.Lock()
		defer mu.Unlock()
		if n := answered[m.Conn]; n > 0 {
			t.Errorf("a dot came on connection %s with %d unrecorded before it", m.Conn, n)
		}
		subject, _, _ := strings.Cut(strings.Split(string(m.Data), "Subject: ")[1], "\r")
		unrecorded[subject] = m.Conn
		answered[m.Conn]++
		return nil
	}})
	b, q := newBook(), newDesk()
	b.set("d", sink.Addr)
	for i := range 300 {
		q.add(item(fmt.Sprint(i), "acme", "d"))
	}
	q.report = func(it *queue.Item, _ queue.Attempt) error {
		mu.Lock()
		defer mu.Unlock()
		answered[unrecorded[it.ID]]--
		return nil
	}
	run(t, q, b, nil)
	q.wait(t, 300)
}

// While outcomes cannot be recorded hardly anything is sent, nothing over a
// connection that owes a record, and all of it when they can again.
func TestUnrecordedHoldsBack(t *testing.T) {
	sink := testpeer.StartSink(t, testpeer.SinkRules{})
	b, q := newBook(), newDesk()
	b.set("d", sink.Addr)
	for i := range 50 {
		q.add(item(fmt.Sprint(i), "acme", "d"))
	}
	var away atomic.Bool
	away.Store(true)
	failed := make(chan struct{}, 100)
	q.report = func(_ *queue.Item, a queue.Attempt) error {
		if away.Load() && !a.Skipped {
			failed <- struct{}{}
			return fault.New(fault.Later, "store.Change", "the disk is full")
		}
		return nil
	}
	run(t, q, b, nil)
	for range q.width + 1 { // the slots that had begun, and a probe
		<-failed
	}
	if n := len(sink.Messages()); n > 2*q.width+1 {
		t.Errorf("%d messages were delivered without a record", n)
	}
	conns := map[string]bool{}
	for _, m := range sink.Messages() {
		if conns[m.Conn] {
			t.Errorf("connection %s was used again though its last outcome is not recorded", m.Conn)
		}
		conns[m.Conn] = true
	}
	away.Store(false)
	sink.Wait(t, 50, 30*time.Second)
}

func TestBodies(t *testing.T) {
	sink := testpeer.StartSink(t, testpeer.SinkRules{})
	b, q := newBook(), newDesk()
	b.set("d", sink.Addr)
	q.width = 1
	closed := 0
	body := func(r io.Reader) func() (io.ReadCloser, error) {
		return func() (io.ReadCloser, error) { return closer{r, &closed}, nil }
	}
	q.bodies = map[string]func() (io.ReadCloser, error){
		"streamed": body(strings.NewReader("Subject: s\r\n\r\n" + strings.Repeat("x\r\n", 100000))),
		"missing":  func() (io.ReadCloser, error) { return nil, fault.New(fault.Missing, "store.Open", "no such body") },
		"broken":   body(io.MultiReader(strings.NewReader("Subject: b\r\n"), brokenReader{})),
		"bare":     body(strings.NewReader("Subject: c\r\n\r\nsmuggled\n.\r\nMAIL\r\n")),
	}
	for _, id := range []string{"streamed", "missing", "broken", "bare", "last"} {
		q.add(item(id, "acme", "d"))
	}
	run(t, q, b, nil)
	for _, o := range q.wait(t, 5) {
		got := fmt.Sprint(o.Replies)
		if o.Whole != nil {
			got = o.Whole.String()
		}
		want := map[string]string{
			"missing": "451 4.3.0 the stored message could not be read here: no such body",
			"broken":  "451 4.3.0 the stored message could not be read here: the disk is broken",
			"bare":    "550 5.6.0 the stored message has a bare CR or LF, which cannot be sent on safely",
		}[o.Item.ID]
		if want == "" {
			want = "[250 2.0.0 kept by the sink]"
		}
		if got != want {
			t.Errorf("%s: %s", o.Item.ID, got)
		}
	}
	if n := len(sink.Messages()); n != 2 {
		for _, m := range sink.Messages() {
			t.Errorf("the sink kept %d messages: %.100q", n, m.Data)
		}
	}
	if closed != 3 {
		t.Errorf("%d bodies were closed", closed)
	}
}

type closer struct {
	io.Reader
	closed *int
}

func (c closer) Close() error { *c.closed++; return nil }

type brokenReader struct{}

func (brokenReader) Read([]byte) (int, error) {
	return 0, fault.New(fault.Internal, "store.Read", "the disk is broken")
}

func TestHostCeiling(t *testing.T) {
	var now, most atomic.Int32
	sink := testpeer.StartSink(t, testpeer.SinkRules{
		Dot: func(testpeer.Received) *mail.Reply {
			if n := now.Add(1); n > most.Load() {
				most.Store(n)
			}
			time.Sleep(time.Millisecond) // a server that takes its time
			now.Add(-1)
			return nil
		},
	})
	b, q := newBook(), newDesk()
	for i := range 6 {
		destination := fmt.Sprint("d", i)
		b.set(destination, sink.Addr)
		for j := range 10 {
			q.add(item(fmt.Sprint(i, ".", j), fmt.Sprint("t", i), destination))
		}
	}
	d := run(t, q, b, func(c *Config) { c.HostCeiling = 2 })
	q.wait(t, 60)
	if n := most.Load(); n > 2 {
		t.Errorf("%d transactions at a time", n)
	}
	if q.skips > 200 {
		t.Errorf("items were given back %d times", q.skips)
	}
	d.stop()
	<-d.done
	for address, h := range d.ceiling.hosts {
		if h.open != 0 {
			t.Errorf("%d places at %s are still taken after the end", h.open, address)
		}
	}
}

// Of a host that says nothing only a few connections wait for an answer, and
// the slots of the others are given back.
func TestSilentHostTakesFewSlots(t *testing.T) {
	rogue := testpeer.StartRogue(t, testpeer.Fault{Stage: testpeer.AtMail, Do: testpeer.Hang})
	b, q := newBook(), newDesk()
	b.set("d", rogue.Addr)
	q.width = 20
	for i := range 20 {
		q.add(item(fmt.Sprint(i), "acme", "d"))
	}
	d := build(quietConfig(), q, b, fewTenants{})
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx, 10*time.Millisecond) }()
	if !q.await(t.Context(), func() bool { return q.skips >= 20 }) {
		t.Fatal("no slot was given back")
	}
	if n := rogue.Conns(); n > firstConnections {
		t.Errorf("%d connections wait for a host that is silent", n)
	}
	stop()
	must(t, <-ended)
}

func TestUnresolved(t *testing.T) {
	b, q := newBook(), newDesk(item("1", "acme", "d"))
	b.breaks(fault.New(fault.Never, "connection.Candidates", "b.test does not exist"))
	run(t, q, b, nil)
	o := q.wait(t, 1)[0]
	if o.Stage != "resolve" || o.Whole.String() != "550 5.1.2 b.test does not exist" {
		t.Errorf("stage %s: %v", o.Stage, o.Whole)
	}
	_, null := dns.Hosts(t.Context(), dns.Fake{MXs: map[string][]dns.MX{"b.test": {{Host: "."}}}}, "b.test")
	b.breaks(fault.Wrap(fault.Never, "connection.Candidates", null))
	q.add(item("2", "acme", "e"))
	o = q.wait(t, 2)[1]
	if o.Stage != "resolve" || o.Whole.String() != "556 5.1.10 b.test takes no mail: it has a null MX (RFC 7505)" {
		t.Errorf("stage %s: %v", o.Stage, o.Whole)
	}
	b.breaks(fault.New(fault.Later, "connection.Candidates", "no answer from the name server"))
	q.add(item("3", "acme", "f"))
	o = q.wait(t, 3)[2]
	if o.Stage != "resolve" || o.Whole.Code != 0 || o.Whole.Text != "no answer from the name server" {
		t.Errorf("stage %s: %v", o.Stage, o.Whole)
	}
}
