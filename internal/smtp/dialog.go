package smtp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"runtime/debug"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sallyport-mail/sallyport/internal/mail"
)

const (
	setupTimeout    = 30 * time.Second // a TLS handshake
	farewellTimeout = 2 * time.Second  // the last reply of a connection, and what the client still sends
	lingerBytes     = 1 << 20          // read of that before closing
	outLimit        = 4 << 10          // replies held back for one write
	maxIdle         = 100              // NOOP, RSET and the like between two messages
)

// phase says what a connection is doing, for those who want to end it.
type phase int

const (
	phaseSetup    phase = iota // PROXY header, TLS handshake, greeting
	phaseCommands              // may be interrupted at any time
	phaseContent               // in DATA or BDAT: left to finish
)

// dialog is one connection being served: its own goroutine runs serve, and
// others may only call wake, expire and abort.
type dialog struct {
	Conn
	door   *door
	server *Server
	rules  *Listener

	socket net.Conn // as it was accepted
	nc     net.Conn // socket, or TLS over it
	in     input
	out    []byte // replies not yet written

	session   Session
	state     state
	tx        transaction
	next      command // read already, while in BDAT
	negatives int     // negative replies given
	idle      int     // NOOP and the like since the last message
	authFails int
	skipping  bool // the rest of a bad line is still to come
	first     bool // no whole command has come yet
	sender    bool // a MAIL was accepted
	closing   bool // no more commands
	linger    bool // the client is in the middle of sending

	armed    time.Time     // the socket's deadline
	until    time.Time     // when reading must have brought what is awaited
	patience time.Duration // how long that was when it began

	mu      sync.Mutex // guards phase against wake, and shown
	phase   phase
	shown   string // SHA-256 (hex) of the certificate that the handshake showed
	woken   atomic.Bool
	expired atomic.Bool // woken because that certificate is over

	// The door's, under its lock.
	chain         *chain
	since         time.Time // when it came into its chain
	before, after *dialog
	evicted       bool
}

// transaction is what the server itself must know of one.
type transaction struct {
	utf8    bool
	rcpts   int
	started time.Time
}

func newDialog(d *door, nc net.Conn) *dialog {
	now := time.Now()
	c := &dialog{
		door: d, server: d.server, rules: &d.rules,
		socket: nc, nc: nc, since: now, first: true,
		Conn: Conn{
			ID:        strconv.FormatUint(rand.Uint64(), 36),
			Listener:  d.rules.Name,
			Remote:    addrPort(nc.RemoteAddr()),
			Local:     addrPort(nc.LocalAddr()),
			StartedAt: d.server.Now(),
		},
	}
	c.in.pool = d.server.pool
	return c
}

// addrPort is the address of a TCP connection, zero for anything else.
func addrPort(a net.Addr) netip.AddrPort {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	ap := tcp.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}

// serve is the life of a connection.
func (c *dialog) serve() {
	defer c.door.leave(c)
	defer c.end()
	defer c.rescue()
	if !c.open() {
		return
	}
	c.enter(phaseCommands)
	for !c.closing {
		cmd, err := c.readCommand()
		if err != nil {
			c.hangUp(err)
			return
		}
		c.dispatch(cmd)
	}
}

// open does what comes before the first command.
func (c *dialog) open() bool {
	c.in.use(c.nc)
	if !c.readProxy() {
		return false
	}
	if c.rules.ImplicitTLS && c.handshake() != nil {
		return false
	}
	session, refusal := c.server.Backend.Connect(c.server.ctx, &c.Conn)
	c.session = session
	if refusal != nil {
		c.out = appendReply(c.out, *refusal, false)
		c.closing = true
		_ = c.flush()
		return false
	}
	c.say(220, c.hostname()+" ESMTP")
	return true
}

// hostname is what we call ourselves on this connection.
func (c *dialog) hostname() string {
	if c.rules.Hostname != nil {
		if name := c.rules.Hostname(&c.Conn); name != "" {
			return name
		}
	}
	return "localhost"
}

// end closes whatever is open.
func (c *dialog) end() {
	if c.session != nil {
		c.session.Close()
	}
	c.flushLast()
	if c.linger {
		c.drainSocket()
	}
	_ = c.nc.Close()
	c.in.drop()
}

// flushLast writes what is said last.
func (c *dialog) flushLast() {
	if c.in.raw != nil && !c.linger && len(c.out) > 0 {
		c.out = c.out[writeLast(c.in.raw, c.out):]
	}
	_ = c.flush()
}

// drainSocket lets the client read our last reply before it learns that we
// are gone: closing a socket with unread bytes resets it, and a reset takes
// the reply away.
func (c *dialog) drainSocket() {
	half, ok := c.socket.(interface{ CloseWrite() error })
	if !ok {
		return
	}
	if half.CloseWrite() != nil || c.socket.SetDeadline(time.Now().Add(farewellTimeout)) != nil {
		return
	}
	_, _ = io.CopyN(io.Discard, c.socket, lingerBytes)
}

