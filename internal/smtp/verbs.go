package smtp

import (
	"strconv"

	"github.com/sallyport-mail/sallyport/internal/mail"
)

// dispatch answers one command.
func (c *dialog) dispatch(cmd command) {
	switch cmd.verb {
	case "EHLO", "HELO":
		c.hello(cmd)
	case "MAIL":
		c.mailFrom(cmd.arg)
	case "RCPT":
		c.rcptTo(cmd.arg)
	case "DATA":
		c.data(cmd.arg)
	case "BDAT":
		c.bdat(cmd.arg)
	case "STARTTLS":
		c.startTLS(cmd.arg)
	case "AUTH":
		c.auth(cmd.arg)
	default:
		c.small(cmd)
	}
}

// small answers the commands that are about nothing.
func (c *dialog) small(cmd command) {
	if c.idle++; c.idle > maxIdle {
		c.refuse(cmd.verb, mail.Reply{Code: 421, Enhanced: "4.7.0", Text: "too many commands without a message"})
		return
	}
	switch cmd.verb {
	case "RSET":
		c.reset()
		c.ok("250 2.0.0 ok\r\n")
	case "NOOP":
		c.ok("250 2.0.0 ok\r\n")
	case "QUIT":
		c.ok("221 2.0.0 bye\r\n")
		c.closing = true
	case "VRFY":
		// RFC 5321 7.3: who asks for addresses is told to try.
		c.ok("252 2.5.0 not verified, send a message to find out\r\n")
	case "HELP":
		c.ok("214 2.0.0 see RFC 5321\r\n")
	case "EXPN":
		c.refuse(cmd.verb, mail.Reply{Code: 502, Enhanced: "5.5.1", Text: "not implemented"})
	default:
		c.refuse(cmd.verb, mail.Reply{Code: 500, Enhanced: "5.5.1", Text: "command not recognized"})
	}
}

// outOfOrder is 503: the command cannot come here.
func (c *dialog) outOfOrder(verb, text string) {
	c.refuse(verb, mail.Reply{Code: 503, Enhanced: "5.5.1", Text: text})
}

// move changes the state by an event that was found allowed.
func (c *dialog) move(e event) {
	if to, ok := next(c.state, e); ok {
		c.state = to
	}
}

// reset abandons the transaction, if there is one.
func (c *dialog) reset() {
	if c.state.inTransaction() {
		c.session.Reset()
	}
	c.tx = transaction{}
	c.move(eventReset)
}

// hello answers EHLO and HELO (RFC 5321 4.1.1.1), which also abandon a
// transaction (4.1.4).
func (c *dialog) hello(cmd command) {
	if !isHelloName(cmd.arg) {
		c.refuse(cmd.verb, mail.Reply{Code: 501, Enhanced: "5.5.4", Text: "name of your host missing or malformed"})
		return
	}
	if c.state.inTransaction() {
		c.reset()
	}
	c.Hello, c.ESMTP = string(cmd.arg), cmd.verb == "EHLO"
	if r := c.session.Hello(c.ctx()); r != nil {
		c.reply(*r)
		if !r.Positive() {
			return
		}
	} else {
		c.welcome()
	}
	c.move(eventHello)
}

// isHelloName accepts any one word of printable ASCII: what it is worth is
// policy's business.
func isHelloName(arg []byte) bool {
	for _, b := range arg {
		if b <= ' ' || b > '~' {
			return false
		}
	}
	return len(arg) > 0 && len(arg) <= 255
}

// welcome is the positive reply to EHLO and HELO, with the extensions that
// can be used on this connection as it is now.
func (c *dialog) welcome() {
	if !c.ESMTP {
		c.say(250, c.hostname())
		return
	}
	out := append(c.room(), "250-"...)
	out = append(appendText(out, c.hostname()), "\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250-CHUNKING\r\n250-DSN\r\n250-ENHANCEDSTATUSCODES\r\n"...)
	if c.offersTLS() {
		out = append(out, "250-STARTTLS\r\n"...)
	}
	if c.offersAuth() {
		out = append(out, "250-AUTH PLAIN LOGIN\r\n"...)
	}
	out = append(out, "250 SIZE"...)
	if c.rules.MaxSize > 0 {
		out = strconv.AppendInt(append(out, ' '), c.rules.MaxSize, 10)
	}
	c.out = append(out, '\r', '\n')
}
