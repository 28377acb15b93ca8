package smtp

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sallyport-mail/sallyport/internal/mail"
)

func TestConnectRefuses(t *testing.T) {
	b := &recorder{connect: func(*Conn) *mail.Reply { return &mail.Reply{Code: 554, Text: "not you"} }}
	addr, _ := startServer(t, b, Listener{})
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	if all, err := io.ReadAll(nc); err != nil || string(all) != "554 not you\r\n" {
		t.Errorf("%q, %v", all, err)
	}
}

func TestConnKnowsItsEnds(t *testing.T) {
	seen := make(chan Conn, 1)
	b := &recorder{connect: func(c *Conn) *mail.Reply { seen <- *c; return nil }}
	addr, _ := startServer(t, b, Listener{Name: "inbound"})
	nc := greeted(t, addr)
	c := <-seen
	if c.Remote.String() != nc.LocalAddr().String() || c.Local.String() != addr || c.Listener != "inbound" || c.ID == "" || c.StartedAt.IsZero() {
		t.Errorf("%+v", c)
	}
}

func TestMaxConns(t *testing.T) {
	b := &recorder{}
	addr, _ := startServer(t, b, Listener{MaxConns: 2})
	first := greeted(t, addr)
	greeted(t, addr)
	third, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer third.Close()
	if line := readLine(t, third); !strings.HasPrefix(line, "421 4.3.2") {
		t.Errorf("third: %q", line)
	}
	// A place that becomes free is given to the next.
	if _, err := io.WriteString(first, "QUIT\r\n"); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(first); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(5 * time.Second); ; {
		nc, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		line := readLine(t, nc)
		_ = nc.Close()
		if strings.HasPrefix(line, "220") {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("no place: %q", line)
		}
	}
}

// TestEvictSilent: on a full listener the oldest silent connection makes room,
// and one that has spoken does not.
func TestEvictSilent(t *testing.T) {
	addr, _ := startServer(t, &recorder{}, Listener{MaxConns: 3, EvictSilent: time.Nanosecond})
	spoken := greeted(t, addr)
	if _, err := io.WriteString(spoken, "NOOP\r\n"); err != nil {
		t.Fatal(err)
	}
	if line := readLine(t, spoken); !strings.HasPrefix(line, "250") {
		t.Fatal(line)
	}
	oldest, other := greeted(t, addr), greeted(t, addr)
	if _, err := io.WriteString(oldest, "NOO"); err != nil { // not yet a command
		t.Fatal(err)
	}
	greeted(t, addr)
	if line := readLine(t, oldest); !strings.HasPrefix(line, "421 4.3.2") {
		t.Errorf("oldest: %q", line)
	}
	for _, nc := range []net.Conn{spoken, other} {
		if _, err := io.WriteString(nc, "NOOP\r\n"); err != nil {
			t.Fatal(err)
		}
		if line := readLine(t, nc); !strings.HasPrefix(line, "250") {
			t.Errorf("another was sent away: %q", line)
		}
	}
}

// TestEvictIdle: where none is silent, the oldest that has sent no mail makes
// room, and one that has does not.
func TestEvictIdle(t *testing.T) {
	addr, _ := startServer(t, &recorder{}, Listener{MaxConns: 2, EvictSilent: time.Nanosecond, EvictIdle: time.Nanosecond})
	sender, talker := greeted(t, addr), greeted(t, addr)
	for _, say := range []struct {
		nc   net.Conn
		line string
	}{{sender, "HELO sender.test"}, {sender, "MAIL FROM:<>"}, {talker, "HELO talker.test"}} {
		if _, err := io.WriteString(say.nc, say.line+"\r\n"); err != nil {
			t.Fatal(err)
		}
		if line := readLine(t, say.nc); !strings.HasPrefix(line, "250") {
			t.Fatal(line)
		}
	}
	greeted(t, addr)
	if line := readLine(t, talker); !strings.HasPrefix(line, "421 4.3.2") {
		t.Errorf("talker: %q", line)
	}
	if _, err := io.WriteString(sender, "NOOP\r\n"); err != nil {
		t.Fatal(err)
	}
	if line := readLine(t, sender); !strings.HasPrefix(line, "250") {
		t.Errorf("the sender was sent away: %q", line)
	}
}

// TestFlood: many more silent and slow connections than there are places, from
// many addresses, and an honest sender gets through at once.
func TestFlood(t *testing.T) {
	addr, _ := startServer(t, discard{}, Listener{MaxConns: 200, EvictSilent: 10 * time.Millisecond, CommandTimeout: time.Minute})
	var mu sync.Mutex
	var all []net.Conn
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := range 250 {
				d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 1, byte(w), byte(1+i%250))}}
				nc, err := d.DialContext(t.Context(), "tcp", addr)
				if err != nil {
					continue
				}
				if i%2 == 0 {
					_, _ = io.WriteString(nc, "EHL")
				}
				mu.Lock()
				all = append(all, nc)
				mu.Unlock()
			}
		})
	}
	honest := func() {
		start := time.Now()
		for {
			nc, err := net.Dial("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			line := readLine(t, nc)
			_ = nc.Close()
			if took := time.Since(start); took > time.Second {
				t.Errorf("greeted after %v", took)
			}
			if strings.HasPrefix(line, "220") {
				return
			}
		}
	}
	for range 20 {
		honest()
	}
	wg.Wait()
	honest()
	for _, nc := range all {
		_ = nc.Close()
	}
}

