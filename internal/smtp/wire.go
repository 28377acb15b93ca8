package smtp

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"syscall"
	"time"

	"github.com/sallyport-mail/sallyport/internal/mail"
)

const (
	firstReplyBuffer = 4 << 10
	commandBuffer    = 1 << 10
)

// wire is a client's connection: commands out, replies in. Whatever goes
// wrong on it is final and kept in dead.
type wire struct {
	socket net.Conn
	nc     net.Conn        // socket, or TLS over it
	raw    syscall.RawConn // nil where socket is none
	ctx    context.Context // of the call that is under way
	buf    []byte          // replies: buf[r:w] is unread
	r, w   int
	out    []byte // commands not yet written
	armed  time.Time
	dead   error
	block  []byte      // of a body that is streamed
	copied []byte      // for TLS, where parts are put together
	vec    net.Buffers // parts of a body, for one writev
}

func (w *wire) attach(nc net.Conn) {
	w.socket, w.nc = nc, nc
	w.raw = rawConn(nc)
	w.ctx = context.Background()
	w.buf = make([]byte, firstReplyBuffer)
	w.out = make([]byte, 0, commandBuffer)
}

// secure goes on within TLS.
func (w *wire) secure(conn *tls.Conn) { w.nc = conn }

// watch makes the end of ctx interrupt reads and writes until the returned
// function is called.
func (w *wire) watch(ctx context.Context) func() {
	if ctx.Done() == nil {
		return func() {}
	}
	w.ctx = ctx
	stop := context.AfterFunc(ctx, func() { _ = w.socket.SetDeadline(time.Unix(1, 0)) })
	return func() {
		w.ctx = context.Background()
		if !stop() {
			_ = w.fail(context.Cause(ctx))
		}
	}
}

// fail makes err the end of the connection, unless it has ended already.
func (w *wire) fail(err error) error {
	if w.dead == nil {
		w.dead = err
	}
	return err
}

// arm gives the next reads and writes their time. Moving a deadline by less
// than a second is not worth the timer.
func (w *wire) arm(timeout time.Duration) error {
	until := time.Now().Add(timeout)
	if off := until.Sub(w.armed); off.Abs() > min(time.Second, timeout/8) {
		w.armed = until
		if err := w.socket.SetDeadline(until); err != nil {
			return err
		}
	}
	// After the deadline, for watch may have set its own before.
	return w.ctx.Err()
}

// command adds a line to what is to be written.
func (w *wire) command(line string) {
	w.out = append(append(w.out, line...), '\r', '\n')
}

// flush writes the commands that are due.
func (w *wire) flush(timeout time.Duration) error {
	if w.dead != nil {
		return w.dead
	}
	if w.w > w.r {
		// Nothing was asked, so nobody can tell what this answers.
		return w.fail(errUnasked)
	}
	if err := w.arm(timeout); err != nil {
		return w.fail(err)
	}
	_, err := w.nc.Write(w.out)
	w.out = w.out[:0]
	if err != nil {
		return w.fail(err)
	}
	return nil
}

// ask writes one command and reads the reply to it.
func (w *wire) ask(line string, timeout time.Duration) (mail.Reply, error) {
	w.command(line)
	if err := w.flush(timeout); err != nil {
		return mail.Reply{}, err
	}
	return w.readReply(timeout)
}

// readReply reads one reply. 421 ends the connection, but is a reply.
func (w *wire) readReply(timeout time.Duration) (mail.Reply, error) {
	if w.dead != nil {
		return mail.Reply{}, w.dead
	}
	armed := false
	for {
		r, n, err := parseReply(w.buf[w.r:w.w])
		if err != nil {
			return r, w.fail(err)
		}
		if n > 0 {
			w.r += n
			if r.Code == 421 {
				w.dead = errLeave
			}
			return r, nil
		}
		if !armed {
			if err := w.arm(timeout); err != nil {
				return r, w.fail(err)
			}
			armed = true
		}
		if err := w.more(); err != nil {
			return r, w.fail(err)
		}
	}
}

// more reads behind what is buffered; parseReply keeps that bounded.
func (w *wire) more() error {
	if w.r > 0 {
		w.w = copy(w.buf, w.buf[w.r:w.w])
		w.r = 0
	}
	if w.w == len(w.buf) {
		w.buf = append(w.buf, make([]byte, len(w.buf))...)
	}
	n, err := w.nc.Read(w.buf[w.w:])
	w.w += n
	if n > 0 {
		return nil
	}
	if err == nil || err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
