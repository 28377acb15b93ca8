package smtp

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/mail"
)

// TestServerHangs: at each stage the client waits for its time and no longer.
func TestServerHangs(t *testing.T) {
	const hello = "S:220 hi\nC:\nS:250-hi\nS:250 PIPELINING\n"
	timeouts := Timeouts{Greeting: time.Minute, Hello: 2 * time.Minute, Mail: 3 * time.Minute, Rcpt: 4 * time.Minute, DataInit: 5 * time.Minute, DataBlock: 6 * time.Minute, DataDone: 7 * time.Minute}
	cases := []struct {
		stage, script string
		want          time.Duration
	}{
		{"greeting", "", time.Minute},
		{"half a greeting", "S:220-hi\n", time.Minute},
		{"hello", "S:220 hi\nC:\n", 2 * time.Minute},
		{"reading the envelope", hello, 3 * time.Minute},
		{"mail", hello + "C:\nC:\nC:\n", 3 * time.Minute},
		{"rcpt", hello + "C:\nC:\nC:\nS:250 ok\n", 4 * time.Minute},
		{"data", hello + "C:\nC:\nC:\nS:250 ok\nS:250 ok\n", 5 * time.Minute},
		{"reading the content", hello + "C:\nC:\nC:\nS:250 ok\nS:250 ok\nS:354 go\n", 6 * time.Minute},
		{"dot", hello + "C:\nC:\nC:\nS:250 ok\nS:250 ok\nS:354 go\nC:\nC:\n", 7 * time.Minute},
	}
	for _, c := range cases {
		t.Run(c.stage, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ours, theirs := net.Pipe()
				go hangAfter(theirs, c.script)
				var err error
				took := after(func() { err = talkTo(t, ours, timeouts) })
				_ = theirs.Close()
				if !errors.Is(err, os.ErrDeadlineExceeded) {
					t.Errorf("%v", err)
				}
				within(t, took, c.want)
			})
		})
	}
}

// hangAfter plays "S:" and "C:" lines and then does nothing.
func hangAfter(nc net.Conn, script string) {
	r := bufio.NewReader(nc)
	for _, line := range strings.Split(script, "\n") {
		if text, ok := strings.CutPrefix(line, "S:"); ok {
			_, _ = io.WriteString(nc, text+"\r\n")
		} else if line != "" {
			_, _ = r.ReadString('\n')
		}
	}
}

func talkTo(t *testing.T, nc net.Conn, timeouts Timeouts) error {
	c, err := NewClient(t.Context(), nc, Target{Hello: "c.test", Timeouts: timeouts})
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = c.Send(t.Context(), envelope("", "b@y.test"), Content{Bytes: []byte("hello\r\n")}, nil)
	if c.Alive() {
		t.Error("alive after a failure")
	}
	return err
}

// TestContextEnds: whatever the client waits for, it stops when told.
func TestContextEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		go hangAfter(theirs, "S:220 hi\nC:\nS:250 hi\n")
		c, err := NewClient(t.Context(), ours, Target{Hello: "c.test"})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		took := after(func() { _, err = c.Send(ctx, envelope("", "b@y.test"), Content{}, nil) })
		within(t, took, time.Minute)
		if err == nil || c.Alive() {
			t.Errorf("%v, alive %v", err, c.Alive())
		}
		if _, err := c.Send(t.Context(), envelope("", "b@y.test"), Content{}, nil); err == nil {
			t.Error("a dead connection was used")
		}
		_ = theirs.Close()
	})
}

// TestEndlessReplies: neither a line nor a reply without end is read for ever.
func TestEndlessReplies(t *testing.T) {
	for name, block := range map[string]string{
		"line":  "220 " + strings.Repeat("x", 1000),
		"lines": "220-x\r\n",
	} {
		ours, theirs := net.Pipe()
		sent := make(chan int)
		go func() {
			n := 0
			for {
				m, err := io.WriteString(theirs, block)
				n += m
				if err != nil {
					sent <- n
					return
				}
				if name == "line" {
					block = block[4:] + "yyyy"
				}
			}
		}()
		_, err := NewClient(t.Context(), ours, Target{})
		if !errors.Is(err, ErrReplyTooLong) {
			t.Errorf("%s: %v", name, err)
		}
		if n := <-sent; n > 2*maxReplyBytes {
			t.Errorf("%s: %d bytes were read", name, n)
		}
	}
}

