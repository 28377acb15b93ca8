package smtp

import (
	"bytes"
	"strconv"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/mail"
)

func needsTLS() *mail.Reply { return &mail.Reply{Code: 530, Enhanced: "5.7.0", Text: "STARTTLS first"} }
func needsUTF8() *mail.Reply {
	return &mail.Reply{Code: 553, Enhanced: "5.6.7", Text: "address needs SMTPUTF8, which MAIL did not declare"}
}

// mailFrom answers MAIL FROM:<path> with its parameters (RFC 5321 4.1.1.2).
func (c *dialog) mailFrom(arg []byte) {
	if bad := c.mayMail(); bad != nil {
		c.refuse("MAIL", *bad)
		return
	}
	path, params, bad := cutArgument(arg, "FROM:", "5.1.7")
	if bad != nil {
		c.refuse("MAIL", *bad)
		return
	}
	from, p, bad := c.readSender(path, params)
	if bad != nil {
		c.refuse("MAIL", *bad)
		return
	}
	if r := c.session.Mail(c.ctx(), from, p); r != nil {
		c.reply(*r)
		if !r.Positive() {
			return
		}
	} else {
		c.ok("250 2.1.0 sender ok\r\n")
	}
	if !c.sender { // one that was evicted just now learns of it at its next command
		c.sender = c.door.mails(c)
	}
	c.tx = transaction{utf8: p.UTF8}
	if c.rules.TransactionTimeout > 0 {
		c.tx.started = time.Now()
	}
	c.move(eventMail)
}

// mayMail says why there can be no transaction now.
func (c *dialog) mayMail() *mail.Reply {
	switch {
	case c.state.inTransaction():
		return &mail.Reply{Code: 503, Enhanced: "5.5.1", Text: "MAIL was given already"}
	case !c.state.allows(eventMail):
		return &mail.Reply{Code: 503, Enhanced: "5.5.1", Text: "EHLO or HELO first"}
	case c.rules.RequireTLS && c.TLS == nil:
		return needsTLS()
	}
	return nil
}

// readSender checks what stands in a MAIL command.
func (c *dialog) readSender(path, params []byte) (from mail.Address, p mail.FromParams, bad *mail.Reply) {
	if len(params) > 0 && !c.ESMTP {
		return from, p, badParameter() // RFC 5321 4.1.1.11: extensions need EHLO
	}
	p, bad = fromParams(params, c.offersAuth() || c.User != "")
	if bad != nil {
		return from, p, bad
	}
	if c.rules.MaxSize > 0 && p.Size > c.rules.MaxSize {
		return from, p, &mail.Reply{Code: 552, Enhanced: "5.3.4", Text: "message is bigger than " + strconv.FormatInt(c.rules.MaxSize, 10) + " bytes"}
	}
	if len(path) == 0 {
		return from, p, nil
	}
	from, bad = readAddress(path, p.UTF8, "5.1.7")
	return from, p, bad
}

// rcptTo answers RCPT TO:<path> with its parameters (RFC 5321 4.1.1.3).
func (c *dialog) rcptTo(arg []byte) {
	if !c.state.allows(eventRcpt) {
		c.outOfOrder("RCPT", "MAIL first")
		return
	}
	if c.rules.MaxRcpt > 0 && c.tx.rcpts >= c.rules.MaxRcpt {
		c.refuse("RCPT", mail.Reply{Code: 452, Enhanced: "4.5.3", Text: "too many recipients"})
		return
	}
	to, bad := c.readRecipient(arg)
	if bad != nil {
		c.refuse("RCPT", *bad)
		return
	}
	if r := c.session.Rcpt(c.ctx(), to); r != nil {
		c.reply(*r)
		if !r.Positive() {
			return
		}
	} else {
		c.ok("250 2.1.5 recipient ok\r\n")
	}
	c.tx.rcpts++
	c.move(eventRcpt)
}

// readRecipient checks what stands in a RCPT command.
func (c *dialog) readRecipient(arg []byte) (to mail.Recipient, bad *mail.Reply) {
	path, params, bad := cutArgument(arg, "TO:", "5.1.3")
	if bad != nil {
		return to, bad
	}
	if len(params) > 0 && !c.ESMTP {
		return to, badParameter()
	}
	if bad = rcptParams(params, &to); bad != nil {
		return to, bad
	}
	if mail.IsBarePostmaster(string(path)) {
		// RFC 5321 4.1.1.3: the one recipient without a domain, who is this
		// host's.
		to.Address = mail.Address{Local: string(path), Domain: c.hostname()}
		return to, nil
	}
	to.Address, bad = readAddress(path, c.tx.utf8, "5.1.3")
	return to, bad
}

// cutArgument takes "FROM:<path> params" apart, without the source route.
func cutArgument(arg []byte, keyword, enhanced string) (path, params []byte, bad *mail.Reply) {
	n := len(keyword)
	if len(arg) < n || !bytes.EqualFold(arg[:n], []byte(keyword)) {
		return nil, nil, &mail.Reply{Code: 501, Enhanced: "5.5.4", Text: "expected " + keyword + "<address>"}
	}
	path, params, ok := cutPath(arg[n:])
	if !ok {
		return nil, nil, &mail.Reply{Code: 501, Enhanced: enhanced, Text: "address must stand in angle brackets: " + keyword + "<address>"}
	}
	return stripRoute(path), params, nil
}

// readAddress parses a path that is not empty.
func readAddress(path []byte, utf8 bool, enhanced string) (mail.Address, *mail.Reply) {
	a, err := mail.ParseAddress(string(path))
	if err != nil {
		return a, &mail.Reply{Code: 501, Enhanced: enhanced, Text: fault.Sentence(err)}
	}
	if !utf8 && hasHighByte(path) {
		return a, needsUTF8() // RFC 6531 3.4
	}
	return a, nil
}

func hasHighByte(p []byte) bool {
	for _, b := range p {
		if b >= 0x80 {
			return true
		}
	}
	return false
}
