// Package api is HTTP for programs and people: routes with OpenAPI 3.1, tokens
// with roles, problem documents (RFC 9457), pages and idempotency keys.
//
// It reaches no table, no key and no secret: each route is a few lines between
// HTTP and a room's verb. A fault's kind becomes a status here and nowhere
// else (problem.go).
//
// The way of a request: New's handler bounds it and turns a panic into a
// problem document; the gate (gate.go) proves the token, looks up what the
// route needs (access.go), confines the caller to his tenant, reads the body
// within its limit, and answers a repeated Idempotency-Key from memory; then
// the route of one subject (tenants.go, queue.go…) runs.
//
// Invariants:
//   - a route without a row in the access table cannot be registered;
//   - a handler learns its tenant from scope, which refuses every tenant but
//     the caller's own as if it did not exist;
//   - no answer holds text of an unclassified error: it gets an id that the
//     log line has too;
//   - times are RFC 3339 in UTC, absent values null, absent lists empty.
//
// Callers: the roof; through api/client the command line and the demo.
package api
