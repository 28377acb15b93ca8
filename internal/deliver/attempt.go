package deliver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/sallyport-mail/sallyport/internal/connection"
	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/mail"
	"github.com/sallyport-mail/sallyport/internal/queue"
	"github.com/sallyport-mail/sallyport/internal/smtp"
)

// attempt tries to deliver an item: over the connection in hand or an idle one
// when there is one, else over a new one to each of its ways in turn.
func (w *worker) attempt(it *queue.Item) queue.Attempt {
	r, err := w.route(w.ctx, it)
	if w.ctx.Err() != nil {
		return skipped()
	}
	if err != nil {
		return unresolved(err)
	}
	if w.reuse(r) {
		// A connection that was good a moment ago may have been closed just
		// now: that is no failure of the host.
		if a, unsent := w.transact(it); !unsent {
			return a
		}
	}
	return w.fresh(it, r)
}

// reuse puts a connection that serves the route into hand, if there is one.
func (w *worker) reuse(r *route) bool {
	if w.conn != nil {
		if w.conn.route == r || r.has(w.conn.sameness) {
			w.conn.route = r
			if w.usable(w.conn) {
				return true
			}
			w.quit(w.conn)
			w.conn = nil
		}
		w.shelve()
	}
	for i := range r.ways {
		for c := w.idle.take(r.ways[i].sameness); c != nil; c = w.idle.take(r.ways[i].sameness) {
			if w.usable(c) {
				c.route = r
				w.conn = c
				return true
			}
			w.quit(c)
		}
	}
	return false
}

// fresh opens a connection to the ways in turn until one takes the item, or
// says something about it.
func (w *worker) fresh(it *queue.Item, r *route) queue.Attempt {
	var fs failures
	ways := w.known.order(r, time.Now())
	var patience time.Time
	for {
		a, full, done := w.each(it, r, ways, &fs)
		now := time.Now()
		switch {
		case done:
			return a
		case w.ctx.Err() != nil:
			return skipped()
		case len(full) == 0:
			return fs.attempt()
		case patience.IsZero():
			patience = now.Add(roomPatience)
		case now.After(patience):
			return skipped()
		}
		if !w.ceiling.wait(w.ctx, full[0].sameness.address, patience.Sub(now)) {
			return skipped()
		}
		ways = full
	}
}

// each tries ways in turn; full are those at the host ceiling.
func (w *worker) each(it *queue.Item, r *route, ways []way, fs *failures) (a queue.Attempt, full []way, done bool) {
	for _, way := range ways {
		if w.ctx.Err() != nil {
			return a, full, false
		}
		begun := time.Now()
		c, err := w.connect(way, it)
		if err != nil {
			if w.ctx.Err() == nil {
				f := dialFailure(way, err)
				w.note(way, false, time.Since(begun), f.String())
				w.known.failed(way.sameness, time.Now())
				fs.add(f)
			}
			continue
		}
		if c == nil {
			full = append(full, way)
			continue
		}
		w.known.worked(way.sameness)
		c.route = r
		w.conn = c
		a, unsent := w.transact(it)
		if !unsent {
			fs.annotate(&a)
			return a, nil, true
		}
		w.known.failed(way.sameness, time.Now())
		fs.add(failure{peer: a.Peer, stage: a.Stage, reply: *a.Whole, tls: a.TLS})
	}
	return a, full, false
}

// connect opens a way for an item; nil when the host is at its ceiling. Our
// certificate is asked for before a place at the host is taken: while a keeper
// is slow or away its tenants hold no places that others could use.
func (w *worker) connect(way way, it *queue.Item) (*conn, error) {
	ours, err := w.identify(w.ctx, way)
	if err != nil {
		return nil, err
	}
	p := w.place(way)
	if p == nil {
		w.sessions.done(ours.dialled, nil, nil)
		return nil, nil
	}
	return w.open(w.ctx, way, it.Destination, it.Message, p, ours)
}

// place gets a share of the host ceiling, if need be at the cost of an idle
// connection to the same host.
func (w *worker) place(way way) *place {
	host := way.sameness.address
	p := w.ceiling.take(host)
	if p != nil {
		return p
	}
	if c := w.idle.evict(host); c != nil {
		w.drop(c)
		p = w.ceiling.take(host)
	}
	return p
}

