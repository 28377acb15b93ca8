// Package wire is one call of a Microsoft web API: a JSON body there and a
// bounded JSON answer back, Retry-After honoured, and refusals turned into the
// kinds of fault with the service's own words.
//
// It is not a client of any one service and knows no path, no token endpoint
// and no key; a token comes from a callback.
//
// Invariants: an answer is read up to a bound and no further; a call that was
// throttled is repeated only when the service says when, at most a few times
// and not beyond the context; what the service said last is in the error.
//
// Callers: admin, graph.
package wire
