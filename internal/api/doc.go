// Package api is HTTP for programs and people: routes with OpenAPI 3.1, tokens
// with roles, problem documents (RFC 9457), pages and idempotency keys.
//
// It reaches no table, no key and no secret: each route is a few lines between
// HTTP and a room's verb. A fault's kind becomes a status here and nowhere
// else.
//
// Callers: the roof; through api/client the command line and the demo.
package api
