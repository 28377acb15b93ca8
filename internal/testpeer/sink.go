package testpeer

import (
	"context"
	"crypto/tls"
	"io"
	"log/slog"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/sallyport-mail/sallyport/internal/mail"
	"github.com/sallyport-mail/sallyport/internal/smtp"
)

// Received is a message that a sink or a rogue took.
type Received struct {
	Conn   string // of the connection: equal for messages that share one
	Remote string
	Hello  string
	User   string
	From   mail.Address
	Params mail.FromParams
	To     []mail.Recipient
	Data   []byte
	TLS    bool
	Client string // subject of the client's certificate
}

// SinkRules say how a sink behaves. Its functions are called from the sink's
// goroutines and may block: that is how a test holds a server at a stage.
type SinkRules struct {
	Hostname string // default "sink.test"
	TLS      *tls.Config
	Implicit bool
	MaxSize  int64
	User     string // AUTH is offered, and only this user with this Password is let in
	Password string
	// Mail, Rcpt and Dot script replies; nil, or nil returned, is the ordinary
	// positive one.
	Connect func(conn int) *mail.Reply
	Mail    func(from mail.Address) *mail.Reply
	Rcpt    func(to mail.Recipient) *mail.Reply
	Dot     func(m Received) *mail.Reply
}

// Sink is an SMTP server in the test's own process that records what it takes.
type Sink struct {
	Addr   string
	rules  SinkRules
	server *smtp.Server

	mu       sync.Mutex
	received []Received
	conns    int
	changed  chan struct{} // closed at the next message, then made anew
}

// StartSink starts a sink on a loopback port; it ends with the test.
func StartSink(t testing.TB, rules SinkRules) *Sink {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return ServeSink(t, l, rules)
}

// ServeSink is StartSink on a listener of the test's choice.
func ServeSink(t testing.TB, l net.Listener, rules SinkRules) *Sink {
	t.Helper()
	if rules.Hostname == "" {
		rules.Hostname = "sink.test"
	}
	s := &Sink{Addr: l.Addr().String(), rules: rules, changed: make(chan struct{})}
	s.server = &smtp.Server{Backend: s, Log: slog.New(slog.DiscardHandler), Now: time.Now}
	served := make(chan struct{})
	go func() { defer close(served); s.server.Serve(l, s.listener()) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel() // nobody is waited for
		s.server.Shutdown(ctx)
		l.Close()
		<-served
	})
	return s
}

func (s *Sink) listener() smtp.Listener {
	return smtp.Listener{
		Name: "sink", Hostname: func(*smtp.Conn) string { return s.rules.Hostname },
		TLS: s.rules.TLS, ImplicitTLS: s.rules.Implicit,
		Auth: s.rules.User != "", InsecureAuth: s.rules.User != "",
		MaxSize: s.rules.MaxSize, MaxRcpt: 1000, MaxErrors: 1000, MaxConns: 10000,
		CommandTimeout: time.Minute, DataTimeout: time.Minute, TransactionTimeout: time.Hour,
	}
}

// Messages are those that were answered with 250.
func (s *Sink) Messages() []Received {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.received)
}

// Conns is how many connections there have been.
func (s *Sink) Conns() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.conns
}

// Wait waits until the sink has n messages.
func (s *Sink) Wait(t testing.TB, n int, patience time.Duration) []Received {
	t.Helper()
	late := time.NewTimer(patience)
	defer late.Stop()
	for {
		s.mu.Lock()
		got, changed := slices.Clone(s.received), s.changed
		s.mu.Unlock()
		if len(got) >= n {
			return got
		}
		select {
		case <-changed:
		case <-late.C:
			t.Fatalf("the sink has %d messages after %v, %d expected", len(got), patience, n)
		}
	}
}

// Connect makes a session; it is part of smtp.Backend.
func (s *Sink) Connect(_ context.Context, c *smtp.Conn) (smtp.Session, *mail.Reply) {
	s.mu.Lock()
	s.conns++
	n := s.conns
	s.mu.Unlock()
	if s.rules.Connect != nil {
		if r := s.rules.Connect(n); r != nil {
			return nil, r
		}
	}
	return &sinkSession{sink: s, conn: c}, nil
}

// sinkSession is one client's connection to a sink.
type sinkSession struct {
	sink *Sink
	conn *smtp.Conn
	now  Received
}

func (s *sinkSession) Hello(context.Context) *mail.Reply { return nil }

func (s *sinkSession) Mail(_ context.Context, from mail.Address, p mail.FromParams) *mail.Reply {
	s.now = Received{
		Conn: s.conn.ID, Remote: s.conn.Remote.String(), Hello: s.conn.Hello, User: s.conn.User,
		From: from, Params: p,
	}
	if state := s.conn.TLS; state != nil {
		s.now.TLS = true
		if len(state.PeerCertificates) > 0 {
			s.now.Client = state.PeerCertificates[0].Subject.String()
		}
	}
	if s.sink.rules.Mail != nil {
		return s.sink.rules.Mail(from)
	}
	return nil
}

func (s *sinkSession) Rcpt(_ context.Context, to mail.Recipient) *mail.Reply {
	if s.sink.rules.Rcpt != nil {
		if r := s.sink.rules.Rcpt(to); r != nil && !r.Positive() {
			return r
		}
	}
	s.now.To = append(s.now.To, to)
	return nil
}

func (s *sinkSession) Data(_ context.Context, r io.Reader) mail.Reply {
	data, err := io.ReadAll(r)
	if err != nil {
		return mail.Reply{Code: 451, Enhanced: "4.3.0", Text: err.Error()}
	}
	s.now.Data = data
	if s.sink.rules.Dot != nil {
		if r := s.sink.rules.Dot(s.now); r != nil && !r.Positive() {
			return *r
		}
	}
	s.sink.keep(s.now)
	return mail.Reply{Code: 250, Enhanced: "2.0.0", Text: "kept by the sink"}
}

func (s *Sink) keep(m Received) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.received = append(s.received, m)
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *sinkSession) Reset()                     { s.now = Received{} }
func (s *sinkSession) Refused(string, mail.Reply) {}
func (s *sinkSession) Close()                     {}

// Auth lets the one user in; it is part of smtp.Authenticator.
func (s *sinkSession) Auth(_ context.Context, user, password string) *mail.Reply {
	if user == s.sink.rules.User && password == s.sink.rules.Password {
		return nil
	}
	return &mail.Reply{Code: 535, Enhanced: "5.7.8", Text: "not that password"}
}