// rescue keeps a mistake in a session from ending all the other ones.
func (c *dialog) rescue() {
	if p := recover(); p != nil {
		c.server.Log.Error("session panicked", "connection", c.ID, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
		c.farewell(mail.Reply{Code: 421, Enhanced: "4.3.0", Text: "internal error"})
	}
}

// hangUp ends a connection on which reading failed.
func (c *dialog) hangUp(err error) {
	switch {
	case c.woken.Load() && (err == errWoken || isTimeout(err)):
		c.farewell(mail.Reply{Code: 421, Enhanced: "4.3.2", Text: c.leaveText()})
	case isTimeout(err):
		c.deny("", mail.Reply{Code: 421, Enhanced: "4.4.2", Text: "timeout"})
	case err == errTooSlow:
		c.linger = true
		c.deny("", mail.Reply{Code: 421, Enhanced: "4.4.2", Text: "too slow"})
	case err == errNoLineEnds:
		c.deny("", mail.Reply{Code: 421, Enhanced: "4.5.2", Text: "lines end with CR LF"})
	case err == errFlood:
		c.linger = true
		c.deny("", mail.Reply{Code: 421, Enhanced: "4.5.2", Text: "line without end"})
	}
	c.closing = true
}

func (c *dialog) leaveText() string {
	switch {
	case c.server.stopping.Load():
		return c.hostname() + " is going down"
	case c.expired.Load():
		return "the certificate of this session is not in use any more, connect again"
	}
	return "too many connections, and yours has been silent"
}

func isTimeout(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) }

// farewell says a last reply.
func (c *dialog) farewell(r mail.Reply) {
	_ = c.socket.SetWriteDeadline(time.Now().Add(farewellTimeout))
	c.out = appendReply(c.out, r, true)
	c.closing = true
	_ = c.flush()
}

// deny is farewell for what the session should count.
func (c *dialog) deny(verb string, r mail.Reply) {
	if c.session != nil {
		c.session.Refused(verb, r)
	}
	c.farewell(r)
}

// say adds a reply without an enhanced code.
func (c *dialog) say(code int, text string) {
	c.out = appendReply(c.room(), mail.Reply{Code: code, Text: text}, false)
}

// ok adds a positive reply as it stands.
func (c *dialog) ok(line string) { c.out = append(c.room(), line...) }

// room is out with space for a reply.
func (c *dialog) room() []byte {
	if len(c.out) > outLimit {
		_ = c.flush()
	}
	if c.out == nil {
		c.out = make([]byte, 0, 512)
	}
	return c.out
}

// refuse gives a negative reply of the server's own.
func (c *dialog) refuse(verb string, r mail.Reply) {
	c.session.Refused(verb, r)
	c.reply(r)
}

// reply gives a reply and counts it when negative.
func (c *dialog) reply(r mail.Reply) {
	c.out = appendReply(c.room(), r, true)
	if r.Code == 421 {
		c.closing = true
	}
	// A full transaction is no error of the sender's: he is told to go on with
	// the others in the next one (RFC 5321 4.5.3.1.10).
	if r.Positive() || r.Code == 452 && r.Enhanced == "4.5.3" || c.closing {
		return
	}
	c.negatives++
	if c.negatives >= c.rules.MaxErrors {
		c.closing, c.linger = true, true
		tooMany := mail.Reply{Code: 421, Enhanced: "4.7.0", Text: "too many errors"}
		c.out = appendReply(c.out, tooMany, true)
		c.session.Refused("", tooMany)
	}
}

// flush writes the replies that are due. They are held back while commands
// are still in the input, so that a pipelined group costs one write.
func (c *dialog) flush() error {
	if len(c.out) == 0 {
		return nil
	}
	_, err := c.nc.Write(c.out)
	c.out = c.out[:0]
	if cap(c.out) > outLimit {
		c.out = nil
	}
	if err != nil {
		c.closing = true
	}
	return err
}

// expect gives what is awaited next its time; 0 leaves that open.
func (c *dialog) expect(patience time.Duration) {
	c.until, c.patience = time.Time{}, patience
	if patience <= 0 {
		return
	}
	c.until = time.Now().Add(patience)
	limit := c.rules.TransactionTimeout
	if limit <= 0 || c.tx.started.IsZero() {
		return
	}
	if last := c.tx.started.Add(limit); last.Before(c.until) {
		c.until = last
	}
}

// fill waits for more input, until the time that expect has set.
func (c *dialog) fill() error {
	if err := c.arm(); err != nil {
		return err
	}
	if err := c.flush(); err != nil {
		return err
	}
	// Whoever wakes us sets woken first and the deadline then, we the other
	// way round: one of us sees the other.
	if c.woken.Load() && c.phase == phaseCommands {
		return errWoken
	}
	return c.in.more()
}

// arm sets the deadline of the socket's next reads and writes. Moving it by
// less than a second is not worth the timer.
func (c *dialog) arm() error {
	off := c.until.Sub(c.armed)
	if c.until.Equal(c.armed) || !c.until.IsZero() && off.Abs() <= min(time.Second, c.patience/8) {
		return nil
	}
	c.armed = c.until
	return c.socket.SetDeadline(c.until)
}

// enter changes the phase. A deadline that wake has set in the old phase does
// not count in content.
func (c *dialog) enter(p phase) {
	c.mu.Lock()
	c.phase = p
	c.mu.Unlock()
	if c.woken.Load() {
		c.armed = time.Time{}
	}
}

// wake asks the connection to leave: at once where it waits for a command,
// after the reply where it is in content.
func (c *dialog) wake() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.woken.Store(true)
	switch c.phase {
	case phaseSetup:
		_ = c.socket.Close()
	case phaseCommands:
		_ = c.socket.SetReadDeadline(time.Unix(1, 0))
	case phaseContent:
	}
}

// abort closes the socket under whatever the connection is doing.
func (c *dialog) abort() { _ = c.socket.Close() }

// ctx is what sessions are called with: it ends when the server is stopped
// for good.
func (c *dialog) ctx() context.Context { return c.server.ctx }