// TestServerClosesInData: the reply that came before the end is found.
func TestServerClosesInData(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		nc, err := l.Accept()
		if err != nil {
			return
		}
		hangAfter(nc, "S:220 hi\nC:\nS:250-hi\nS:250 PIPELINING\nC:\nC:\nC:\nS:250 ok\nS:250 ok\nS:354 go\nC:\nS:552 5.3.4 too big")
		_ = nc.Close()
	}()
	c := dialTest(t, l.Addr().String())
	line := []byte(strings.Repeat("x", 998) + "\r\n")
	r, w := io.Pipe()
	go func() {
		for {
			if _, err := w.Write(line); err != nil {
				return
			}
		}
	}()
	ready := 0
	res, err := c.Send(t.Context(), envelope("", "b@y.test"), Content{Open: func() (io.ReadCloser, error) { return r, nil }},
		func(context.Context) error { ready++; return nil })
	if err == nil || res.Sent || ready > 0 || c.Alive() {
		t.Errorf("%+v, %v", res, err)
	}
	// The kernel may have thrown the reply away with the reset.
	if len(res.Data) > 0 && res.Data[0].Code != 552 {
		t.Errorf("%+v", res.Data)
	}
}

func TestBodyFails(t *testing.T) {
	b := &recorder{}
	addr, _ := startServer(t, b, Listener{})
	for name, open := range map[string]func() (io.ReadCloser, error){
		"open": func() (io.ReadCloser, error) { return nil, errTest },
		"read": func() (io.ReadCloser, error) {
			return io.NopCloser(io.MultiReader(strings.NewReader(strings.Repeat("line\r\n", 20000)), failing{})), nil
		},
	} {
		c := dialTest(t, addr)
		res, err := c.Send(t.Context(), envelope("", "b@y.test"), Content{Open: open}, nil)
		if !errors.Is(err, errTest) || res.Sent || c.Alive() {
			t.Errorf("%s: %+v, %v", name, res, err)
		}
	}
	if len(b.kept()) > 0 {
		t.Error("kept")
	}
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errTest }

// TestManyRecipients: more than one group, more than the server's limit.
func TestManyRecipients(t *testing.T) {
	b := &recorder{}
	addr, _ := startServer(t, b, Listener{MaxRcpt: 1000, MaxErrors: 5})
	c := dialTest(t, addr)
	env := envelope("a@x.test")
	for i := range 1234 {
		env.To = append(env.To, mail.Recipient{Address: address(fmt.Sprintf("user%d@y.test", i))})
	}
	res, err := c.Send(t.Context(), env, Content{Bytes: []byte("x\r\n")}, nil)
	if err != nil || !res.Sent {
		t.Fatalf("%v", err)
	}
	for i, r := range res.Rcpt {
		if want := 250; i >= 1000 && r.Code != 452 || i < 1000 && r.Code != want {
			t.Fatalf("recipient %d: %v", i, r)
		}
	}
	if kept := b.kept(); len(kept) != 1 || len(kept[0].env.To) != 1000 {
		t.Error("not kept as it should")
	}
}

// TestEnvelopeIsNoCommand: an address with a line end gets nowhere.
func TestEnvelopeIsNoCommand(t *testing.T) {
	b := &recorder{}
	addr, _ := startServer(t, b, Listener{})
	evil := "b@y.test>\r\nRCPT TO:<c"
	for _, env := range []mail.Envelope{
		{To: []mail.Recipient{{Address: mail.Address{Local: evil, Domain: "y.test"}}}},
		{From: mail.Address{Local: "a\n", Domain: "x.test"}, To: envelope("", "b@y.test").To},
		{To: []mail.Recipient{{Address: address("b@y.test"), Notify: "NEVER\r\nDATA"}}},
		{Params: mail.FromParams{Ret: "FULL\rX"}, To: envelope("", "b@y.test").To},
	} {
		c := dialTest(t, addr)
		_, err := c.Send(t.Context(), env, Content{}, nil)
		if !fault.Is(err, fault.Invalid) {
			t.Errorf("%+v: %v", env, err)
		}
	}
	if len(b.kept()) > 0 {
		t.Error("kept")
	}
}