// transact sends an item over the connection in hand. unsent means that the
// connection broke before any content was asked for, so that another one may
// be tried; the attempt then says how.
func (w *worker) transact(it *queue.Item) (a queue.Attempt, unsent bool) {
	c := w.conn
	a = queue.Attempt{Peer: c.name, TLS: c.tls, DSN: c.dsn}
	if limit := c.client.MaxSize(); limit > 0 && it.Size > limit {
		a.Stage, a.Whole = "mail", tooLarge(it.Size, limit, c.name)
		return a, false
	}
	content, body, err := w.content(it)
	if err != nil {
		a.Stage, a.Whole = "data", unreadable(err)
		return a, false
	}
	defer body.close()

	to := pending(it)
	params := it.Params
	params.Size = it.Size
	c.sent++
	stopped := false
	result, err := c.client.Send(w.sending, mail.Envelope{From: it.From, Params: params, To: to}, content, func(ctx context.Context) error {
		failed := c.recorded(ctx)
		stopped = failed != nil
		return failed
	})
	o := judge(result, err, len(to), c.Target.LMTP)
	switch {
	case !o.broken:
		c.place.answered()
	case errors.Is(err, os.ErrDeadlineExceeded):
		c.place.silent()
	}
	if o.broken {
		w.drop(c)
		w.conn = nil
	}
	switch {
	case !result.Sent && (stopped || w.sending.Err() != nil):
		return skipped(), false
	case body.failed != nil && !result.Sent:
		a.Stage, a.Whole = "data", unreadable(body.failed)
		return a, false
	case errors.Is(err, smtp.ErrBareLine):
		a.Stage, a.Whole = "data", unsendable()
		return a, false
	}
	a.Stage, a.Whole, a.Replies = o.stage, o.whole, o.replies
	return a, o.unsent
}

// pending are the recipients that are still to be served.
func pending(it *queue.Item) []mail.Recipient {
	to := make([]mail.Recipient, 0, len(it.Recipients))
	for i := range it.Recipients {
		if it.Recipients[i].State == "queued" {
			to = append(to, it.Recipients[i].Recipient)
		}
	}
	return to
}

// body is an item's content from the store, opened before the transaction so
// that one that cannot be read costs no connection.
type body struct {
	io.ReadCloser
	failed error // what reading met, apart from the end
}

func (b *body) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil && err != io.EOF {
		b.failed = err
	}
	return n, err
}

// Close is left to close, which is called in every case.
func (b *body) Close() error { return nil }

func (b *body) close() {
	if b.ReadCloser != nil {
		_ = b.ReadCloser.Close() // only read from
	}
}

// content is what is to be sent: from memory when it is still there.
func (w *worker) content(it *queue.Item) (smtp.Content, *body, error) {
	c := smtp.Content{Prefix: it.Prefix, Bytes: w.queue.Bytes(it), Size: it.Size}
	b := &body{}
	if c.Bytes != nil {
		return c, b, nil
	}
	rc, err := w.queue.Open(w.sending, it)
	if err != nil {
		return c, b, err
	}
	b.ReadCloser = rc
	c.Open = func() (io.ReadCloser, error) { return b, nil }
	return c, b, nil
}

// skipped gives an item back as it was.
func skipped() queue.Attempt { return queue.Attempt{Skipped: true} }

// unresolved is the attempt that found no way. A domain that will never take
// mail is a bad destination address (RFC 3463 X.1.2), and one that says so
// itself has a null MX (RFC 7505 6).
func unresolved(err error) queue.Attempt {
	whole := &mail.Reply{Text: fault.Sentence(err)}
	switch {
	case connection.IsNullMX(err):
		whole.Code, whole.Enhanced = 556, "5.1.10"
	case fault.Is(err, fault.Never):
		whole.Code, whole.Enhanced = 550, "5.1.2"
	}
	return queue.Attempt{Stage: "resolve", Whole: whole}
}

func tooLarge(size, limit int64, peer string) *mail.Reply {
	return &mail.Reply{Code: 552, Enhanced: "5.3.4",
		Text: fmt.Sprintf("the message has %d bytes, %s takes %d at most", size, peer, limit)}
}

// unreadable is our own trouble, not the far end's: RFC 3463 4.3.0.
func unreadable(err error) *mail.Reply {
	return &mail.Reply{Code: 451, Enhanced: "4.3.0", Text: "the stored message could not be read here: " + fault.Sentence(err)}
}

// unsendable is a message that the next server might read as two: it is not
// sent at all (RFC 5321 2.3.8).
func unsendable() *mail.Reply {
	return &mail.Reply{Code: 550, Enhanced: "5.6.0", Text: "the stored message has a bare CR or LF, which cannot be sent on safely"}
}

// dialFailure says at which stage a way could not be opened.
func dialFailure(w way, err error) failure {
	f := failure{peer: w.peer(), stage: "connect"}
	var de *smtp.DialError
	if !errors.As(err, &de) {
		f.reply.Text = words(err)
		return f
	}
	switch de.Step {
	case "greeting", "hello", "tls", "auth":
		f.stage = de.Step
	case "starttls":
		f.stage = "tls"
	}
	f.reply = de.Reply
	if f.reply.Code == 0 {
		f.reply.Text = words(de.Err)
	}
	return f
}

// firstLine is for people, in a list of what failed.
func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}
