package smtp

import (
	"bytes"
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/sallyport-mail/sallyport/internal/mail"
)

// rcptBatch is how many RCPT go out in one write. Replies to more than that
// might fill the socket both ways while neither side reads (RFC 2920 3.1).
const rcptBatch = 100

var cannotUTF8 = mail.Reply{Code: 553, Enhanced: "5.6.7", Text: "the message needs SMTPUTF8, which the server does not offer"}

// Send runs one transaction, pipelined where the server offers it (RFC 2920).
// Recipients that the server refuses do not stop the others.
//
// ready, which may be nil, is called once, before the write that carries the
// final dot: until then the server can have committed nothing, and content and
// dot can travel in one write. It may block, and when it fails the connection
// is closed without the dot: this is how at most one 250 is unrecorded per
// connection.
//
// A non-nil error means that the connection is of no more use; Result then
// holds what was heard until then. When Sent is true and Data is empty, nobody
// knows whether the message was delivered. A server that takes leave with 421
// is no error where all that matters was said; Alive is false then.
//
// An envelope with Params.UTF8, or an address that needs it, is answered with
// 553 5.6.7 for everybody where the server does not offer SMTPUTF8; nothing is
// sent and the connection stays good.
func (c *Client) Send(ctx context.Context, env mail.Envelope, body Content, ready func(context.Context) error) (Result, error) {
	t := exchange{c: c, env: &env, res: Result{Rcpt: make([]mail.Reply, len(env.To))}}
	if c.dead != nil {
		return t.res, c.dead
	}
	if !c.offers.utf8 && needsSMTPUTF8(&env) {
		t.refuseAll(cannotUTF8)
		return t.res, nil
	}
	stop := c.watch(ctx)
	defer stop()
	err := t.run(ctx, body, ready)
	if err != nil {
		_ = c.fail(err)
		_ = c.Close()
	}
	return t.res, err
}

// Probe asks about recipients without sending anything (MAIL, RCPT…, RSET).
func (c *Client) Probe(ctx context.Context, from mail.Address, to []mail.Recipient) (Result, error) {
	env := mail.Envelope{From: from, To: to}
	t := exchange{c: c, env: &env, probe: true, res: Result{Rcpt: make([]mail.Reply, len(to))}}
	if c.dead != nil {
		return t.res, c.dead
	}
	if needsSMTPUTF8(&env) {
		if !c.offers.utf8 {
			t.refuseAll(cannotUTF8)
			return t.res, nil
		}
		env.Params.UTF8 = true
	}
	stop := c.watch(ctx)
	defer stop()
	err := t.envelope(0)
	if err == nil && c.dead == nil && c.needReset {
		err = t.resetNow()
	}
	if err != nil {
		_ = c.fail(err)
		_ = c.Close()
	}
	return t.res, err
}

// needsSMTPUTF8 reports whether the envelope can only travel with SMTPUTF8.
func needsSMTPUTF8(env *mail.Envelope) bool {
	if env.Params.UTF8 || env.From.NeedsUTF8() {
		return true
	}
	for i := range env.To {
		if env.To[i].NeedsUTF8() {
			return true
		}
	}
	return false
}

// exchange is one transaction of a client.
type exchange struct {
	c        *Client
	env      *mail.Envelope
	res      Result
	probe    bool
	accepted int        // recipients
	lines    int        // commands in the output
	data     mail.Reply // to DATA; code 0 when it was not said
}

func (t *exchange) run(ctx context.Context, body Content, ready func(context.Context) error) error {
	if err := t.envelope(body.Size); err != nil {
		return err
	}
	c := t.c
	if c.dead != nil {
		t.answer(t.data)
		return nil
	}
	if t.data.Code == 0 && t.accepted > 0 {
		r, err := c.ask("DATA", c.target.Timeouts.DataInit)
		if err != nil {
			return err
		}
		t.data = r
	}
	switch {
	case t.data.Code == 354 && t.accepted == 0:
		return t.loneDot()
	case t.data.Code == 354:
		return t.content(ctx, body, ready)
	case t.data.Code != 0 && t.data.Positive():
		return ErrReply // neither yes nor no: nobody knows what it expects now
	}
	t.answer(t.data)
	return nil
}

// answer notes a reply to DATA or its content, for every accepted recipient
// with LMTP.
func (t *exchange) answer(r mail.Reply) {
	if t.accepted == 0 || r.Code == 0 {
		return
	}
	times := 1
	if t.c.target.LMTP {
		times = t.accepted
	}
	for len(t.res.Data) < times {
		t.res.Data = append(t.res.Data, r)
	}
}

