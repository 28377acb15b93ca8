package test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log"
	"maps"
	"math/rand/v2"
	"net"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	gosmtp "github.com/emersion/go-smtp"

	"github.com/sallyport-mail/sallyport/internal/mail"
	"github.com/sallyport-mail/sallyport/internal/smtp"
)

// chaos reports whether the long form was asked for.
func chaos() bool { return os.Getenv("SALLYPORT_CHAOS") != "" }

// foreignSink is a go-smtp server that counts messages by the sequence number
// in their Subject: not our code, so it shares none of our mistakes.
type foreignSink struct {
	addr  string
	delay time.Duration // before each reply to content
	mu    sync.Mutex
	got   map[string]int
	at    map[string]time.Time // of the first arrival
	bad   []string             // messages whose content is not what load sent
}

func startForeignSink(t testing.TB) *foreignSink { return startForeignSinkAt(t, "127.0.0.1:0") }

func startForeignSinkAt(t testing.TB, addr string) *foreignSink {
	t.Helper()
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	s := &foreignSink{addr: ln.Addr().String(), got: map[string]int{}, at: map[string]time.Time{}}
	server := gosmtp.NewServer(s)
	server.Domain = "sink.test"
	server.MaxMessageBytes = 64 << 20
	server.ErrorLog = log.New(io.Discard, "", 0) // killed gateways are what these tests are about
	go server.Serve(ln)
	t.Cleanup(func() { server.Close() })
	return s
}

func (s *foreignSink) NewSession(*gosmtp.Conn) (gosmtp.Session, error) { return sinkSession{s}, nil }

type sinkSession struct{ sink *foreignSink }

func (s sinkSession) Mail(string, *gosmtp.MailOptions) error { return nil }
func (s sinkSession) Rcpt(string, *gosmtp.RcptOptions) error { return nil }
func (s sinkSession) Reset()                                 {}
func (s sinkSession) Logout() error                          { return nil }

func (s sinkSession) Data(r io.Reader) error {
	raw, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	seq, size, whole := readLoad(raw)
	time.Sleep(s.sink.delay)
	s.sink.mu.Lock()
	defer s.sink.mu.Unlock()
	if s.sink.got[seq]++; s.sink.got[seq] == 1 {
		s.sink.at[seq] = time.Now()
	}
	if !whole {
		s.sink.bad = append(s.sink.bad, fmt.Sprintf("%s of %d bytes", seq, size))
	}
	return nil
}

// loadLine is the content of load's messages.
const loadLine = "0123456789abcdef0123456789abcdef0123456789abcdef\r\n"

// loadMessage is a message under a sequence number.
func loadMessage(seq string, size int) []byte {
	lines := size / len(loadLine)
	return fmt.Appendf(nil, "From: <load@example.org>\r\nSubject: %s\r\nX-Lines: %d\r\n\r\n%s", seq, lines, strings.Repeat(loadLine, lines))
}

// readLoad finds the sequence number, and compares the content.
func readLoad(raw []byte) (seq string, size int, whole bool) {
	head, body, _ := bytes.Cut(raw, []byte("\r\n\r\n"))
	_, rest, _ := bytes.Cut(head, []byte("Subject: "))
	number, rest, _ := bytes.Cut(rest, []byte("\r\nX-Lines: "))
	lines, err := strconv.Atoi(string(rest))
	if err != nil { // a message that is not load's
		number, _, _ = bytes.Cut(number, []byte("\r\n"))
		return string(number), len(raw), true
	}
	return string(number), len(raw), string(body) == strings.Repeat(loadLine, lines)
}

// reset forgets what has arrived and returns it.
func (s *foreignSink) reset() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	got := s.got
	s.got, s.at = map[string]int{}, map[string]time.Time{}
	return got
}

// damaged lists messages that did not arrive as they were sent.
func (s *foreignSink) damaged() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.bad)
}

// counts are distinct messages and superfluous copies.
func (s *foreignSink) counts() (distinct, extra int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, n := range s.got {
		extra += n - 1
	}
	return len(s.got), extra
}

// first is when the first message arrived.
func (s *foreignSink) first() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	var first time.Time
	for _, at := range s.at {
		if first.IsZero() || at.Before(first) {
			first = at
		}
	}
	return first
}

// missing lists what was acknowledged and has not arrived.
func (s *foreignSink) missing(acked []string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []string
	for _, seq := range acked {
		if s.got[seq] == 0 {
			out = append(out, seq)
		}
	}
	return out
}

// load sends messages as fast as the gateway takes them, each attempt under a
// number of its own, and keeps the numbers that were answered with 250.
type load struct {
	addr  string
	size  int
	name  string // begins its sequence numbers
	to    string // domain of the recipient; default acme.test
	mu    sync.Mutex
	acked []string
	ids   map[string]string // message id in the 250, by sequence number
	codes map[int]int       // replies to the content by code; 0 is a connection that broke
	at    map[string]time.Time
}

