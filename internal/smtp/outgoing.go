package smtp

import (
	"bytes"
	"context"
	"io"
	"net"
)

const (
	blockSize = 32 << 10 // of a streamed body, and of what is put together for TLS
	maxParts  = 512      // of one writev; the kernel takes 1024
)

// stuffing reads content line by line on its way out: it finds the lines that
// begin with a dot (RFC 5321 4.5.2), and refuses what another server might
// take for the end of the message.
type stuffing struct {
	mid  bool // in the middle of a line
	ends lineEnds
}

// parts appends p to dst, cut so that every leading dot is there twice. None
// of p is copied.
func (s *stuffing) parts(dst [][]byte, p []byte) ([][]byte, error) {
	if len(p) == 0 {
		return dst, nil
	}
	at, good := 0, 0
	for i := 0; i < len(p); {
		if !s.mid && p[i] == '.' {
			if i > at {
				dst = append(dst, p[at:i])
			}
			dst = append(dst, p[i:i+1])
			at = i
		}
		n := bytes.IndexByte(p[i:], '\n') + 1
		if n == 0 {
			s.mid = true
			break
		}
		i += n
		if !s.ends.isEnd(p, i-1) {
			return dst, bareLF
		}
		good++
		s.mid = false
	}
	return append(dst, p[at:]), s.ends.check(p, good)
}

// dot is what ends the content: the lone dot, after a line end of its own
// where the content has none.
func (s *stuffing) dot() ([]byte, error) {
	if err := s.ends.finish(); err != nil {
		return nil, err
	}
	if s.mid {
		return []byte("\r\n.\r\n"), nil
	}
	return []byte(".\r\n"), nil
}

// sendContent writes content, calls ready before the write that holds the
// dot, and reports whether the dot was written.
func (c *Client) sendContent(ctx context.Context, body Content, ready func(context.Context) error) (bool, error) {
	o := outgoing{c: c, vec: c.vec[:0]}
	defer func() { clear(o.vec); c.vec = o.vec[:0] }()
	if err := o.add(body.Prefix); err != nil {
		return false, err
	}
	var err error
	if body.Open == nil {
		err = o.add(body.Bytes)
	} else {
		err = o.stream(body.Open)
	}
	if err != nil {
		return false, err
	}
	end, err := o.lines.dot()
	if err != nil {
		return false, err
	}
	if ready != nil {
		if err := ready(ctx); err != nil {
			return false, err
		}
	}
	o.vec = append(o.vec, end)
	err = o.flush()
	return err == nil, err
}

// outgoing is content on its way out: parts of the caller's memory, written
// together.
type outgoing struct {
	c     *Client
	lines stuffing
	vec   net.Buffers
}

func (o *outgoing) add(p []byte) (err error) {
	o.vec, err = o.lines.parts(o.vec, p)
	return err
}

// stream reads the body by blocks. The last one is left in vec, to be written
// with the dot.
func (o *outgoing) stream(open func() (io.ReadCloser, error)) error {
	r, err := open()
	if err != nil {
		return err
	}
	defer r.Close()
	if o.c.block == nil {
		o.c.block = make([]byte, blockSize)
	}
	for {
		n, err := io.ReadFull(r, o.c.block)
		if bad := o.add(o.c.block[:n]); bad != nil {
			return bad
		}
		switch err {
		case nil:
		case io.EOF, io.ErrUnexpectedEOF:
			return nil
		default:
			return err
		}
		if err := o.flush(); err != nil {
			return err
		}
	}
}

// flush writes the parts: in one writev on a TCP socket, put together for TLS,
// where every write is a record and a system call.
func (o *outgoing) flush() error {
	vec := o.vec
	o.vec = o.vec[:0]
	if o.c.nc != o.c.socket || o.c.raw == nil {
		return o.flushCopied(vec)
	}
	for len(vec) > 0 {
		n := min(len(vec), maxParts)
		if err := o.c.arm(o.c.target.Timeouts.DataBlock); err != nil {
			return err
		}
		now := net.Buffers(vec[:n:n])
		if _, err := now.WriteTo(o.c.nc); err != nil {
			return err
		}
		vec = vec[n:]
	}
	return nil
}

func (o *outgoing) flushCopied(vec net.Buffers) error {
	if o.c.copied == nil {
		o.c.copied = make([]byte, 0, blockSize)
	}
	for _, p := range vec {
		for len(p) > 0 {
			have := len(o.c.copied)
			n := copy(o.c.copied[have:blockSize], p)
			o.c.copied = o.c.copied[:have+n]
			p = p[n:]
			if len(o.c.copied) == blockSize {
				if err := o.writeCopied(); err != nil {
					return err
				}
			}
		}
	}
	return o.writeCopied()
}

func (o *outgoing) writeCopied() error {
	if err := o.c.arm(o.c.target.Timeouts.DataBlock); err != nil {
		return err
	}
	_, err := o.c.nc.Write(o.c.copied)
	o.c.copied = o.c.copied[:0]
	return err
}
