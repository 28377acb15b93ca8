package mail

import (
	"bytes"
	"encoding/binary"
)

// Summary is what the road needs to know of a header section, read in one
// pass over the bytes. Its strings are valid UTF-8 without control
// characters, so that any store and any terminal can take them.
type Summary struct {
	MessageID string // with angle brackets, "" when absent
	Subject   string // decoded (RFC 2047), shortened to 500 bytes at a rune boundary
	Date      string
	Received  int  // how many Received fields
	Fields    int  // how many fields in all
	Bytes     int  // length of the header section with its closing empty line
	Watched   bool // some field begins as asked
}

// ScanHeader reads the header section at the start of data (the first bytes of
// a message, at least its whole header section where that is below the limit
// the caller enforces). It never fails: what is malformed is counted as it
// stands. Of a field that occurs more than once the first counts. watch is how
// the names of fields begin that are looked for ("" for none), so that who
// cares for them looks twice only at messages that may have one.
func ScanHeader(data []byte, watch string) Summary {
	var s Summary
	pos := 0
	for {
		f, next, ok := nextField(data, pos)
		if !ok {
			pos = next
			break
		}
		if watch != "" && !s.Watched {
			s.Watched = begins(data[pos:next], watch)
		}
		s.Fields++
		s.take(f)
		pos = next
	}
	s.Bytes = pos
	return s
}

// take keeps of a field what the summary tells. The length of the name parts
// nearly all fields from those few without a comparison.
func (s *Summary) take(f field) {
	switch len(f.name) {
	case len("Date"):
		if s.Date == "" && is(f.name, "Date") {
			s.Date = cleanText(f.value, maxText)
		}
	case len("Subject"):
		if s.Subject == "" && is(f.name, "Subject") {
			s.Subject = decodeText(f.value)
		}
	case len("Received"):
		if is(f.name, "Received") {
			s.Received++
		}
	case len("Message-ID"):
		if s.MessageID == "" && is(f.name, "Message-ID") {
			s.MessageID = messageID(f.value)
		}
	}
}

// Values returns the unfolded values of every field of that name (case does
// not matter), in order. It is what asks for X-OriginatorOrg.
func Values(header []byte, name string) []string {
	var all []string
	for pos := 0; ; {
		f, next, ok := nextField(header, pos)
		if !ok {
			return all
		}
		if len(f.name) == len(name) && is(f.name, name) {
			all = append(all, unfold(f.value))
		}
		pos = next
	}
}

// HasHeaderEnd reports whether data holds the empty line that ends a header
// section.
func HasHeaderEnd(data []byte) bool {
	for pos := 0; pos < len(data); {
		if isEmptyLine(data[pos:]) {
			return true
		}
		i := bytes.IndexByte(data[pos:], '\n')
		if i < 0 {
			return false
		}
		pos += i + 1
	}
	return false
}

// field is one field of a header section, still folded: the bytes before the
// colon without white space at their end, and those behind it with the line
// end. A line without a colon is a field without a name.
type field struct {
	name, value []byte
}

// nextField reads the field that starts at pos. At the end of the section ok
// is false, and next is the position behind its empty line.
func nextField(data []byte, pos int) (f field, next int, ok bool) {
	if pos >= len(data) {
		return field{}, pos, false
	}
	if data[pos] <= '\r' && isEmptyLine(data[pos:]) {
		return field{}, pos + bytes.IndexByte(data[pos:], '\n') + 1, false
	}
	next = pos
	for {
		i := bytes.IndexByte(data[next:], '\n')
		if i < 0 {
			next = len(data)
			break
		}
		next += i + 1
		if next == len(data) || data[next] != ' ' && data[next] != '\t' {
			break
		}
	}
	return split(data[pos:next]), next, true
}

func isEmptyLine(b []byte) bool {
	return len(b) > 0 && b[0] == '\n' || len(b) > 1 && b[0] == '\r' && b[1] == '\n'
}

// split parts a field at its colon, which must stand in its first line.
// White space before the colon is obsolete but was sent (RFC 5322 4.5).
func split(b []byte) field {
	colon := bytes.IndexByte(b, ':')
	if colon < 0 {
		return field{value: b}
	}
	name := b[:colon]
	for len(name) > 0 && (name[len(name)-1] == ' ' || name[len(name)-1] == '\t') {
		name = name[:len(name)-1]
	}
	if bytes.IndexByte(name, '\n') >= 0 {
		return field{value: b}
	}
	return field{name: name, value: b[colon+1:]}
}

// is compares without regard to case in ASCII; both have the same length.
func is(name []byte, want string) bool {
	for i := 0; i < len(want); i++ {
		if lower(name[i]) != lower(want[i]) {
			return false
		}
	}
	return true
}

func lower(c byte) byte {
	if c >= 'A' && c <= 'Z' {
		return c + ('a' - 'A')
	}
	return c
}

// begins is is for the beginning of a field.
func begins(field []byte, with string) bool {
	return len(field) >= len(with) && is(field[:len(with)], with)
}

// contains looks for a short string without the copy that a conversion costs.
func contains(b []byte, s string) bool {
	for len(b) >= len(s) {
		i := bytes.IndexByte(b, s[0])
		if i < 0 || len(b)-i < len(s) {
			return false
		}
		if string(b[i:i+len(s)]) == s {
			return true
		}
		b = b[i+1:]
	}
	return false
}

// hasEightBit looks at eight bytes at a time.
func hasEightBit(b []byte) bool {
	for ; len(b) >= 8; b = b[8:] {
		if binary.LittleEndian.Uint64(b)&0x8080808080808080 != 0 {
			return true
		}
	}
	for _, c := range b {
		if c > 127 {
			return true
		}
	}
	return false
}
