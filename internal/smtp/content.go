package smtp

import (
	"bytes"
	"io"
	"strconv"
	"time"

	"github.com/sallyport-mail/sallyport/internal/mail"
)

const (
	// drainSlack is how far beyond MaxSize content is still read after it was
	// found unacceptable, so that a correct sender hears the reply.
	drainSlack = 1 << 20
	// rateGrace is when MinDataRate begins to count.
	rateGrace = 30 * time.Second
)

// content is the body of one transaction on its way in: what a session reads.
// With DATA it ends at the lone dot; with BDAT it goes on over all chunks, and
// the replies between them are given from within.
type content struct {
	c       *dialog
	lines   lineScan
	pending []byte // unstuffed, not yet handed out; in the input buffer
	size    int64  // of the content so far
	raw     int64  // bytes read for it
	began   time.Time
	chunked bool
	left    int64 // of the chunk
	chunk   int64 // its length
	last    bool  // it is the last
	ended   bool  // all of it was consumed
	err     error // what the content is refused for; sticky
	lost    error // the connection is of no more use; sticky
}

func (c *dialog) newContent() *content {
	return &content{c: c, began: time.Now(), lines: lineScan{dots: true, maxLine: c.rules.MaxLine}}
}

// data answers DATA (RFC 5321 4.1.1.4).
func (c *dialog) data(arg []byte) {
	switch {
	case len(arg) > 0:
		c.refuse("DATA", *badSyntax())
		return
	case !c.state.inTransaction():
		c.outOfOrder("DATA", "MAIL first")
		return
	case c.state == stateChunks:
		c.outOfOrder("DATA", "BDAT was used already") // RFC 3030 2
		return
	case !c.state.allows(eventContent):
		c.outOfOrder("DATA", "no valid recipients")
		return
	}
	c.ok("354 end with a dot on a line of its own\r\n")
	c.receive(c.newContent(), "DATA")
}

// receive gives content to the session and answers for both.
func (c *dialog) receive(b *content, verb string) {
	c.enter(phaseContent)
	c.in.bulk = true
	r := c.session.Data(c.ctx(), b)
	b.settle(r.Positive())
	c.in.bulk = false
	b.c = nil // the session may hold it, but shall not use it
	switch {
	case b.lost == errFlood:
		c.linger = true
		c.deny(verb, c.violation(b.err))
	case b.lost != nil:
		c.hangUp(b.lost)
	case b.err == errAborted || b.err == errClosing:
	case b.err != nil:
		c.refuse(verb, c.violation(b.err))
	default:
		c.reply(r)
		c.idle = 0
	}
	c.session.Reset()
	c.tx = transaction{}
	c.afterContent(b)
	c.enter(phaseCommands)
}

// afterContent moves the state on.
func (c *dialog) afterContent(b *content) {
	if b.ended {
		c.move(eventContent)
		return
	}
	c.move(eventFailed)
}

// violation is the reply to content that breaks a rule of ours or of SMTP.
func (c *dialog) violation(err error) mail.Reply {
	if bad, ok := err.(badLine); ok {
		return mail.Reply{Code: 550, Enhanced: "5.6.11", Text: string(bad) + " in the message; lines end with CR LF"}
	}
	if err == error(ErrLineLength) {
		return mail.Reply{Code: 500, Enhanced: "5.6.0", Text: "line too long, at most " + strconv.Itoa(c.rules.MaxLine) + " bytes with CR LF"}
	}
	return mail.Reply{Code: 552, Enhanced: "5.3.4", Text: "message is bigger than " + strconv.FormatInt(c.rules.MaxSize, 10) + " bytes"}
}

// Read implements io.Reader.
func (b *content) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if len(b.pending) == 0 {
		if err := b.advance(); err != nil {
			return 0, err
		}
	}
	n := copy(p, b.pending)
	b.pending = b.pending[n:]
	return n, nil
}

// WriteTo implements io.WriterTo: w gets the connection's buffer itself.
func (b *content) WriteTo(w io.Writer) (int64, error) {
	var total int64
	for {
		for len(b.pending) > 0 {
			n, err := w.Write(b.pending)
			total += int64(n)
			b.pending = b.pending[n:]
			if err != nil {
				return total, err
			}
		}
		if err := b.advance(); err != nil {
			if err == io.EOF {
				err = nil
			}
			return total, err
		}
	}
}

// advance brings more content into pending, or says why there is none.
func (b *content) advance() error {
	for len(b.pending) == 0 {
		switch {
		case b.c == nil:
			return io.ErrClosedPipe
		case b.lost != nil:
			return b.lost
		case b.err != nil:
			return b.err
		case b.ended:
			b.c.in.rest()
			return io.EOF
		}
		b.step()
	}
	return nil
}

// settle consumes what the session left. Of content that is refused, with
// BDAT only the chunk at hand: the next one gets its own 503.
func (b *content) settle(accepted bool) {
	b.pending = nil
	for b.lost == nil && !b.ended {
		if b.chunked && b.left == 0 && !b.last && (b.err != nil || !accepted) {
			return
		}
		b.step()
		b.pending = nil
	}
	b.c.in.rest()
}

// step consumes some input.
func (b *content) step() {
	if b.chunked && b.left == 0 {
		b.nextChunk()
		return
	}
	p := b.c.in.data()
	if b.chunked && int64(len(p)) > b.left {
		p = p[:b.left]
	}
	if len(p) > 0 {
		got := b.lines.scan(p)
		b.c.in.skip(got.used)
		b.account(got)
		if got.used > 0 {
			return
		}
	}
	b.lost = b.fill()
}