// refuseAll gives everybody the same reply.
func (t *exchange) refuseAll(r mail.Reply) {
	t.res.Mail = r
	t.refuseRest(r)
}

// refuseRest gives r to all recipients without an answer.
func (t *exchange) refuseRest(r mail.Reply) {
	for i := range t.res.Rcpt {
		if t.res.Rcpt[i].Code == 0 {
			t.res.Rcpt[i] = r
		}
	}
}

// envelope says MAIL and every RCPT, and with pipelining DATA behind the last.
func (t *exchange) envelope(size int64) error {
	c := t.c
	reset := c.needReset
	if reset {
		t.command("RSET")
	}
	c.out = t.appendMail(c.out, size)
	c.needReset = true // until the transaction has come to its end
	if !c.offers.pipelining {
		if err := t.exchangeMail(reset); err != nil || !t.res.Mail.Positive() || c.dead != nil {
			return err
		}
		return t.oneByOne()
	}
	for from := 0; ; from += rcptBatch {
		to := min(from+rcptBatch, len(t.env.To))
		if done, err := t.batch(from, to, reset); done || err != nil {
			return err
		}
	}
}

// command adds one without an argument.
func (t *exchange) command(verb string) {
	t.c.command(verb)
	t.lines++
}

// batch sends the recipients from..to in one write and reads the replies. It
// reports true when nothing is to follow.
func (t *exchange) batch(from, to int, reset bool) (bool, error) {
	c := t.c
	for i := from; i < to; i++ {
		c.out = t.appendRcpt(c.out, &t.env.To[i])
	}
	last := to == len(t.env.To)
	withData := last && !t.probe
	if withData {
		t.command("DATA")
	}
	if err := t.flush(c.target.Timeouts.Mail); err != nil {
		return true, err
	}
	if from == 0 {
		if err := t.readMail(reset); err != nil || c.dead != nil {
			return true, err
		}
	}
	if err := t.readRcpts(from, to); err != nil || c.dead != nil {
		return true, err
	}
	if withData {
		r, err := c.readReply(c.target.Timeouts.DataInit)
		if err != nil {
			return true, err
		}
		t.data = r
	}
	return last || !t.res.Mail.Positive(), nil
}

// flush writes the commands, if they are the lines that were meant and not
// more: an address that did not come from the parser must not become a command.
func (t *exchange) flush(timeout time.Duration) error {
	ends := bytes.Count(t.c.out, crlf)
	if ends != t.lines || bytes.Count(t.c.out, crlf[:1]) != ends || bytes.Count(t.c.out, crlf[1:]) != ends {
		return errEnvelope
	}
	t.lines = 0
	return t.c.flush(timeout)
}

// exchangeMail is MAIL without pipelining.
func (t *exchange) exchangeMail(reset bool) error {
	if err := t.flush(t.c.target.Timeouts.Mail); err != nil {
		return err
	}
	return t.readMail(reset)
}

// readMail reads the replies to RSET, if it was said, and to MAIL.
func (t *exchange) readMail(reset bool) error {
	c := t.c
	if reset {
		r, err := c.readReply(c.target.Timeouts.Mail)
		if err != nil {
			return err
		}
		if c.dead != nil {
			t.refuseAll(r)
			return nil
		}
		if r.Code != 250 {
			return ErrReply
		}
	}
	r, err := c.readReply(c.target.Timeouts.Mail)
	if err != nil {
		return err
	}
	t.res.Mail = r
	if !r.Positive() {
		c.needReset = false
		t.refuseRest(r)
	}
	return nil
}

// readRcpts reads the replies to a batch. After a refused MAIL they only say
// so (503), and the reply to MAIL stands for them.
func (t *exchange) readRcpts(from, to int) error {
	for i := from; i < to; i++ {
		r, err := t.c.readReply(t.c.target.Timeouts.Rcpt)
		if err != nil {
			return err
		}
		if !t.res.Mail.Positive() {
			if t.c.dead != nil {
				return nil
			}
			continue
		}
		t.noteRcpt(i, r)
		if t.c.dead != nil {
			return nil
		}
	}
	return nil
}

// noteRcpt keeps the reply to one recipient; 421 is one to all that follow.
func (t *exchange) noteRcpt(i int, r mail.Reply) {
	t.res.Rcpt[i] = r
	if r.Positive() {
		t.accepted++
	}
	if t.c.dead != nil {
		t.refuseRest(r)
		t.data = r
	}
}

