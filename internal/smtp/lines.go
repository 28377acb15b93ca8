package smtp

import "bytes"

// lineScan reads content as lines, in pieces of any size. It finds what ends
// the content, takes the stuffing off, and notices everything that another
// server might take for a line end and we do not: bare CR, bare LF (RFC 5321
// 2.3.8), and lines that turn into a lone dot when NUL bytes are dropped.
//
// It works by line ends (IndexByte) and counts CR in bulk; no loop goes over
// single bytes, except where content has NUL bytes.
type lineScan struct {
	dots    bool // DATA: dot-stuffed and ended by a lone dot; else BDAT
	maxLine int  // bytes of a line with CR LF, 0 for any
	mid     bool // in the middle of a line
	line    int  // bytes of the line so far
	ends    lineEnds
}

// piece is what one scan found.
type piece struct {
	content []byte // a prefix of the scanned slice's memory, unstuffed
	used    int    // bytes consumed; the rest must be shown again with more behind it
	end     bool   // the lone dot was found
	err     error  // the first thing wrong
}

// scan reads p, in whose memory the content is compacted. At most two bytes
// are left unused, where it takes the next to know what a dot means.
func (s *lineScan) scan(p []byte) piece {
	var (
		out       piece
		wrote, at int // p[:wrote] is content; what is next to move begins at at
		i, ends   int // ends: CR LF seen
	)
	for i < len(p) {
		if s.dots && !s.mid && p[i] == '.' {
			what := leadingDot(p[i:])
			if what == dotUnknown {
				break
			}
			wrote = move(p, wrote, at, i)
			if what == dotEnd {
				out.end = true
				at, i = i+3, i+3
				break
			}
			i++
			at, s.mid = i, true
		}
		i += s.lineAt(p, i, &ends, &out)
	}
	if !out.end {
		wrote = move(p, wrote, at, i)
	}
	out.content, out.used = p[:wrote], i
	if err := s.ends.check(out.content, ends); err != nil {
		out.fail(err)
	}
	return out
}

// lineAt reads on from p[i] to the end of the line or of p and returns how
// many bytes that is.
func (s *lineScan) lineAt(p []byte, i int, ends *int, out *piece) int {
	n := bytes.IndexByte(p[i:], '\n') + 1
	if n == 0 {
		n = len(p) - i
		s.mid = true
		s.lengthen(n, out)
		return n
	}
	s.lengthen(n, out)
	if s.ends.isEnd(p, i+n-1) {
		*ends++
		s.mid, s.line = false, 0
		return n
	}
	// Not a line end: neither a dot behind it nor anything else counts.
	s.mid = true
	out.fail(bareLF)
	return n
}

func (s *lineScan) lengthen(n int, out *piece) {
	s.line += n
	if s.maxLine > 0 && s.line > s.maxLine {
		out.fail(ErrLineLength)
	}
}

func (out *piece) fail(err error) {
	if out.err == nil {
		out.err = err
	}
}

// move appends p[from:to] to p[:wrote] and returns the new length.
func move(p []byte, wrote, from, to int) int {
	if wrote == from {
		return to
	}
	return wrote + copy(p[wrote:], p[from:to])
}

type dotKind int

const (
	dotUnknown dotKind = iota
	dotStuffed
	dotEnd
)

// leadingDot says what the dot at the start of line p is (RFC 5321 4.5.2).
func leadingDot(p []byte) dotKind {
	switch {
	case len(p) == 1:
		return dotUnknown
	case p[1] != '\r':
		return dotStuffed
	case len(p) == 2:
		return dotUnknown
	case p[2] == '\n':
		return dotEnd
	}
	return dotStuffed
}

// lineEnds watches over the line ends of content that comes in pieces.
type lineEnds struct {
	cr  bool // the last byte was CR
	nul nulState
}

// isEnd reports whether the LF at p[lf] ends a line.
func (e *lineEnds) isEnd(p []byte, lf int) bool {
	if lf == 0 {
		return e.cr
	}
	return p[lf-1] == '\r'
}

// check looks at the whole of a piece, in which ends line ends were found:
// every CR must be part of one, but for a CR at the very end, of which the next
// piece decides.
func (e *lineEnds) check(p []byte, ends int) error {
	if len(p) == 0 {
		return nil
	}
	want := ends
	if e.cr && p[0] != '\n' {
		want = -1
	} else if e.cr {
		want--
	}
	e.cr = p[len(p)-1] == '\r'
	if e.cr {
		want++
	}
	if bytes.Count(p, []byte{'\r'}) != want {
		return bareCR
	}
	if e.nul.scan(p) {
		return hiddenDot
	}
	return nil
}

// finish reports a CR that nothing followed.
func (e *lineEnds) finish() error {
	if e.cr {
		return bareCR
	}
	return nil
}

// nulState follows a line that may be a lone dot but for NUL bytes. Servers
// exist that drop NUL, and to them such a line ends the message ("\r\n\0.\r\n",
// published with the smuggling tools of 2023).
type nulState int

const (
	nulStart nulState = iota // at the start of a line
	nulBytes                 // NUL bytes and nothing else
	nulDot                   // and a dot
	nulOther                 // something else: nothing to see here
)

// scan reads unstuffed content and reports such a line.
func (n *nulState) scan(p []byte) bool {
	if *n != nulBytes && *n != nulDot && bytes.IndexByte(p, 0) < 0 {
		*n = nulOther
		if p[len(p)-1] == '\n' {
			*n = nulStart
		}
		return false
	}
	found := false
	for _, b := range p {
		found = n.step(b) || found
	}
	return found
}

func (n *nulState) step(b byte) bool {
	switch {
	case b == '\n':
		*n = nulStart
	case b == 0 && *n == nulStart:
		*n = nulBytes
	case b == 0:
	case b == '.' && *n == nulBytes:
		*n = nulDot
	case b == '\r' && *n == nulDot:
		*n = nulOther
		return true
	default:
		*n = nulOther
	}
	return false
}
