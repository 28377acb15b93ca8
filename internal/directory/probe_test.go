package directory_test

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sallyport-mail/sallyport/internal/directory"
	"github.com/sallyport-mail/sallyport/internal/mail"
	"github.com/sallyport-mail/sallyport/internal/store"
	"github.com/sallyport-mail/sallyport/internal/testpeer"
)

// mailbox is a server that knows some addresses, and how often it was asked.
type mailbox struct {
	mu     sync.Mutex
	knows  map[string]bool
	asked  map[string]int
	catch  bool // accepts what nobody has
	reply  *mail.Reply
	behind chan struct{} // when set, answers wait for it
}

func newMailbox(knows ...string) *mailbox {
	m := &mailbox{knows: map[string]bool{}, asked: map[string]int{}}
	for _, k := range knows {
		m.knows[k] = true
	}
	return m
}

func (m *mailbox) rcpt(to mail.Recipient) *mail.Reply {
	m.mu.Lock()
	behind := m.behind
	m.mu.Unlock()
	if behind != nil {
		<-behind
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if !isStranger(to) {
		m.asked[to.Local]++
	}
	switch {
	case m.reply != nil:
		return m.reply
	case m.knows[to.Local] || m.catch:
		return nil
	}
	return &mail.Reply{Code: 550, Enhanced: "5.1.1", Text: "no such user here"}
}

func (m *mailbox) count(local string) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.asked[local]
}

func (m *mailbox) change(f func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f()
}

func TestProbe(t *testing.T) {
	testpeer.EachStore(t, func(t *testing.T, s *store.Store) {
		h := newHouse(t, s)
		h.want(t, "b@probe.test", directory.Later) // no connection yet
		m := newMailbox("b")
		h.serve(t, testpeer.SinkRules{Rcpt: m.rcpt})
		h.want(t, "b@probe.test", directory.Known)
		h.want(t, "B@probe.test", directory.Known)
		if got, text := h.ask(t, h.Directory, "x@probe.test"); got != directory.Unknown || !strings.Contains(text, "no such user here") {
			t.Errorf("x: %v, %q", got, text)
		}
		h.want(t, "x@probe.test", directory.Unknown)
		if m.count("b") != 1 || m.count("x") != 1 {
			t.Errorf("asked %v", m.asked)
		}
		// A new user is found within ten minutes, a dead one within a day.
		m.change(func() { m.knows["x"], m.knows["b"] = true, false })
		h.clock.add(10 * time.Minute)
		h.want(t, "x@probe.test", directory.Known)
		h.want(t, "b@probe.test", directory.Known)
		h.clock.add(24*time.Hour - 11*time.Minute)
		h.want(t, "b@probe.test", directory.Known)
		h.clock.add(time.Minute)
		h.want(t, "b@probe.test", directory.Unknown)
		if m.count("b") != 2 {
			t.Errorf("b was asked for %d times", m.count("b"))
		}
		if h.AcceptsAll("acme", "probe.test") {
			t.Error("the server is said to accept everything")
		}
	})
}

func TestServerAway(t *testing.T) {
	testpeer.EachStore(t, func(t *testing.T, s *store.Store) {
		h := newHouse(t, s)
		m := newMailbox("b", "gone")
		h.serve(t, testpeer.SinkRules{Rcpt: m.rcpt})
		h.want(t, "b@probe.test", directory.Known)
		h.want(t, "gone@probe.test", directory.Known)
		m.change(func() { m.knows["gone"] = false })
		h.clock.add(48 * time.Hour)
		h.want(t, "gone@probe.test", directory.Unknown) // takes the earlier yes back

		l, err := net.Listen("tcp", "127.0.0.1:0")
		must(t, err)
		l.Close()
		h.connect(t, l.Addr().String())
		h.clock.add(100 * 24 * time.Hour)
		for name, x := range map[string]*directory.Directory{"at once": h.Directory, "after a restart": h.again(t)} {
			for addr, want := range map[string]directory.Answer{
				"b@probe.test": directory.Known, "gone@probe.test": directory.Later, "never@probe.test": directory.Later, "postmaster@probe.test": directory.Known,
			} {
				if got, text := h.ask(t, x, addr); got != want {
					t.Errorf("%s, %s: %v (%s), want %v", name, addr, got, text, want)
				}
			}
		}
		// Back again: the away mark is over after some seconds.
		m.change(func() { m.knows["new"] = true })
		h.serve(t, testpeer.SinkRules{Rcpt: m.rcpt})
		h.clock.add(time.Minute)
		h.want(t, "new@probe.test", directory.Known)
	})
}

