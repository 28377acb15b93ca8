package queue

import (
	"io"

	"github.com/sallyport-mail/sallyport/internal/mail"
)

// rest of a body that is in memory; nil stays nil.
func (it *Item) rest(body []byte) []byte {
	if body == nil {
		return nil
	}
	return mail.Without(body, it.Cut)
}

// rest reads a body and leaves out what is cut. That is read too: a body is
// checked against its sum as a whole.
type rest struct {
	io.ReadCloser
	cut []mail.Span
	at  int // in the body
}

// Read returns no bytes without an error only where the body's reader does.
func (r *rest) Read(p []byte) (int, error) {
	for {
		n, err := r.ReadCloser.Read(p)
		if kept := r.keep(p[:n]); kept > 0 || n == 0 || err != nil {
			return kept, err
		}
	}
}

// keep moves what is not cut to the beginning of p.
func (r *rest) keep(p []byte) int {
	kept := 0
	for i := 0; i < len(p); {
		n, cut := r.piece(len(p) - i)
		if !cut {
			if kept < i {
				copy(p[kept:], p[i:i+n])
			}
			kept += n
		}
		i += n
		r.at += n
	}
	return kept
}

// piece is how many of the next n bytes have the same fate, and whether that
// is to be cut.
func (r *rest) piece(n int) (int, bool) {
	for len(r.cut) > 0 && r.cut[0].To <= r.at {
		r.cut = r.cut[1:]
	}
	switch {
	case len(r.cut) == 0:
		return n, false
	case r.at < r.cut[0].From:
		return min(n, r.cut[0].From-r.at), false
	}
	return min(n, r.cut[0].To-r.at), true
}