// account takes one piece in.
func (b *content) account(got piece) {
	b.raw += int64(got.used)
	b.size += int64(len(got.content))
	b.ended = got.end
	if b.chunked {
		b.left -= int64(got.used)
		b.close()
	}
	limit := b.c.rules.MaxSize
	if limit > 0 && b.size > limit {
		b.fail(ErrTooLong)
	}
	if got.err != nil {
		b.fail(got.err)
	}
	if b.err == nil {
		b.pending = got.content
	} else if limit > 0 && b.raw > limit+drainSlack && !b.ended {
		b.lost = errFlood
	}
}

func (b *content) fail(err error) {
	if b.err == nil {
		b.err = err
	}
}

// fill waits for more, unless the sender is too slow to be worth it.
func (b *content) fill() error {
	c := b.c
	c.expect(c.rules.DataTimeout)
	if rate := c.rules.MinDataRate; rate > 0 {
		if took := time.Since(b.began); took > rateGrace && float64(b.raw) < float64(rate)*took.Seconds() {
			return errTooSlow
		}
	}
	return c.fill()
}

// bdat answers BDAT (RFC 3030 2). Whatever is replied, the chunk is consumed:
// its bytes must never be read as commands.
func (c *dialog) bdat(arg []byte) {
	size, last, ok := parseBDAT(arg)
	if !ok {
		// Nobody knows where the next command begins.
		c.linger = true
		c.deny("BDAT", mail.Reply{Code: 501, Enhanced: "5.5.4", Text: "expected BDAT size [LAST]"})
		return
	}
	switch {
	case c.state == stateRcpt && !c.tooBig(size):
		b := c.newContent()
		b.lines.dots, b.chunked = false, true
		b.begin(size, last)
		c.receive(b, "BDAT")
	case !c.state.inTransaction():
		c.discard(size, mail.Reply{Code: 503, Enhanced: "5.5.1", Text: "no transaction, MAIL first"})
	case c.state == stateMail:
		c.discard(size, mail.Reply{Code: 503, Enhanced: "5.5.1", Text: "no valid recipients"})
	default:
		c.discard(size, c.violation(ErrTooLong))
		c.session.Reset()
		c.tx = transaction{}
		c.move(eventFailed)
	}
}

func (c *dialog) tooBig(size int64) bool {
	return c.rules.MaxSize > 0 && size > c.rules.MaxSize
}

// discard consumes a chunk that is of no use, and answers it with r. A chunk
// far beyond the limit is not read to its end: the connection is closed.
func (c *dialog) discard(size int64, r mail.Reply) {
	bound := max(c.rules.MaxSize, drainSlack) + drainSlack
	c.enter(phaseContent)
	defer c.enter(phaseCommands)
	for left := min(size, bound); left > 0; {
		n := min(int64(len(c.in.data())), left)
		c.in.skip(int(n))
		left -= n
		if left == 0 {
			break
		}
		c.expect(c.rules.DataTimeout)
		if err := c.fill(); err != nil {
			c.hangUp(err)
			return
		}
	}
	if size > bound {
		c.linger = true
		c.deny("BDAT", r)
		return
	}
	c.refuse("BDAT", r)
}

// parseBDAT reads "size" or "size LAST".
func parseBDAT(arg []byte) (size int64, last, ok bool) {
	number, word, more := bytes.Cut(arg, []byte{' '})
	if len(number) == 0 || len(number) > 18 {
		return 0, false, false
	}
	for _, b := range number {
		if b < '0' || b > '9' {
			return 0, false, false
		}
		size = size*10 + int64(b-'0')
	}
	last = bytes.EqualFold(word, []byte("LAST"))
	return size, last, !more || last
}

// begin starts a chunk.
func (b *content) begin(size int64, last bool) {
	b.left, b.chunk, b.last = size, size, last
	b.close()
}

// close notices the end of the last chunk.
func (b *content) close() {
	if b.chunked && b.left == 0 && b.last && !b.ended {
		b.ended = true
		if err := b.lines.ends.finish(); err != nil {
			b.fail(err)
		}
	}
}

// nextChunk confirms a chunk and waits for the next one. Commands that have
// nothing to do with it are answered; those that end the transaction are kept
// for the dialog.
func (b *content) nextChunk() {
	c := b.c
	c.ok("250 2.0.0 " + strconv.FormatInt(b.chunk, 10) + " bytes received\r\n")
	c.move(eventChunk)
	for {
		cmd, err := c.readCommand()
		if err == errClosing {
			b.err, b.lost = errClosing, err
			return
		}
		if err != nil {
			b.lost = err
			return
		}
		switch cmd.verb {
		case "BDAT":
			b.accept(cmd.arg)
			return
		case "RSET", "EHLO", "HELO", "QUIT":
			b.abandon(cmd)
			return
		}
		c.dispatch(cmd)
		if c.closing {
			b.lost = errClosing
			return
		}
	}
}

// abandon ends the content without a reply to it: cmd gets its own.
func (b *content) abandon(cmd command) {
	b.c.next = cmd
	b.err = errAborted
	b.last = false
}

// accept begins a further chunk, or consumes it where it is too big.
func (b *content) accept(arg []byte) {
	size, last, ok := parseBDAT(arg)
	switch {
	case !ok:
		b.c.bdat(arg)
		b.lost = errClosing
	case b.c.tooBig(b.size + size):
		b.c.discard(size, b.c.violation(ErrTooLong))
		b.err = errAborted
		if b.c.closing {
			b.lost = errClosing
		}
	default:
		b.begin(size, last)
	}
}
