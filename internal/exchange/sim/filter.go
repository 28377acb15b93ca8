package sim

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// maxFilter and maxDepth bound a $filter.
const (
	maxFilter = 4 << 10
	maxDepth  = 20
)

// filter is a parsed $filter of the OData subset that Graph documents for the
// logs: and, or, not, parentheses, eq ne gt ge lt le, startswith, and any over
// a list with one comparison.
type filter interface {
	match(row object) bool
}

type (
	both    struct{ a, b filter }
	either  struct{ a, b filter }
	negated struct{ f filter }
	compare struct {
		path  string // properties parted by /
		op    string
		value literal
	}
	begins struct{ path, with string }
	anyOf  struct {
		path  string
		op    string
		value literal
	}
)

// literal is a constant of a filter.
type literal struct {
	text string
	time time.Time // valid where isTime
	num  float64   // valid where isNum
	kind literalKind
}

type literalKind int

const (
	isText literalKind = iota
	isTime
	isNum
	isBool
	isNull
)

func (f both) match(r object) bool    { return f.a.match(r) && f.b.match(r) }
func (f either) match(r object) bool  { return f.a.match(r) || f.b.match(r) }
func (f negated) match(r object) bool { return !f.f.match(r) }

func (f begins) match(r object) bool {
	s, ok := lookup(r, f.path).(string)
	return ok && len(s) >= len(f.with) && strings.EqualFold(s[:len(f.with)], f.with)
}

func (f compare) match(r object) bool { return f.value.holds(lookup(r, f.path), f.op) }

func (f anyOf) match(r object) bool {
	all, _ := lookup(r, f.path).([]string)
	for _, v := range all {
		if f.value.holds(v, f.op) {
			return true
		}
	}
	return false
}

// lookup follows a path into a row, nil where it ends early.
func lookup(r object, path string) any {
	var v any = r
	for name := range strings.SplitSeq(path, "/") {
		o, ok := v.(object)
		if !ok {
			return nil
		}
		v = o[name]
	}
	return v
}

// holds compares a value of a row with the literal. A value of another kind
// equals nothing.
func (l literal) holds(v any, op string) bool {
	switch v := v.(type) {
	case nil:
		return l.kind == isNull == (op == "eq")
	case bool:
		return l.kind == isBool && order(op, compareBool(v, l.text == "true"))
	case int:
		return l.kind == isNum && order(op, compareFloat(float64(v), l.num))
	case string:
		if l.kind == isTime {
			t, err := time.Parse(time.RFC3339Nano, v)
			return err == nil && order(op, t.Compare(l.time))
		}
		// Text compares without regard to case, as Graph does.
		return l.kind == isText && order(op, strings.Compare(strings.ToLower(v), strings.ToLower(l.text)))
	}
	return false
}

func compareBool(a, b bool) int {
	if a == b {
		return 0
	}
	return 1
}