func TestClientTLS(t *testing.T) {
	cert := newCertificate(t, "mx.test")
	b := &recorder{password: "secret"}
	starttls, _ := startServer(t, b, Listener{TLS: &tls.Config{Certificates: []tls.Certificate{cert}}, Auth: true, RequireTLS: true})
	implicit, _ := startServer(t, b, Listener{TLS: &tls.Config{Certificates: []tls.Certificate{cert}}, ImplicitTLS: true, Auth: true})
	clear, _ := startServer(t, b, Listener{})
	other := newCertificate(t, "other.test")
	cases := []struct {
		name   string
		target Target
		step   string // at which it fails
		secure bool
	}{
		{"required", Target{Address: starttls, TLS: TLSRequired, Config: trusting("mx.test", cert)}, "", true},
		{"wrong name", Target{Address: starttls, TLS: TLSRequired, Config: trusting("other.test", cert)}, "tls", false},
		{"wrong issuer", Target{Address: starttls, TLS: TLSRequired, Config: trusting("mx.test", other)}, "tls", false},
		{"no configuration is the strictest", Target{Address: starttls, TLS: TLSRequired}, "tls", false},
		{"opportunistic", Target{Address: starttls, TLS: TLSOpportunistic}, "", true},
		{"opportunistic, wrong name", Target{Address: starttls, TLS: TLSOpportunistic, Config: trusting("other.test", other)}, "", true},
		{"opportunistic, not offered", Target{Address: clear, TLS: TLSOpportunistic}, "", false},
		{"implicit", Target{Address: implicit, TLS: TLSImplicit, Config: trusting("mx.test", cert)}, "", true},
		{"implicit, wrong name", Target{Address: implicit, TLS: TLSImplicit, Config: trusting("other.test", cert)}, "tls", false},
		{"implicit to a clear one", Target{Address: clear, TLS: TLSImplicit, Config: trusting("mx.test", cert)}, "tls", false},
		{"none", Target{Address: clear}, "", false},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			c.target.Hello = "c.test"
			client, err := Dial(t.Context(), c.target)
			var dial *DialError
			if errors.As(err, &dial) != (c.step != "") || dial != nil && dial.Step != c.step {
				t.Fatalf("%v, want %q", err, c.step)
			}
			if err != nil {
				return
			}
			defer client.Close()
			if (client.TLSState() != nil) != c.secure {
				t.Error("TLS state")
			}
			if c.secure {
				if err := client.Auth(t.Context(), "user", "secret"); err != nil {
					t.Error(err)
				}
			}
			body := strings.Repeat(".a line\r\n", 10000)
			for _, content := range []Content{{Bytes: []byte(body)}, {Open: func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(body)), nil }}} {
				res, err := client.Send(t.Context(), envelope("", "b@y.test"), content, nil)
				if err != nil || res.Data[0].Code != 250 || !client.Alive() {
					t.Errorf("%+v, %v, alive %v", res, err, client.Alive())
				}
			}
			kept := b.kept()
			last := kept[len(kept)-1]
			if string(last.body) != body || (last.conn.TLS != nil) != c.secure || c.secure && last.conn.User != "user" {
				t.Errorf("%d bytes, %+v", len(last.body), last.conn)
			}
			if err := client.Quit(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestClientAuth(t *testing.T) {
	b := &recorder{password: strings.Repeat("secret", 100)} // too long for an initial response
	addr, _ := startServer(t, b, Listener{InsecureAuth: true})
	c := dialTest(t, addr)
	err := c.Auth(t.Context(), "user", "wrong")
	var dial *DialError
	if !errors.As(err, &dial) || dial.Step != "auth" || dial.Reply.Code != 535 || dial.Reply.Enhanced != "5.7.8" {
		t.Errorf("%v", err)
	}
	if err := c.Auth(t.Context(), "user", "a\x00b"); err == nil {
		t.Error("NUL in a password")
	}
	if err := c.Auth(t.Context(), "user", b.password); err != nil {
		t.Error(err)
	}
	if _, err := c.Send(t.Context(), envelope("", "b@y.test"), Content{}, nil); err != nil {
		t.Error(err)
	}
	if got := b.kept(); len(got) != 1 || got[0].conn.User != "user" {
		t.Errorf("%+v", got)
	}
}

// TestClientAuthLogin: a server that offers LOGIN alone; and in clear from
// afar no password is sent.
func TestClientAuthLogin(t *testing.T) {
	for _, far := range []bool{false, true} {
		ours, theirs := net.Pipe()
		said := make(chan string, 10)
		go func() {
			r := bufio.NewReader(theirs)
			for _, reply := range []string{"220 hi", "250-hi\r\n250 AUTH LOGIN CRAM-MD5", "334 VXNlcm5hbWU6", "334 UGFzc3dvcmQ6", "235 2.7.0 ok"} {
				_, _ = io.WriteString(theirs, reply+"\r\n")
				line, _ := r.ReadString('\n')
				said <- strings.TrimSpace(line)
			}
			close(said)
		}()
		var nc net.Conn = nearby{ours}
		if far {
			nc = fromAfar{ours}
		}
		c, err := NewClient(t.Context(), nc, Target{Hello: "c.test"})
		if err != nil {
			t.Fatal(err)
		}
		err = c.Auth(t.Context(), "a", "secret")
		_ = c.Close()
		var all []string
		for line := range said {
			all = append(all, line)
		}
		if far {
			if !fault.Is(err, fault.Denied) || all[1] != "" {
				t.Errorf("%v, said %q", err, all)
			}
			continue
		}
		if err != nil || strings.Join(all[:4], " ") != "EHLO c.test AUTH LOGIN YQ== c2VjcmV0" {
			t.Errorf("%v, said %q", err, all)
		}
	}
}

// nearby is a connection from the loopback address.
type nearby struct{ net.Conn }

func (nearby) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 25} }

