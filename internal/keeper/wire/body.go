package wire

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/keeper/act"
)

// maxMarks bounds what a body is made of: 500 events have 11,000 marks. A MB of
// empty objects would become a hundred in memory.
const maxMarks = 20_000

// read reads a request. Its body may hold a secret, and is wiped.
func read[Q act.Request](ctx context.Context, s *Server, r rawRequest) (q Q, err error) {
	if r.limit > small {
		free, err := s.large(ctx)
		if err != nil {
			return q, err
		}
		defer free()
	}
	body, err := io.ReadAll(r.body)
	defer func() { clear(body[:cap(body)]) }()
	if err == nil {
		err = decode(body, &q)
	}
	if err != nil {
		return q, s.unread(r, err)
	}
	return q, s.stated(q.Stated(), r)
}

// large waits for room for a large body.
func (s *Server) large(ctx context.Context) (free func(), err error) {
	wait := time.NewTimer(s.c.ActTime)
	defer wait.Stop()
	select {
	case s.larges <- struct{}{}:
		return func() { <-s.larges }, nil
	case <-ctx.Done():
	case <-wait.C:
	}
	return nil, busy("more large requests than are read at a time")
}

func busy(text string) error {
	return fault.New(fault.Later, "wire.Read", text).WithHint("Try again in a moment.")
}

var (
	errMarks = errors.New("it has more members than any act's")
	errMore  = errors.New("something stands behind it")
)

// decode reads one JSON value of an act, and nothing else.
func decode(body []byte, q any) error {
	if marks(body) > maxMarks {
		return errMarks
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(q); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errMore
	}
	return nil
}

// marks counts what begins a value: commas, brackets and braces outside of
// strings.
func marks(body []byte) int {
	n, inside, escaped := 0, false, false
	for _, c := range body {
		switch {
		case escaped:
			escaped = false
		case inside && c == '\\':
			escaped = true
		case c == '"':
			inside = !inside
		case !inside && (c == ',' || c == '[' || c == '{'):
			n++
		}
	}
	return n
}

// unread is the answer to a body that is none of this act. A gateway of ours
// sends none, so it is told; one that breaks off is a line that broke.
func (s *Server) unread(r rawRequest, err error) error {
	const op = "wire.Read"
	var line net.Error
	if errors.As(err, &line) || errors.Is(err, io.ErrUnexpectedEOF) {
		return (&fault.Error{Kind: fault.Invalid, Op: op, Err: errors.New("the request breaks off")}).WithHint("Send all of it, and sooner.")
	}
	s.refuse(Refusal{Peer: r.peer, Act: r.name, Reason: "the request is none of this act"})
	if long := (*http.MaxBytesError)(nil); errors.As(err, &long) {
		return fault.New(fault.Invalid, op, "the request has more than "+strconv.FormatInt(long.Limit, 10)+" bytes").
			WithHint("Send fewer or shorter fields.")
	}
	return (&fault.Error{Kind: fault.Invalid, Op: op, Err: errors.New("the request is not the JSON of this act: " + err.Error())}).
		WithHint("Use the client of the same version as the keeper.")
}