// What a server says of us is no answer about a recipient.
func TestReplies(t *testing.T) {
	for reply, want := range map[string]directory.Answer{
		"250 2.1.5":                     directory.Known,
		"550 5.1.1 unknown":             directory.Unknown,
		"550 5.1.10 not found":          directory.Unknown,
		"550 5.4.1 access denied":       directory.Unknown, // Exchange Online's words for an unknown recipient
		"550 unknown":                   directory.Unknown,
		"550 5.2.1 disabled":            directory.Unknown,
		"552 5.2.2 full":                directory.Known,
		"552 too much":                  directory.Known,
		"450 4.2.0 greylisted":          directory.Later,
		"451 4.3.0 broken":              directory.Later,
		"554 5.7.1 relay access denied": directory.Later,
		"550 5.7.1 client host blocked": directory.Later,
		"550 relay not permitted":       directory.Later,
		"550 5.1.8 bad sender":          directory.Later,
		"530 5.7.0 authenticate":        directory.Later,
		"503 5.5.1 sequence":            directory.Later,
		"501 syntax":                    directory.Later,
	} {
		t.Run(reply, func(t *testing.T) {
			h := newHouse(t, openSQLite(t))
			h.serve(t, testpeer.SinkRules{Rcpt: func(mail.Recipient) *mail.Reply {
				r := &mail.Reply{}
				fmt.Sscanf(reply, "%d", &r.Code)
				r.Text = reply[4:]
				if first, rest, _ := strings.Cut(r.Text, " "); strings.Count(first, ".") == 2 {
					r.Enhanced, r.Text = first, rest
				}
				return r
			}})
			h.want(t, "b@probe.test", want)
		})
	}
}

func TestNullSenderRefused(t *testing.T) {
	h := newHouse(t, openSQLite(t))
	h.serve(t, testpeer.SinkRules{Mail: func(mail.Address) *mail.Reply {
		return &mail.Reply{Code: 550, Enhanced: "5.1.1", Text: "who are you"}
	}})
	h.want(t, "b@probe.test", directory.Later)
}

// Everybody who asks for the same address waits for one probe, and who gives
// up does not take it from the others.
func TestOneProbeForMany(t *testing.T) {
	h := newHouse(t, openSQLite(t))
	m := newMailbox("b")
	m.behind = make(chan struct{})
	h.serve(t, testpeer.SinkRules{Rcpt: m.rcpt})
	d, _ := h.config.Tenants.Domain("probe.test")
	hasty, cancel := context.WithCancel(t.Context())
	cancel()
	if got, _ := h.Check(hasty, d, address(t, "b@probe.test")); got != directory.Later {
		t.Errorf("without patience: %v", got)
	}
	var known atomic.Int32
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if got, _ := h.Check(t.Context(), d, address(t, "b@probe.test")); got == directory.Known {
				known.Add(1)
			}
		})
	}
	close(m.behind)
	wg.Wait()
	if known.Load() != 20 || m.count("b") != 1 {
		t.Errorf("%d of 20 were told yes, the server was asked %d times", known.Load(), m.count("b"))
	}
}

// Questions share connections, and a tenant has only some at a time.
func TestConnectionsAreShared(t *testing.T) {
	h := newHouse(t, openSQLite(t))
	m := newMailbox()
	s := h.serve(t, testpeer.SinkRules{Rcpt: m.rcpt})
	for i := range 30 {
		h.want(t, fmt.Sprintf("x%d@probe.test", i), directory.Unknown)
	}
	if n := s.Conns(); n != 1 {
		t.Errorf("30 questions one after another took %d connections", n)
	}
	var wg sync.WaitGroup
	for i := range 60 {
		wg.Go(func() { h.want(t, fmt.Sprintf("y%d@probe.test", i), directory.Unknown) })
	}
	wg.Wait()
	if n := s.Conns(); n > 60 {
		t.Errorf("%d connections", n)
	}
}

func TestAcceptsAll(t *testing.T) {
	h := newHouse(t, openSQLite(t))
	m := newMailbox("b")
	m.catch = true
	h.serve(t, testpeer.SinkRules{Rcpt: m.rcpt})
	h.want(t, "b@probe.test", directory.Known)
	if !h.AcceptsAll("acme", "probe.test") || h.AcceptsAll("globex", "probe.test") {
		t.Error("nobody noticed that the server accepts everything")
	}
	m.change(func() { m.catch = false })
	h.clock.add(25 * time.Hour)
	h.want(t, "b@probe.test", directory.Known)
	if h.AcceptsAll("acme", "probe.test") {
		t.Error("a server that was repaired is still said to accept everything")
	}
}

func TestSweep(t *testing.T) {
	testpeer.EachStore(t, func(t *testing.T, s *store.Store) {
		h := newHouse(t, s)
		m := newMailbox("old", "young")
		h.serve(t, testpeer.SinkRules{Rcpt: m.rcpt})
		h.want(t, "old@probe.test", directory.Known)
		h.clock.add(181 * 24 * time.Hour)
		h.want(t, "young@probe.test", directory.Known)
		if n, err := h.Sweep(t.Context()); n != 1 || err != nil {
			t.Errorf("%d removed, %v", n, err)
		}
	})
}
