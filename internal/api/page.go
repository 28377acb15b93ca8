package api

import (
	"slices"
	"strings"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
)

// Paging is how a listing is asked for.
type Paging struct {
	After string `query:"after" doc:"The next of the page before"`
	Limit int    `query:"limit" minimum:"1" maximum:"1000" default:"100"`
}

// Page is one page of a listing; next is "" on the last.
type Page[T any] struct {
	Items []T    `json:"items"`
	Next  string `json:"next"`
}

// out is an answer with a body.
type out[T any] struct {
	Body T
}

// made is an answer to a request to create something: 201, or 200 when it
// existed already and if_absent was said.
type made[T any] struct {
	Status int
	Body   T
}

// Removed is the answer to a removal.
type Removed struct {
	Name    string `json:"name"`
	Removed bool   `json:"removed"`
}

func reply[T any](v T) *out[T] { return &out[T]{Body: v} }

func paged[T any](items []T, next string) *out[Page[T]] {
	return reply(Page[T]{Items: items, Next: next})
}

// cut makes a page of a whole listing in order of its key.
func cut[T any](all []T, key func(T) string, p Paging) *out[Page[T]] {
	all = slices.Clone(all)
	slices.SortFunc(all, func(a, b T) int { return strings.Compare(key(a), key(b)) })
	from, found := slices.BinarySearchFunc(all, p.After, func(e T, k string) int { return strings.Compare(key(e), k) })
	if found {
		from++
	}
	all = all[from:]
	if len(all) <= p.Limit {
		return paged(all, "")
	}
	return paged(all[:p.Limit], key(all[p.Limit-1]))
}

// or is "" as null, for what may be absent.
func or(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// instant is a zero time as null.
func instant(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

// since reads the moment that a search begins at.
func since(s string, now time.Time) (time.Time, error) { return moment("since", s, now) }

// moment reads a time of a query: RFC 3339, or how long ago ("24h").
func moment(name, s string, now time.Time) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	if d, err := time.ParseDuration(s); err == nil && d >= 0 {
		return now.Add(-d), nil
	}
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		return time.Time{}, fault.New(fault.Invalid, "api", name+" is no time: "+quoted(s)).
			WithHint("Write 2026-01-31T12:00:00Z, or how long ago as 24h.")
	}
	return t, nil
}
