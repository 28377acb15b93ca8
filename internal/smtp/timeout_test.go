package smtp

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sallyport-mail/sallyport/internal/mail"
)

// bubble runs a dialogue against a server on the clock of a bubble.
func bubble(t *testing.T, b Backend, rules Listener, f func(t *testing.T, k *talk, s *Server)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		l := newPipeListener()
		s := &Server{Backend: b}
		served := make(chan error)
		go func() { served <- s.Serve(l, rules) }()
		nc := l.dial()
		k := newTalk(t, nc)
		k.hear("220 ")
		f(t, k, s)
		_ = nc.Close()
		if err := s.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
}

// after reports how long f took.
func after(f func()) time.Duration {
	start := time.Now()
	f()
	return time.Since(start)
}

func within(t *testing.T, took, want time.Duration) {
	t.Helper()
	if took < want-want/8-time.Second || took > want+time.Second {
		t.Errorf("took %v, want %v", took, want)
	}
}

func TestTimeouts(t *testing.T) {
	rules := Listener{CommandTimeout: 5 * time.Minute, DataTimeout: 3 * time.Minute, TransactionTimeout: 20 * time.Minute}
	cases := []struct {
		name  string
		rules func(*Listener)
		talk  func(k *talk)
		want  time.Duration
		reply string
	}{
		{"first command", nil, func(*talk) {}, 5 * time.Minute, "421 4.4.2"},
		{"half a command", nil, func(k *talk) { k.say("EH") }, 5 * time.Minute, "421 4.4.2"},
		{"a byte now and then", nil, func(k *talk) {
			for range 4 {
				k.say("E")
				time.Sleep(time.Minute)
			}
		}, time.Minute, "421 4.4.2"},
		{"crowded", func(l *Listener) { l.MaxConns, l.FirstCommandTimeout = 1, 10*time.Second }, func(*talk) {}, 10 * time.Second, "421 4.4.2"},
		{"not crowded", func(l *Listener) { l.MaxConns, l.FirstCommandTimeout = 3, 10*time.Second }, func(*talk) {}, 5 * time.Minute, "421 4.4.2"},
		{"content", nil, func(k *talk) { k.transaction(); k.say("x\r\n") }, 3 * time.Minute, "421 4.4.2"},
		{"chunk", nil, func(k *talk) {
			k.say("EHLO c.test\r\nMAIL FROM:<>\r\n")
			k.reply("250")
			k.reply("250")
			k.say("RCPT TO:<b@y.test>\r\n")
			k.reply("250")
			k.say("BDAT 5\r\nabc")
		}, 3 * time.Minute, "421 4.4.2"},
		{"next chunk", nil, func(k *talk) {
			k.say("EHLO c.test\r\nMAIL FROM:<>\r\n")
			k.reply("250")
			k.reply("250")
			k.say("RCPT TO:<b@y.test>\r\n")
			k.reply("250")
			k.say("BDAT 3\r\nabc")
			k.reply("250")
		}, 5 * time.Minute, "421 4.4.2"},
		{"useless chunk", nil, func(k *talk) { k.say("BDAT 5\r\nabc") }, 3 * time.Minute, "421 4.4.2"},
		{"transaction", nil, func(k *talk) {
			k.say("EHLO c.test\r\nMAIL FROM:<>\r\n")
			k.reply("250")
			k.reply("250")
			for range 18 {
				time.Sleep(time.Minute)
				k.say("NOOP\r\n")
				k.reply("250")
			}
		}, 2 * time.Minute, "421 4.4.2"},
		{"transaction in content", nil, func(k *talk) {
			k.transaction()
			for range 19 {
				time.Sleep(time.Minute)
				k.say("x\r\n")
			}
		}, time.Minute, "421 4.4.2"},
		{"slow content", func(l *Listener) { l.MinDataRate = 100 }, func(k *talk) {
			k.transaction()
			for range 4 {
				time.Sleep(10 * time.Second)
				k.say("x\r\n")
			}
		}, 0, "421 4.4.2 too slow"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			rules := rules
			if c.rules != nil {
				c.rules(&rules)
			}
			b := &recorder{}
			bubble(t, b, rules, func(t *testing.T, k *talk, _ *Server) {
				c.talk(k)
				within(t, after(func() { k.hear(c.reply) }), c.want)
				k.ended()
				if len(b.kept()) != 0 {
					t.Error("kept")
				}
				if r := b.refusals(); len(r) == 0 || !strings.HasPrefix(r[len(r)-1], "421") {
					t.Errorf("refusals %q", r)
				}
			})
		})
	}
}

// TestFastEnough: a rate that is met is no reason to hang up.
func TestFastEnough(t *testing.T) {
	b := &recorder{}
	rules := Listener{DataTimeout: time.Minute, MinDataRate: 10}
	bubble(t, b, rules, func(_ *testing.T, k *talk, _ *Server) {
		k.transaction()
		for range 20 {
			time.Sleep(10 * time.Second)
			k.say(strings.Repeat("x", 200) + "\r\n")
		}
		k.say(".\r\n")
		k.hear("250 2.0.0 kept")
	})
}