func compareFloat(a, b float64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

func order(op string, c int) bool {
	switch op {
	case "eq":
		return c == 0
	case "ne":
		return c != 0
	case "gt":
		return c > 0
	case "ge":
		return c >= 0
	case "lt":
		return c < 0
	case "le":
		return c <= 0
	}
	return false
}

// filterParser reads a filter from the front of rest.
type filterParser struct {
	rest  string
	depth int
	knows func(path string) bool // which properties there are
}

// parseFilter reads a $filter; knows says which properties the rows have.
func parseFilter(text string, knows func(string) bool) (filter, error) {
	if len(text) > maxFilter {
		return nil, refuse("the filter is too long")
	}
	p := &filterParser{rest: strings.TrimSpace(text), knows: knows}
	f, err := p.or()
	if err != nil {
		return nil, err
	}
	if p.rest != "" {
		return nil, refuse("Invalid filter clause: unexpected " + strconv.Quote(p.rest))
	}
	return f, nil
}

func (p *filterParser) or() (filter, error) {
	if p.depth++; p.depth > maxDepth {
		return nil, refuse("Invalid filter clause: nested too deeply")
	}
	defer func() { p.depth-- }()
	f, err := p.and()
	for err == nil && p.word("or") {
		var g filter
		g, err = p.and()
		f = either{f, g}
	}
	return f, err
}

func (p *filterParser) and() (filter, error) {
	f, err := p.one()
	for err == nil && p.word("and") {
		var g filter
		g, err = p.one()
		f = both{f, g}
	}
	return f, err
}

func (p *filterParser) one() (filter, error) {
	switch {
	case p.word("not"):
		if p.depth++; p.depth > maxDepth {
			return nil, refuse("Invalid filter clause: nested too deeply")
		}
		defer func() { p.depth-- }()
		f, err := p.one()
		return negated{f}, err
	case p.sign("("):
		f, err := p.or()
		return f, p.closing(err)
	case p.sign("startswith("):
		return p.startsWith()
	}
	path := p.path()
	if path == "" {
		return nil, refuse("Invalid filter clause: a property is expected at " + strconv.Quote(p.rest))
	}
	if base, ok := strings.CutSuffix(path, "/any"); ok {
		return p.any(base)
	}
	if err := p.check(path); err != nil {
		return nil, err
	}
	op, value, err := p.comparison()
	return compare{path, op, value}, err
}

func (p *filterParser) check(path string) error {
	if !p.knows(path) {
		return refuse(fmt.Sprintf("Could not find a property named '%s'", path))
	}
	return nil
}

func (p *filterParser) startsWith() (filter, error) {
	path := p.path()
	if err := p.check(path); err != nil {
		return nil, err
	}
	if !p.sign(",") {
		return nil, refuse("Invalid filter clause: startswith has two arguments")
	}
	value, err := p.literal()
	if err == nil && value.kind != isText {
		err = refuse("Invalid filter clause: startswith compares text")
	}
	return begins{path, value.text}, p.closing(err)
}

// any reads what follows path/any: (t:t eq 'x').
func (p *filterParser) any(path string) (filter, error) {
	if err := p.check(path); err != nil {
		return nil, err
	}
	if !p.sign("(") {
		return nil, refuse("Invalid filter clause: ( is expected after any")
	}
	name := p.path()
	if name == "" || !p.sign(":") || p.path() != name {
		return nil, refuse("Invalid filter clause: any is written any(t:t eq 'value')")
	}
	op, value, err := p.comparison()
	return anyOf{path, op, value}, p.closing(err)
}

func (p *filterParser) closing(err error) error {
	if err == nil && !p.sign(")") {
		err = refuse("Invalid filter clause: ) is missing")
	}
	return err
}

func (p *filterParser) comparison() (op string, value literal, err error) {
	for _, op := range []string{"eq", "ne", "gt", "ge", "lt", "le"} {
		if p.word(op) {
			value, err = p.literal()
			return op, value, err
		}
	}
	return "", literal{}, refuse("Invalid filter clause: an operator is expected at " + strconv.Quote(p.rest))
}

// word takes a keyword, which ends at a space or a parenthesis.
func (p *filterParser) word(w string) bool {
	after, ok := strings.CutPrefix(p.rest, w)
	if !ok || after == "" || after[0] != ' ' && after[0] != '(' {
		return false
	}
	p.rest = strings.TrimLeft(after, " ")
	return true
}

func (p *filterParser) sign(s string) bool {
	after, ok := strings.CutPrefix(p.rest, s)
	if ok {
		p.rest = strings.TrimLeft(after, " ")
	}
	return ok
}

// path takes a property path, "" where there is none.
func (p *filterParser) path() string {
	n := 0
	for n < len(p.rest) && (isWord(p.rest[n]) || p.rest[n] == '/') {
		n++
	}
	path := p.rest[:n]
	p.rest = strings.TrimLeft(p.rest[n:], " ")
	return path
}

func isWord(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_'
}

// literal takes a constant: 'text' with quotes doubled within, a time, a
// number, true, false or null.
func (p *filterParser) literal() (literal, error) {
	if strings.HasPrefix(p.rest, "'") {
		return p.text()
	}
	n := strings.IndexAny(p.rest, " )")
	if n < 0 {
		n = len(p.rest)
	}
	word := p.rest[:n]
	p.rest = strings.TrimLeft(p.rest[n:], " ")
	switch word {
	case "true", "false":
		return literal{kind: isBool, text: word}, nil
	case "null":
		return literal{kind: isNull}, nil
	}
	if t, err := time.Parse(time.RFC3339Nano, word); err == nil {
		return literal{kind: isTime, time: t}, nil
	}
	if x, err := strconv.ParseFloat(word, 64); err == nil {
		return literal{kind: isNum, num: x}, nil
	}
	// A GUID may stand without quotes.
	if len(word) == len("00000000-0000-0000-0000-000000000000") && strings.Count(word, "-") == 4 {
		return literal{kind: isText, text: word}, nil
	}
	return literal{}, refuse("Invalid filter clause: a value is expected at " + strconv.Quote(word))
}

func (p *filterParser) text() (literal, error) {
	var b strings.Builder
	for i := 1; i < len(p.rest); i++ {
		switch {
		case p.rest[i] != '\'':
			b.WriteByte(p.rest[i])
		case i+1 < len(p.rest) && p.rest[i+1] == '\'':
			b.WriteByte('\'')
			i++
		default:
			p.rest = strings.TrimLeft(p.rest[i+1:], " ")
			return literal{kind: isText, text: b.String()}, nil
		}
	}
	return literal{}, refuse("Invalid filter clause: a text has no closing quote")
}