func TestAlive(t *testing.T) {
	addr, s := startServer(t, &recorder{}, Listener{})
	c, other := dialTest(t, addr), dialTest(t, addr)
	if !c.Alive() || !other.Alive() {
		t.Fatal("not alive")
	}
	if err := s.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	waitFor(t, func() bool { return !c.Alive() })
	_ = other.Close()
	if other.Alive() {
		t.Error("alive after Close")
	}
}

// TestWhereFrom: a chosen source address, and a Unix socket.
func TestWhereFrom(t *testing.T) {
	b := &recorder{}
	addr, _ := startServer(t, b, Listener{})
	c, err := Dial(t.Context(), Target{Address: addr, Local: netip.MustParseAddr("127.0.0.9"), Hello: "bad name"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Send(t.Context(), envelope("", "b@y.test"), Content{}, nil); err != nil {
		t.Fatal(err)
	}
	if got := b.kept()[0].conn; got.Remote.Addr().String() != "127.0.0.9" || got.Hello != "localhost" || c.Remote() != addr {
		t.Errorf("%+v", got)
	}
	path := filepath.Join(t.TempDir(), "socket")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{Backend: b}
	served := make(chan error)
	go func() { served <- s.Serve(l, Listener{InsecureAuth: true}) }()
	u, err := Dial(t.Context(), Target{Network: "unix", Address: path, Hello: "c.test"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := u.Send(t.Context(), envelope("", "b@y.test"), Content{}, nil); err != nil || !u.Alive() {
		t.Fatal(err)
	}
	if err := u.Quit(); err != nil {
		t.Error(err)
	}
	if err := s.Shutdown(t.Context()); err != nil || <-served != nil {
		t.Error(err)
	}
}

func TestDialFails(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
	_, err = Dial(t.Context(), Target{Address: l.Addr().String()})
	var dial *DialError
	if !errors.As(err, &dial) || dial.Step != "dial" || dial.Error() == "" || errors.Unwrap(err) == nil {
		t.Errorf("%v", err)
	}
}