// A client that does not wait for the greeting (RFC 5321 4.3.1) loses nothing
// of what it said.
func TestSpeaksBeforeTheGreeting(t *testing.T) {
	connected, spoke := make(chan struct{}), make(chan struct{})
	b := &recorder{connect: func(*Conn) *mail.Reply {
		close(connected)
		<-spoke
		return nil
	}}
	addr, _ := startServer(t, b, Listener{})
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	<-connected
	if _, err := io.WriteString(nc, "EHLO c.test\r\nMAIL FROM:<>\r\nRCPT TO:<b@y.test>\r\nBDAT 0 LAST\r\nQUIT\r\n"); err != nil {
		t.Fatal(err)
	}
	close(spoke)
	if _, err := io.ReadAll(nc); err != nil {
		t.Fatal(err)
	}
	if kept := b.kept(); len(kept) != 1 {
		t.Errorf("%+v", kept)
	}
}

// TestStartTLSInjection: what comes in clear behind STARTTLS is thrown away
// (CVE-2011-0411).
func TestStartTLSInjection(t *testing.T) {
	b := &recorder{}
	addr, _ := startServer(t, b, Listener{TLS: serverTLS(t)})
	nc := greeted(t, addr)
	k := newTalk(t, nc)
	k.say("EHLO c.test\r\n")
	k.reply("250")
	k.say("STARTTLS\r\nEHLO evil.test\r\nMAIL FROM:<evil@x.test>\r\n")
	k.hear("220")
	c := tls.Client(nc, &tls.Config{InsecureSkipVerify: true})
	if err := c.Handshake(); err != nil {
		t.Fatal(err)
	}
	k = newTalk(t, c)
	k.say("NOOP\r\n")
	k.hear("250 2.0.0 ok")
	k.say("MAIL FROM:<>\r\n")
	k.hear("503")
	k.say("EHLO c.test\r\n")
	k.reply("250")
	k.say("RCPT TO:<b@y.test>\r\n")
	k.hear("503")
}

// TestStartTLSNotReady has no key to be asked: the client is told to come
// again, and the session goes on in clear.
func TestStartTLSNotReady(t *testing.T) {
	ready := &atomic.Bool{}
	addr, _ := startServer(t, &recorder{}, Listener{TLS: serverTLS(t), TLSReady: func(context.Context) bool { return ready.Load() }})
	nc := greeted(t, addr)
	k := newTalk(t, nc)
	k.say("EHLO c.test\r\n")
	k.reply("250")
	k.say("STARTTLS\r\n")
	k.hear("454 4.7.0")
	k.say("NOOP\r\n")
	k.hear("250")
	ready.Store(true)
	k.say("STARTTLS\r\n")
	k.hear("220")
	if err := tls.Client(nc, &tls.Config{InsecureSkipVerify: true}).Handshake(); err != nil {
		t.Error(err)
	}
}

// TestImplicitTLS has certificates chosen by SNI, and the PROXY header before
// TLS in one packet with its beginning.
func TestImplicitTLS(t *testing.T) {
	one, two := newCertificate(t, "one.test"), newCertificate(t, "two.test")
	config := &tls.Config{GetCertificate: func(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
		if h.ServerName == "two.test" {
			return &two, nil
		}
		return &one, nil
	}}
	seen := make(chan Conn, 1)
	b := &recorder{connect: func(c *Conn) *mail.Reply { seen <- *c; return nil }}
	loopback := []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	for _, proxy := range []string{"", "PROXY TCP4 192.0.2.1 192.0.2.2 1000 465\r\n"} {
		rules := Listener{TLS: config, ImplicitTLS: true}
		if proxy != "" {
			rules.Proxy = loopback
		}
		addr, _ := startServer(t, b, rules)
		for _, name := range []string{"one.test", "two.test"} {
			nc, err := net.Dial("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			defer nc.Close()
			client := tls.Client(&prefixed{Conn: nc, front: proxy}, trusting(name, one, two))
			k := newTalk(t, client)
			k.hear("220")
			c := <-seen
			if c.TLS == nil || c.TLS.ServerName != name {
				t.Errorf("%s: %+v", name, c.TLS)
			}
			if proxy != "" && c.Remote.String() != "192.0.2.1:1000" {
				t.Errorf("remote %v", c.Remote)
			}
			k.transaction()
			k.say("hello\r\n.\r\n")
			k.hear("250 2.0.0 kept")
			_ = client.Close()
		}
	}
}

// prefixed puts front before the first thing written.
type prefixed struct {
	net.Conn
	front string
}

func (p *prefixed) Write(b []byte) (int, error) {
	front := p.front
	p.front = ""
	n, err := p.Conn.Write(append([]byte(front), b...))
	return max(n-len(front), 0), err
}

func TestHandshakeFails(t *testing.T) {
	b := &recorder{}
	addr, _ := startServer(t, b, Listener{TLS: serverTLS(t)})
	nc := greeted(t, addr)
	k := newTalk(t, nc)
	k.say("EHLO c.test\r\n")
	k.reply("250")
	k.say("STARTTLS\r\n")
	k.hear("220")
	k.say("this is not TLS at all, nor ever will be\r\n")
	if _, err := io.ReadAll(k.r); err != nil {
		t.Log(err) // an alert may or may not get through
	}
	waitFor(t, func() bool {
		r := b.refusals()
		return len(r) == 1 && strings.HasPrefix(r[0], "STARTTLS 454 4.7.0 TLS handshake failed")
	})
}

// waitFor waits for what another goroutine is about to do.
func waitFor(t *testing.T, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); !f(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it does not come")
		}
	}
}

