// Package directory answers whether an address exists and whose it is.
//
// A domain says how it is answered: from a list, by asking the tenant's own
// server (a probe, cached), or not at all. It changes nothing but its own
// tables.
//
// Lists stay in their table, with what is asked for often in memory. Of probes
// the table keeps only each "yes", so that strangers who guess cannot fill it.
//
// Invariants:
//   - postmaster and abuse exist in every domain;
//   - an answer "no" is never older than ten minutes, a "yes" never older than
//     a day, unless the server is away: then whoever it accepted before exists,
//     and of others nobody can tell;
//   - a server that refuses us, rather than the recipient, has not said no.
//
// Callers: edge, api, import.
package directory
