// Package directory answers whether an address exists and whose it is.
//
// A domain says how it is answered: from a list, by asking the tenant's own
// server (a probe, cached), or not at all. It changes nothing but its own
// tables.
//
// Invariants: postmaster and abuse exist in every domain; an answer "no" is
// never older than ten minutes, a "yes" never older than a day, unless the
// server is away.
//
// Callers: edge, api, import.
package directory
