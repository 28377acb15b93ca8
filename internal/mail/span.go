package mail

import (
	"slices"
	"strings"
)

// Span is the bytes from From to before To.
type Span struct {
	From int `json:"from"`
	To   int `json:"to"`
}

// FindFields returns where in header the fields of those names are, in order
// and neighbours together; a name that ends in "*" stands for every field whose
// name begins so. It finds what any reader might take for such a field: also
// with white space or control characters before the colon, a colon that was
// folded away, and by its beginning one without a colon.
func FindFields(header []byte, names ...string) []Span {
	var found []Span
	for pos := 0; ; {
		_, next, ok := nextField(header, pos)
		if !ok {
			return found
		}
		named := func(name string) bool { return isNamed(header[pos:next], name) }
		if slices.ContainsFunc(names, named) {
			if n := len(found); n > 0 && found[n-1].To == pos {
				found[n-1].To = next
			} else {
				found = append(found, Span{pos, next})
			}
		}
		pos = next
	}
}

func isNamed(field []byte, name string) bool {
	if start, ok := strings.CutSuffix(name, "*"); ok {
		return begins(field, start)
	}
	if !begins(field, name) {
		return false
	}
	for _, c := range field[len(name):] {
		if c > ' ' {
			return c == ':'
		}
	}
	return false
}

// Without returns data without some spans of it, which are in order: a copy,
// or data itself where there are none.
func Without(data []byte, spans []Span) []byte {
	if len(spans) == 0 {
		return data
	}
	out := make([]byte, 0, len(data)-Length(spans))
	kept := 0
	for _, s := range spans {
		out = append(out, data[kept:s.From]...)
		kept = s.To
	}
	return append(out, data[kept:]...)
}

// Length is how many bytes spans have together.
func Length(spans []Span) int {
	n := 0
	for _, s := range spans {
		n += s.To - s.From
	}
	return n
}
