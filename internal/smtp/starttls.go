package smtp

import (
	"bytes"
	"crypto/tls"
	"net"
	"time"

	"github.com/sallyport-mail/sallyport/internal/mail"
)

// offersTLS reports whether STARTTLS can be used now.
func (c *dialog) offersTLS() bool { return c.rules.TLS != nil && c.TLS == nil }

// startTLS answers STARTTLS (RFC 3207 4).
func (c *dialog) startTLS(arg []byte) {
	switch {
	case c.TLS != nil:
		c.outOfOrder("STARTTLS", "TLS is in use already")
		return
	case c.rules.TLS == nil:
		c.refuse("STARTTLS", mail.Reply{Code: 502, Enhanced: "5.5.1", Text: "STARTTLS is not offered here"})
		return
	case len(arg) > 0:
		c.refuse("STARTTLS", *badSyntax())
		return
	case !c.state.allows(eventStartTLS):
		c.outOfOrder("STARTTLS", "STARTTLS comes after EHLO and before MAIL")
		return
	}
	if ready := c.rules.TLSReady; ready != nil && !ready(c.ctx()) {
		// Better than to say 220 and break the handshake, after which most
		// clients would have to begin anew, and some would give up.
		c.refuse("STARTTLS", mail.Reply{Code: 454, Enhanced: "4.7.0", Text: "TLS is not available now, try again later"})
		return
	}
	c.ok("220 2.0.0 go ahead\r\n")
	if c.flush() != nil {
		return
	}
	// What came in clear behind STARTTLS may be an attacker's (CVE-2011-0411):
	// it is neither executed later nor given to the handshake.
	c.in.drop()
	c.skipping = false
	c.enter(phaseSetup)
	defer c.enter(phaseCommands)
	if err := c.handshake(); err != nil {
		c.session.Refused("STARTTLS", mail.Reply{Code: 454, Enhanced: "4.7.0", Text: "TLS handshake failed: " + err.Error()})
		c.closing = true
		return
	}
	c.move(eventStartTLS)
	c.Hello, c.ESMTP, c.User = "", false, "" // RFC 3207 4.2: nothing said in clear counts
}

// handshake turns the connection into a TLS one.
func (c *dialog) handshake() error {
	patience := setupTimeout
	if first := c.rules.FirstCommandTimeout; first < patience && c.door.crowded() {
		patience = first
	}
	conn := tls.Server(c.unread(), c.rules.TLS)
	if err := c.socket.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	c.armed = time.Time{}
	if err := conn.HandshakeContext(c.shaking()); err != nil {
		return err
	}
	if err := c.socket.SetDeadline(time.Time{}); err != nil {
		return err
	}
	c.nc = conn
	c.in.use(conn)
	state := conn.ConnectionState()
	c.TLS = &state
	c.lookShown()
	return nil
}

// unread is the socket with the bytes before it that were read with a PROXY
// header. With STARTTLS there are none: they were dropped.
func (c *dialog) unread() net.Conn {
	data := c.in.data()
	if len(data) == 0 {
		return c.socket
	}
	return &unreadConn{Conn: c.socket, front: bytes.Clone(data)}
}

type unreadConn struct {
	net.Conn
	front []byte
}

func (u *unreadConn) Read(p []byte) (int, error) {
	if len(u.front) == 0 {
		return u.Conn.Read(p)
	}
	n := copy(p, u.front)
	u.front = u.front[n:]
	return n, nil
}