func (l *load) run(ctx context.Context, senders int) {
	var wg sync.WaitGroup
	for i := range senders {
		wg.Go(func() {
			for n := 0; ctx.Err() == nil; {
				c, err := smtp.Dial(ctx, smtp.Target{Address: l.addr, Hello: "load.example.org"})
				if err != nil {
					time.Sleep(10 * time.Millisecond) // the gateway is down: that is the test
					continue
				}
				for used := 0; used < 20 && ctx.Err() == nil; used++ {
					n++
					if !l.send(ctx, c, fmt.Sprintf("%d-%d", i, n)) {
						break
					}
				}
				c.Close()
			}
		})
	}
	wg.Wait()
}

// acceptedAs is the message id in a 250.
var acceptedAs = regexp.MustCompile(`[0-9A-HJKMNP-TV-Z]{26}`)

func (l *load) send(ctx context.Context, c *smtp.Client, seq string) bool {
	seq = l.name + seq
	body := loadMessage(seq, l.size)
	to := mail.Address{Local: "user", Domain: "acme.test"}
	if l.to != "" {
		to.Domain = l.to
	}
	env := mail.Envelope{From: mail.Address{Local: "load", Domain: "example.org"}, To: []mail.Recipient{{Address: to}}}
	res, err := c.Send(ctx, env, smtp.Content{Bytes: body, Size: int64(len(body))}, nil)
	return l.note(seq, res, err)
}

// note keeps what a message was answered with, and reports whether it was 250.
func (l *load) note(seq string, res smtp.Result, err error) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.codes == nil {
		l.codes, l.ids, l.at = map[int]int{}, map[string]string{}, map[string]time.Time{}
	}
	if r, ok := refusalOf(res); ok {
		l.codes[r.Code]++
		return false
	}
	if err != nil || len(res.Data) != 1 {
		l.codes[0]++
		return false
	}
	l.codes[250]++
	l.acked = append(l.acked, seq)
	l.at[seq] = time.Now()
	l.ids[seq] = acceptedAs.FindString(res.Data[0].Text)
	return true
}

// refusalOf is the first negative reply to a message.
func refusalOf(res smtp.Result) (mail.Reply, bool) {
	all := append(append([]mail.Reply{res.Mail}, res.Rcpt...), res.Data...)
	for _, r := range all {
		if r.Code >= 400 {
			return r, true
		}
	}
	return mail.Reply{}, false
}

// replies are how often each code was the answer.
func (l *load) replies() map[int]int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return maps.Clone(l.codes)
}

func (l *load) numbers() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]string(nil), l.acked...)
}

// TestKill kills the gateway (-9) at random moments under load, on each store:
// every message answered with 250 arrives, and at most one copy too many for
// each outgoing connection that a kill cut.
func TestKill(t *testing.T) {
	kills := 5
	if chaos() {
		kills = 50
	}
	eachProcess(t, func(t *testing.T, p *process) {
		sink := startForeignSink(t)
		p.start()
		p.tenant("acme", "us", "acme.test", sink.addr)
		l := &load{addr: p.smtp, size: 10_000}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		done := make(chan struct{})
		go func() { defer close(done); l.run(ctx, 10) }()
		for range kills {
			time.Sleep(time.Duration(200+rand.IntN(800)) * time.Millisecond)
			p.kill()
			p.start()
		}
		time.Sleep(300 * time.Millisecond)
		cancel()
		<-done
		verifyArrived(t, p, sink, l.numbers(), kills*20)
	})
}

// verifyArrived waits for what was acknowledged and bounds the extra copies.
func verifyArrived(t *testing.T, p *process, sink *foreignSink, acked []string, allowed int) {
	t.Helper()
	if len(acked) < 100 {
		t.Fatalf("only %d messages were accepted: %s", len(acked), p.log)
	}
	var missing []string
	for deadline := time.Now().Add(60 * time.Second); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		if missing = sink.missing(acked); len(missing) == 0 {
			break
		}
	}
	if bad := sink.damaged(); len(bad) > 0 {
		t.Errorf("%d messages were changed on the way, the first is %s", len(bad), bad[0])
	}
	distinct, extra := sink.counts()
	t.Logf("%d answered with 250, %d arrived, %d lost, %d copies too many", len(acked), distinct, len(missing), extra)
	if len(missing) > 0 {
		t.Errorf("%d messages answered with 250 are lost, the first %q\n%s\n%s", len(missing), missing[0],
			p.must("queue", "destinations"), p.log)
	}
	if extra > allowed {
		t.Errorf("%d copies too many, at most %d connections were cut", extra, allowed)
	}
}

// TestDrain restarts the gateway under load as an operator does: nothing is
// lost, nothing is doubled.
func TestDrain(t *testing.T) {
	p := newProcess(t, "")
	sink := startForeignSink(t)
	p.start()
	p.tenant("acme", "us", "acme.test", sink.addr)
	l := &load{addr: p.smtp, size: 10_000}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan struct{})
	go func() { defer close(done); l.run(ctx, 10) }()
	for range 2 {
		time.Sleep(500 * time.Millisecond)
		p.stop()
		p.start()
	}
	time.Sleep(300 * time.Millisecond)
	cancel()
	<-done
	verifyArrived(t, p, sink, l.numbers(), 0)
}
