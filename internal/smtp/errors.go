package smtp

import (
	"errors"

	"github.com/sallyport-mail/sallyport/internal/fault"
)

// What is wrong with content. The reader that a session gets returns them, and
// so does the client when it is asked to send such content.
var (
	// ErrTooLong: more content than the listener's MaxSize.
	ErrTooLong = fault.New(fault.Invalid, "smtp.Data", "message too big")
	// ErrBareLine: a CR or LF that is not part of CR LF (RFC 5321 2.3.8), or
	// a line that becomes a lone dot for a reader that drops NUL bytes.
	ErrBareLine = fault.New(fault.Invalid, "smtp.Data", "bare CR or LF in the content")
	// ErrLineLength: a line above the listener's MaxLine.
	ErrLineLength = fault.New(fault.Invalid, "smtp.Data", "line too long")
)

// badLine is ErrBareLine with what it was.
type badLine string

const (
	bareLF    badLine = "bare LF"
	bareCR    badLine = "bare CR"
	hiddenDot badLine = "a line that is a dot and NUL bytes"
)

func (b badLine) Error() string { return "smtp.Data: " + string(b) + " in the content" }
func (b badLine) Unwrap() error { return ErrBareLine }

// How a connection comes to its end, within the room only.
var (
	errAborted     = errors.New("transaction abandoned by the client")
	errWoken       = errors.New("connection asked to leave")
	errTooSlow     = errors.New("content comes too slowly")
	errFlood       = errors.New("more content than is worth reading")
	errLineBare    = errors.New("command line with a bare CR or LF")
	errLineLong    = errors.New("command line too long")
	errNoLineEnds  = errors.New("client does not end its lines with CR LF")
	errClosing     = errors.New("connection is closing")
	errBufferFull  = errors.New("input buffer full")
	errProxyHeader = errors.New("malformed PROXY header")
)
