package fault

import (
	"errors"
	"strings"
)

// Kind says what a caller can do about a failure.
type Kind int

const (
	Internal Kind = iota // our own mistake, or one nobody has classified
	Invalid              // the request is malformed; the same request fails again
	Denied               // the caller may not do this
	Missing              // the thing named does not exist
	Conflict             // the thing exists already, or has changed meanwhile
	Later                // nothing is wrong with the request: try again later
	Never                // final: the outside world said no for good
)

// String returns the kind's name in lower case.
func (k Kind) String() string {
	switch k {
	case Invalid:
		return "invalid"
	case Denied:
		return "denied"
	case Missing:
		return "missing"
	case Conflict:
		return "conflict"
	case Later:
		return "later"
	case Never:
		return "never"
	default:
		return "internal"
	}
}

// Error is a failure with its kind, the operation that met it, its cause and
// a hint that tells the reader what to do next.
type Error struct {
	Kind Kind
	Op   string // "tenant.Add": the room and its verb
	Err  error  // the cause, never nil
	Hint string // one sentence, imperative; may be empty
}

// Error returns "op: cause"; the hint is left to the border that shows it.
func (e *Error) Error() string {
	if e.Op == "" {
		return e.Err.Error()
	}
	return e.Op + ": " + e.Err.Error()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// New makes an Error from a sentence.
func New(kind Kind, op, text string) *Error {
	return &Error{Kind: kind, Op: op, Err: errors.New(text)}
}

// Wrap gives err an operation and a kind; nil stays nil.
func Wrap(kind Kind, op string, err error) error {
	if err == nil {
		return nil
	}
	return &Error{Kind: kind, Op: op, Err: err}
}

// WithHint returns a copy of e that carries the hint.
func (e *Error) WithHint(hint string) *Error {
	c := *e
	c.Hint = hint
	return &c
}

// KindOf returns the kind of the outermost Error in err's chain, Internal if
// there is none.
func KindOf(err error) Kind {
	var e *Error
	if errors.As(err, &e) {
		return e.Kind
	}
	return Internal
}

// Is reports whether err is of the given kind.
func Is(err error, kind Kind) bool {
	return err != nil && KindOf(err) == kind
}

// HintOf returns the first hint found in err's chain.
func HintOf(err error) string {
	for err != nil {
		var e *Error
		if !errors.As(err, &e) {
			return ""
		}
		if e.Hint != "" {
			return e.Hint
		}
		err = e.Err
	}
	return ""
}

// Sentence returns the innermost causes without the operations: what a person
// is shown, where a log line shows Error().
func Sentence(err error) string {
	var e *Error
	if !errors.As(err, &e) {
		return err.Error()
	}
	var prefix []string
	for errors.As(err, &e) {
		if e.Op != "" {
			prefix = append(prefix, e.Op+": ")
		}
		err = e.Err
	}
	text := err.Error()
	for _, p := range prefix {
		text = strings.TrimPrefix(text, p)
	}
	return text
}
