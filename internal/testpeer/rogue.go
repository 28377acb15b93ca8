package testpeer

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sallyport-mail/sallyport/internal/mail"
)

// Stages of a session at which a rogue may misbehave: instead of the reply to
// that command, "body" in the middle of content.
const (
	AtGreeting = "greeting"
	AtHello    = "hello"
	AtMail     = "mail"
	AtRcpt     = "rcpt"
	AtData     = "data"
	AtBody     = "body"
	AtDot      = "dot"
)

// RogueStages are all of them, in order.
func RogueStages() []string {
	return []string{AtGreeting, AtHello, AtMail, AtRcpt, AtData, AtBody, AtDot}
}

// Ways to misbehave.
const (
	Hang    = "hang"    // say nothing more, read nothing more
	Garbage = "garbage" // bytes that are no reply
	Endless = "endless" // a reply of which there is always one more line
	NoLine  = "noline"  // a reply line without an end
	Hangup  = "close"   // close the connection
	Reset   = "reset"   // close it with RST
	Answer  = "answer"  // the reply in Fault.Reply
)

// Misbehaviours are all that need no further word.
func Misbehaviours() []string { return []string{Hang, Garbage, Endless, NoLine, Hangup, Reset} }

// Fault is what a rogue does wrong.
type Fault struct {
	Stage, Do string
	Reply     string // for Answer: "421 4.3.2 going away"
	From      int    // the first message of a connection at which it happens; 0 and 1 are the first
	Conns     int    // only on so many connections, the first ones; 0 is all
}

// Rogue is a server that follows SMTP as far as it is told to. It is not built
// on the smtp room, for that one would not do such things.
type Rogue struct {
	Addr   string
	fault  Fault
	lmtp   bool
	scram  *SCRAM // nil for no AUTH
	ctx    context.Context
	served sync.WaitGroup

	mu       sync.Mutex
	conns    int
	dots     int // messages whose final dot has come
	received []Received
	events   chan string
}

// StartRogue starts a rogue on a loopback port; it ends with the test.
func StartRogue(t testing.TB, f Fault) *Rogue { return startRogue(t, &Rogue{fault: f}) }

// StartRogueLMTP starts one that speaks LMTP.
func StartRogueLMTP(t testing.TB, f Fault) *Rogue {
	return startRogue(t, &Rogue{fault: f, lmtp: true})
}

func startRogue(t testing.TB, r *Rogue) *Rogue {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r.Addr, r.ctx, r.events = l.Addr().String(), ctx, make(chan string, 4096)
	r.served.Go(func() { r.serve(l) })
	t.Cleanup(func() { cancel(); l.Close(); r.served.Wait() })
	return r
}

// Events tells each stage that a connection has reached, in order: "1 hello"
// is connection 1 that has said EHLO, "1 auth PLAIN eA==" what it said to AUTH.
func (r *Rogue) Events() <-chan string { return r.events }

// Dots is how many final dots have come.
func (r *Rogue) Dots() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.dots
}

// Conns is how many connections there have been.
func (r *Rogue) Conns() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.conns
}

// Messages are those it answered with 250.
func (r *Rogue) Messages() []Received {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]Received(nil), r.received...)
}

func (r *Rogue) serve(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		r.mu.Lock()
		r.conns++
		n := r.conns
		r.mu.Unlock()
		r.served.Go(func() {
			stop := context.AfterFunc(r.ctx, func() { c.Close() })
			defer stop()
			defer c.Close()
			s := &rogueSession{Rogue: r, conn: c, in: bufio.NewReader(c), number: n, message: 1}
			s.talk()
		})
	}
}

// rogueSession is one connection to a rogue.
type rogueSession struct {
	*Rogue
	conn            net.Conn
	in              *bufio.Reader
	number, message int
	tls             *tls.Conn // nil in clear
	user            string    // authenticated
	hello           string
	now             Received
}

// talk follows SMTP until something goes wrong, on purpose or not.
func (s *rogueSession) talk() {
	if !s.say(AtGreeting, "220 rogue.test ready") {
		return
	}
	for {
		line, err := s.in.ReadString('\n')
		if err != nil || !s.command(strings.TrimRight(line, "\r\n")) {
			return
		}
	}
}