// oneByOne says every RCPT and waits for its reply.
func (t *exchange) oneByOne() error {
	c := t.c
	for i := range t.env.To {
		c.out = t.appendRcpt(c.out, &t.env.To[i])
		if err := t.flush(c.target.Timeouts.Rcpt); err != nil {
			return err
		}
		r, err := c.readReply(c.target.Timeouts.Rcpt)
		if err != nil {
			return err
		}
		if t.noteRcpt(i, r); c.dead != nil {
			return nil
		}
	}
	return nil
}

// loneDot ends a DATA that the server accepted though it has accepted no
// recipient: with nothing, for nobody.
func (t *exchange) loneDot() error {
	c := t.c
	if c.target.LMTP {
		// It would owe us a reply per recipient, of whom there are none:
		// nobody knows what comes next.
		_ = c.fail(errUnasked)
		return c.socket.Close()
	}
	c.command(".")
	if err := c.flush(c.target.Timeouts.DataBlock); err != nil {
		return err
	}
	_, err := c.readReply(c.target.Timeouts.DataDone)
	return err
}

// content sends the message and reads what the server says to it.
func (t *exchange) content(ctx context.Context, body Content, ready func(context.Context) error) error {
	c := t.c
	sent, err := c.sendContent(ctx, body, ready)
	t.res.Sent = sent
	if err != nil {
		t.lastWords(err)
		return err
	}
	replies := 1
	if c.target.LMTP {
		replies = t.accepted
	}
	for range replies {
		r, err := c.readReply(c.target.Timeouts.DataDone)
		if err != nil {
			return err
		}
		if r.Code/100 == 3 {
			return ErrReply
		}
		t.res.Data = append(t.res.Data, r)
		if c.dead != nil {
			t.answer(r)
			return nil
		}
	}
	c.needReset = false
	return nil
}

// lastWordsTimeout is how long a server that closed in DATA has to have said
// why.
const lastWordsTimeout = time.Second

// lastWords looks for the reply of a server that ended the connection while
// the content was being sent.
func (t *exchange) lastWords(err error) {
	if !isClosedByPeer(err) {
		return
	}
	if r, err := t.c.readReply(lastWordsTimeout); err == nil && !r.Positive() {
		t.answer(r)
	}
}

// resetNow ends a probe.
func (t *exchange) resetNow() error {
	r, err := t.c.ask("RSET", t.c.target.Timeouts.Mail)
	if err != nil {
		return err
	}
	t.c.needReset = r.Code != 250
	return nil
}

// appendMail writes MAIL with the parameters that the server understands. One
// that does not offer 8BITMIME is not told of it, and gets the content as it is:
// docs/decisions/0006 says why.
func (t *exchange) appendMail(dst []byte, size int64) []byte {
	t.lines++
	o, p := &t.c.offers, &t.env.Params
	dst = append(dst, "MAIL FROM:<"...)
	dst = appendAddress(dst, t.env.From)
	dst = append(dst, '>')
	if o.size && size > 0 {
		dst = strconv.AppendInt(append(dst, " SIZE="...), size, 10)
	}
	if o.eightBit && p.Body != "" {
		dst = append(append(dst, " BODY="...), p.Body...)
	}
	if o.utf8 && needsSMTPUTF8(t.env) {
		dst = append(dst, " SMTPUTF8"...)
	}
	if o.dsn && p.Ret != "" {
		dst = append(append(dst, " RET="...), p.Ret...)
	}
	if o.dsn && p.EnvID != "" {
		dst = appendXtext(append(dst, " ENVID="...), p.EnvID)
	}
	return append(dst, '\r', '\n')
}

// appendRcpt writes RCPT.
func (t *exchange) appendRcpt(dst []byte, to *mail.Recipient) []byte {
	t.lines++
	dst = append(dst, "RCPT TO:<"...)
	dst = appendAddress(dst, to.Address)
	dst = append(dst, '>')
	if t.c.offers.dsn && to.Notify != "" {
		dst = append(append(dst, " NOTIFY="...), to.Notify...)
	}
	if t.c.offers.dsn && to.ORcpt != "" {
		dst = appendORcpt(append(dst, " ORCPT="...), to.ORcpt)
	}
	return append(dst, '\r', '\n')
}

// appendORcpt writes "addr-type;xtext".
func appendORcpt(dst []byte, orcpt string) []byte {
	kind, addr, ok := strings.Cut(orcpt, ";")
	if !ok {
		kind, addr = "rfc822", orcpt
	}
	return appendXtext(append(append(dst, kind...), ';'), addr)
}

// appendAddress writes what stands between the angle brackets.
func appendAddress(dst []byte, a mail.Address) []byte {
	dst = append(dst, a.Local...)
	if a.Domain == "" {
		return dst // the null path, or the bare postmaster
	}
	return append(append(dst, '@'), a.Domain...)
}