func TestClosedListener(t *testing.T) {
	l, err := Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{Backend: discard{}}
	served := make(chan error)
	go func() { served <- s.Serve(l, Listener{}) }()
	nc := greeted(t, l.Addr().String())
	_ = l.Close()
	if err := <-served; err != nil {
		t.Error(err)
	}
	// A connection that is open goes on, and Shutdown still knows it.
	k := newTalk(t, nc)
	k.say("NOOP\r\n")
	k.hear("250")
	if err := s.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	k.hear("421 4.3.2")
	if err := s.Serve(l, Listener{}); err != nil && !strings.Contains(err.Error(), "closed") {
		t.Error(err)
	}
}

// TestLongLines: too long a command is consumed and refused; one without end
// is not waited for.
func TestLongLines(t *testing.T) {
	addr, _ := startServer(t, &recorder{}, Listener{})
	k := newTalk(t, greeted(t, addr))
	k.say("NOOP " + strings.Repeat("x", maxCommand-5) + "\r\n")
	k.hear("250")
	k.say("NOOP " + strings.Repeat("x", maxCommand-4) + "\r\n")
	k.hear("500 5.5.2")
	k.say("NOOP " + strings.Repeat("x", 100000) + "\r\nNOOP\r\n")
	k.hear("500 5.5.2")
	k.hear("250")
	go func() { _, _ = io.WriteString(k.nc, strings.Repeat("x", 3<<20)) }()
	k.hear("421 4.5.2")
}

// TestLongAuth: an initial response may be longer than other commands.
func TestLongAuth(t *testing.T) {
	b := &recorder{password: strings.Repeat("p", 6000)}
	addr, _ := startServer(t, b, Listener{InsecureAuth: true})
	k := newTalk(t, greeted(t, addr))
	k.say("EHLO c.test\r\n")
	k.reply("250")
	response := base64.StdEncoding.EncodeToString([]byte("\x00user\x00" + b.password))
	k.say("auth plain " + strings.Repeat("A", maxAuth) + "\r\n")
	k.hear("500 5.5.2")
	k.say("AUTH PLAIN " + response + "\r\n")
	k.hear("235")
}

// TestTooMuch: content far beyond the limit is not read for ever, by DATA or
// by BDAT.
func TestTooMuch(t *testing.T) {
	for _, how := range []string{"DATA", "BDAT", "BDAT without transaction"} {
		addr, _ := startServer(t, &recorder{}, Listener{MaxSize: 1000})
		nc := greeted(t, addr)
		k := newTalk(t, nc)
		answer := "552 5.3.4"
		switch how {
		case "DATA":
			k.transaction()
		case "BDAT":
			k.say("EHLO c.test\r\nMAIL FROM:<>\r\nRCPT TO:<b@y.test>\r\nBDAT 9000000000 LAST\r\n")
			k.reply("250")
			k.reply("250")
			k.reply("250")
		default:
			k.say("BDAT 9000000000 LAST\r\n")
			answer = "503"
		}
		sent := make(chan int)
		go func() {
			n := 0
			block := []byte(strings.Repeat("0123456789abcd\r\n", 4096))
			for {
				m, err := nc.Write(block)
				n += m
				if err != nil {
					sent <- n
					return
				}
			}
		}()
		k.hear(answer)
		if n := <-sent; n > 64<<20 {
			t.Errorf("%s: %d bytes were read", how, n)
		}
	}
}

func TestTooManyIdleCommands(t *testing.T) {
	addr, _ := startServer(t, &recorder{}, Listener{})
	k := newTalk(t, greeted(t, addr))
	for range maxIdle {
		k.say("NOOP\r\n")
		k.hear("250")
	}
	k.say("NOOP\r\n")
	k.hear("421 4.7.0")
	k.ended()
}
