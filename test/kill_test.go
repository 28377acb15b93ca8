package test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
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
	addr string
	mu   sync.Mutex
	got  map[string]int
}

func startForeignSink(t testing.TB) *foreignSink {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &foreignSink{addr: ln.Addr().String(), got: map[string]int{}}
	server := gosmtp.NewServer(s)
	server.Domain = "sink.test"
	server.MaxMessageBytes = 64 << 20
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
	_, rest, _ := bytes.Cut(raw, []byte("Subject: "))
	seq, _, _ := bytes.Cut(rest, []byte("\r\n"))
	s.sink.mu.Lock()
	defer s.sink.mu.Unlock()
	s.sink.got[string(seq)]++
	return nil
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
	mu    sync.Mutex
	acked []string
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

func (l *load) send(ctx context.Context, c *smtp.Client, seq string) bool {
	body := []byte("From: <load@example.org>\r\nSubject: " + seq + "\r\n\r\n" + strings.Repeat("0123456789abcdef0123456789abcdef0123456789abcdef\r\n", l.size/50))
	env := mail.Envelope{From: mail.Address{Local: "load", Domain: "example.org"},
		To: []mail.Recipient{{Address: mail.Address{Local: "user", Domain: "acme.test"}}}}
	res, err := c.Send(ctx, env, smtp.Content{Bytes: body, Size: int64(len(body))}, nil)
	if err != nil || len(res.Data) != 1 || res.Data[0].Code != 250 {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.acked = append(l.acked, seq)
	return true
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