// command answers one command; false ends the connection.
func (s *rogueSession) command(line string) bool {
	verb, rest, _ := strings.Cut(line, " ")
	switch strings.ToUpper(verb) {
	case "EHLO", "LHLO", "HELO":
		s.hello = rest
		lines := append([]string{"250-rogue.test", "250-PIPELINING", "250-8BITMIME"}, s.scram.offers(s.tls != nil)...)
		return s.say(AtHello, append(lines, "250 ENHANCEDSTATUSCODES")...)
	case "STARTTLS":
		return s.write("220 2.0.0 go on") && s.startTLS()
	case "AUTH":
		s.tell("auth " + rest)
		return s.auth(rest)
	case "MAIL":
		s.now = Received{Conn: fmt.Sprint(s.number), Remote: s.conn.RemoteAddr().String(), Hello: s.hello, User: s.user, TLS: s.tls != nil, From: path(rest)}
		return s.say(AtMail, "250 2.1.0 ok")
	case "RCPT":
		s.now.To = append(s.now.To, mail.Recipient{Address: path(rest)})
		return s.say(AtRcpt, "250 2.1.5 ok")
	case "DATA":
		return s.say(AtData, "354 go on") && s.content()
	case "QUIT":
		s.write("221 2.0.0 bye")
		return false
	case "RSET", "NOOP":
		return s.write("250 2.0.0 ok")
	default:
		return s.write("500 5.5.1 what?")
	}
}

// content reads a message and answers its dot.
func (s *rogueSession) content() bool {
	if s.due(AtBody) {
		s.in.ReadString('\n')
		return s.misbehave()
	}
	for {
		line, err := s.in.ReadString('\n')
		if err != nil {
			return false
		}
		if line == ".\r\n" {
			break
		}
		s.now.Data = append(s.now.Data, strings.TrimPrefix(line, ".")...)
	}
	s.mu.Lock()
	s.dots++
	if !s.due(AtDot) {
		s.received = append(s.received, s.now) // before its 250 is heard
	}
	s.mu.Unlock()
	answers := 1
	if s.lmtp {
		answers = len(s.now.To)
	}
	for range answers {
		if !s.say(AtDot, "250 2.0.0 kept by the rogue") {
			return false
		}
	}
	s.message++
	return true
}

// say answers, or misbehaves when this is the stage.
func (s *rogueSession) say(stage string, lines ...string) bool {
	s.tell(stage)
	if s.due(stage) {
		return s.misbehave()
	}
	return s.write(lines...)
}

func (s *rogueSession) tell(event string) {
	select {
	case s.events <- fmt.Sprint(s.number, " ", event):
	default: // nobody listens
	}
}

func (s *rogueSession) due(stage string) bool {
	f := s.fault
	return f.Do != "" && f.Stage == stage && s.message >= f.From && (f.Conns == 0 || s.number <= f.Conns)
}

func (s *rogueSession) write(lines ...string) bool {
	_, err := io.WriteString(s.conn, strings.Join(lines, "\r\n")+"\r\n")
	return err == nil
}

// misbehave does what the fault says; true goes on with the session.
func (s *rogueSession) misbehave() bool {
	switch s.fault.Do {
	case Hang:
		<-s.ctx.Done()
	case Garbage:
		io.WriteString(s.conn, "\x16\x03\x01\x00\xff\xfehello?\r\n\r\n99 bottles\r\n")
		<-s.ctx.Done()
	case Endless:
		s.flood(strings.Repeat("250-and another thing\r\n", 100))
	case NoLine:
		s.flood("250 " + strings.Repeat("blah ", 500))
	case Reset:
		if tcp, ok := s.conn.(*net.TCPConn); ok {
			tcp.SetLinger(0)
		}
	case Answer:
		return s.write(s.fault.Reply)
	}
	return false
}

// flood writes until the other side has had enough.
func (s *rogueSession) flood(text string) {
	for {
		s.conn.SetWriteDeadline(time.Now().Add(time.Minute))
		if _, err := io.WriteString(s.conn, text); err != nil {
			return
		}
	}
}

// path is the address of "FROM:<a@b>" and "TO:<a@b>".
func path(arg string) mail.Address {
	_, rest, _ := strings.Cut(arg, "<")
	text, _, _ := strings.Cut(rest, ">")
	a, _ := mail.ParseAddress(text) // the null path is the zero Address
	return a
}
