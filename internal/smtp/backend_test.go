package smtp

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sallyport-mail/sallyport/internal/mail"
)

// message is what a recorder has kept.
type message struct {
	env  mail.Envelope
	body []byte
	conn Conn
}

// recorder is a backend that keeps everything and decides by local parts:
// "refuse" and "later" are answered 550 and 451.
type recorder struct {
	mu       sync.Mutex
	messages []message
	refused  []string
	events   []string
	connect  func(*Conn) *mail.Reply
	data     func(io.Reader) mail.Reply // instead of reading and keeping
	password string
}

func (r *recorder) Connect(_ context.Context, c *Conn) (Session, *mail.Reply) {
	if r.connect != nil {
		if reply := r.connect(c); reply != nil {
			return nil, reply
		}
	}
	return &recording{r: r, c: c}, nil
}

func (r *recorder) note(format string, args ...any) {
	r.mu.Lock()
	r.events = append(r.events, fmt.Sprintf(format, args...))
	r.mu.Unlock()
}

func (r *recorder) kept() []message {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]message(nil), r.messages...)
}

func (r *recorder) seen() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]string(nil), r.events...)
}

func (r *recorder) refusals() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]string(nil), r.refused...)
}

type recording struct {
	r   *recorder
	c   *Conn
	env mail.Envelope
}

func (s *recording) Hello(context.Context) *mail.Reply { return nil }

func (s *recording) Mail(_ context.Context, from mail.Address, p mail.FromParams) *mail.Reply {
	if bad := byName(from.Local); bad != nil {
		return bad
	}
	s.env = mail.Envelope{From: from, Params: p}
	return nil
}

func (s *recording) Rcpt(_ context.Context, to mail.Recipient) *mail.Reply {
	if bad := byName(to.Local); bad != nil {
		return bad
	}
	s.env.To = append(s.env.To, to)
	return nil
}

func byName(local string) *mail.Reply {
	switch local {
	case "refuse":
		return &mail.Reply{Code: 550, Enhanced: "5.1.1", Text: "refused"}
	case "later":
		return &mail.Reply{Code: 451, Enhanced: "4.3.0", Text: "later"}
	case "leave":
		return &mail.Reply{Code: 421, Enhanced: "4.3.0", Text: "leave"}
	case "panic":
		panic("asked for")
	}
	return nil
}

func (s *recording) Data(_ context.Context, r io.Reader) mail.Reply {
	if s.r.data != nil {
		return s.r.data(r)
	}
	var b bytes.Buffer
	if _, err := io.Copy(&b, r); err != nil {
		s.r.note("data: %v", err)
		return mail.Reply{Code: 451, Enhanced: "4.3.0", Text: "never seen: the server answers"}
	}
	s.r.mu.Lock()
	s.r.messages = append(s.r.messages, message{env: s.env, body: b.Bytes(), conn: *s.c})
	s.r.mu.Unlock()
	return mail.Reply{Code: 250, Enhanced: "2.0.0", Text: "kept"}
}

func (s *recording) Reset() { s.env = mail.Envelope{}; s.r.note("reset") }

func (s *recording) Refused(command string, r mail.Reply) {
	s.r.mu.Lock()
	s.r.refused = append(s.r.refused, strings.TrimSpace(command+" "+r.String()))
	s.r.mu.Unlock()
}

func (s *recording) Close() { s.r.note("close") }

func (s *recording) Auth(_ context.Context, user, password string) *mail.Reply {
	if password == s.r.password && s.r.password != "" {
		return nil
	}
	return authFailed()
}

// startServer serves b on a loopback port until the test ends, and checks that
// nothing is left then.
func startServer(t testing.TB, b Backend, rules Listener) (addr string, s *Server) {
	t.Helper()
	l, err := Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if rules.Name == "" {
		rules.Name = "test"
	}
	if rules.Hostname == nil {
		rules.Hostname = func(*Conn) string { return "mx.test" }
	}
	s = &Server{Backend: b}
	served := make(chan error, 1)
	go func() { served <- s.Serve(l, rules) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := s.Shutdown(ctx); err != nil {
			t.Errorf("shutdown: %v", err)
		}
		if err := <-served; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return l.Addr().String(), s
}

func dialTest(t testing.TB, addr string) *Client {
	t.Helper()
	quick := Timeouts{Greeting: 10 * time.Second, Hello: 10 * time.Second} // a test that hangs should say so
	c, err := Dial(t.Context(), Target{Address: addr, Hello: "client.test", Timeouts: quick})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func address(s string) mail.Address {
	a, err := mail.ParseAddress(s)
	if err != nil {
		panic(err)
	}
	return a
}

func envelope(from string, to ...string) mail.Envelope {
	var e mail.Envelope
	if from != "" {
		e.From = address(from)
	}
	for _, s := range to {
		e.To = append(e.To, mail.Recipient{Address: address(s)})
	}
	return e
}

var errTest = errors.New("made up")