func TestShutdown(t *testing.T) {
	cases := []struct {
		name  string
		talk  func(k *talk)
		reply string
		kept  int
		then  func(k *talk)
	}{
		{"silent", func(*talk) {}, "421 4.3.2", 0, nil},
		{"idle", func(k *talk) { k.say("EHLO c.test\r\n"); k.reply("250") }, "421 4.3.2", 0, nil},
		{"half a command", func(k *talk) { k.say("EHL") }, "421 4.3.2", 0, nil},
		{"in DATA", func(k *talk) { k.transaction(); k.say("one\r\n") }, "250 2.0.0 kept", 1,
			func(k *talk) { k.say("two\r\n.\r\n") }},
		{"in BDAT", func(k *talk) {
			k.say("EHLO c.test\r\nMAIL FROM:<>\r\n")
			k.reply("250")
			k.reply("250")
			k.say("RCPT TO:<b@y.test>\r\n")
			k.reply("250")
			k.say("BDAT 3\r\na\r\n")
			k.reply("250")
		}, "250 2.0.0 kept", 1, func(k *talk) { k.say("BDAT 3 LAST\r\nb\r\n") }},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			b := &recorder{}
			bubble(t, b, Listener{CommandTimeout: time.Hour, DataTimeout: time.Hour}, func(t *testing.T, k *talk, s *Server) {
				c.talk(k)
				synctest.Wait()
				done := make(chan error)
				go func() { done <- s.Shutdown(t.Context()) }()
				synctest.Wait()
				if c.then != nil {
					c.then(k)
				}
				k.hear(c.reply)
				if c.kept > 0 {
					k.hear("421 4.3.2")
				}
				k.ended()
				if err := <-done; err != nil || len(b.kept()) != c.kept {
					t.Errorf("%v, %d kept", err, len(b.kept()))
				}
			})
		})
	}
}

// TestShutdownGivesUp: a session that does not end is cut off when ctx ends.
func TestShutdownGivesUp(t *testing.T) {
	b := &recorder{}
	bubble(t, b, Listener{}, func(t *testing.T, k *talk, s *Server) {
		k.transaction()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		var err error
		within(t, after(func() { err = s.Shutdown(ctx) }), time.Minute)
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v", err)
		}
		k.ended()
	})
}

// TestSessionSeesStop: the context of a session's call ends with the server.
func TestSessionSeesStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newPipeListener()
		s := &Server{Backend: stuck{}}
		go func() { _ = s.Serve(l, Listener{}) }()
		k := newTalk(t, l.dial())
		k.hear("220")
		k.say("EHLO c.test\r\n")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := s.Shutdown(ctx); err == nil {
			t.Error("nothing was stuck")
		}
		synctest.Wait() // a session that is stuck for good fails the bubble
	})
}

type stuck struct{ discarding }

func (stuck) Connect(context.Context, *Conn) (Session, *mail.Reply) { return stuck{}, nil }

func (stuck) Hello(ctx context.Context) *mail.Reply {
	<-ctx.Done()
	return &mail.Reply{Code: 421, Text: "stopped"}
}

// TestDataLeftUnread: the server drains, and the reply is the session's.
func TestDataLeftUnread(t *testing.T) {
	replies := []mail.Reply{{Code: 250, Enhanced: "2.0.0", Text: "enough"}, {Code: 452, Enhanced: "4.3.1", Text: "no room"}}
	for _, reply := range replies {
		var kept io.Reader
		b := &recorder{data: func(r io.Reader) mail.Reply {
			kept = r
			var few [3]byte
			_, _ = r.Read(few[:])
			return reply
		}}
		bubble(t, b, Listener{}, func(t *testing.T, k *talk, _ *Server) {
			k.transaction()
			k.say(strings.Repeat("line\r\n", 5000) + ".\r\n")
			k.hear(reply.String())
			if _, err := kept.Read(make([]byte, 1)); !errors.Is(err, io.ErrClosedPipe) {
				t.Errorf("a reader that was kept gives %v", err)
			}
			k.say("MAIL FROM:<>\r\nRCPT TO:<b@y.test>\r\n")
			k.reply("250")
			k.reply("250")
			k.say("BDAT 6\r\nline\r\n")
			if reply.Code == 250 {
				k.hear("250 2.0.0 6 bytes")
				k.say("BDAT 6 LAST\r\nline\r\n")
				k.hear("250 2.0.0 enough")
				return
			}
			k.hear("452 4.3.1")
			k.say("BDAT 6 LAST\r\nline\r\n")
			k.hear("503")
		})
	}
}

// TestWakeIsNotMissed looks at the two moments at which wake and the
// connection's own goroutine meet.
func TestWakeIsNotMissed(t *testing.T) {
	s := &Server{Backend: discard{}}
	s.start()
	c := newDoor(s, newPipeListener(), Listener{}).place(&canned{in: [][]byte{[]byte("x")}})
	c.in.use(c.nc)
	c.enter(phaseCommands)
	c.expect(time.Minute)
	c.wake() // then the goroutine arms its own deadline over wake's
	if err := c.fill(); err != errWoken {
		t.Errorf("waits for a command: %v", err)
	}
	c.enter(phaseContent) // DATA was read just before
	if !c.armed.IsZero() {
		t.Error("content is left with the deadline that wake has set")
	}
	if err := c.fill(); err != nil {
		t.Errorf("content is interrupted: %v", err)
	}
	c.door.leave(c)
}
