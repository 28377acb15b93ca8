// Package tenant knows regions, tenants, their domains and settings, and the
// people and programs that may act for them.
//
// Everything the road asks is answered from memory in microseconds: the
// registry is read once at start and kept current by its own changes, which
// take effect when they are durable. It does not know routes (connection) or
// recipients (directory).
//
// Invariants:
//   - a domain belongs to at most one tenant, everywhere;
//   - no password and no token is stored, only what verifies it;
//   - each change leaves an audit event in the same commit.
//
// Callers: every room above store.
package tenant
