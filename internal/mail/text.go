package mail

import (
	"bytes"
	"io"
	"mime"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/encoding/htmlindex"
)

const (
	maxText = 500  // bytes of a value that a summary keeps
	maxID   = 998  // a Message-ID stands in one line (RFC 5322 2.1.1)
	maxRaw  = 8000 // bytes of a folded value that are worth decoding for maxText
)

// unfold removes the line ends of a folded value and the space around it
// (RFC 5322 2.2.3). A bare CR becomes a space: the result is one line, and what
// it stood between does not come together to another word.
func unfold(value []byte) string {
	value = bytes.Trim(value, " \t\r\n")
	if bytes.IndexByte(value, '\n') < 0 && bytes.IndexByte(value, '\r') < 0 {
		return string(value)
	}
	out := make([]byte, 0, len(value))
	for i, c := range value {
		switch {
		case c == '\n' || c == '\r' && i+1 < len(value) && value[i+1] == '\n':
		case c == '\r':
			out = append(out, ' ')
		default:
			out = append(out, c)
		}
	}
	return string(out)
}

// cleanText unfolds a value for the eyes of people and stores.
func cleanText(value []byte, limit int) string {
	if len(value) > maxRaw {
		value = value[:maxRaw]
	}
	return clean(unfold(value), limit)
}

// clean makes s valid UTF-8 without control characters and of at most limit
// bytes.
func clean(s string, limit int) string {
	if !isPlain(s) {
		s = strings.Map(printable, strings.ToValidUTF8(s, "\uFFFD"))
	}
	return strings.TrimSpace(cut(s, limit))
}

// isPlain reports ASCII without control characters, which needs no cleaning.
func isPlain(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

func printable(r rune) rune {
	if unicode.IsControl(r) || r == '\u2028' || r == '\u2029' {
		return ' '
	}
	return r
}

// cut shortens valid UTF-8 to at most limit bytes at a rune boundary.
func cut(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	for limit > 0 && !utf8.RuneStart(s[limit]) {
		limit--
	}
	return s[:limit]
}

// decodeText decodes the encoded words of a value (RFC 2047); where they
// can't be decoded it stands as it was written.
func decodeText(value []byte) string {
	if !contains(value, "=?") {
		return cleanText(value, maxText)
	}
	if len(value) > maxRaw {
		value = value[:maxRaw]
	}
	raw := unfold(value)
	d := mime.WordDecoder{CharsetReader: charsetReader}
	text, err := d.DecodeHeader(raw)
	if err != nil {
		text = raw
	}
	return clean(text, maxText)
}

// charsetReader decodes by the names that browsers know. What has an unknown
// name passes as it is, so that its ASCII can still be read.
func charsetReader(charset string, in io.Reader) (io.Reader, error) {
	enc, err := htmlindex.Get(charset)
	if err != nil {
		return in, nil
	}
	return enc.NewDecoder().Reader(in), nil
}

// messageID takes the identifier out of a Message-ID value; one written
// without angle brackets gets them, so that it is found either way.
func messageID(value []byte) string {
	s := cleanText(value, maxRaw)
	if _, rest, ok := strings.Cut(s, "<"); ok {
		s, _, _ = strings.Cut(rest, ">")
	}
	s = strings.Map(func(r rune) rune {
		if r == ' ' {
			return -1
		}
		return r
	}, s)
	if s == "" {
		return ""
	}
	return "<" + cut(s, maxID-2) + ">"
}
