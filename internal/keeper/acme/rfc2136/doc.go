// Package rfc2136 publishes the records of DNS-01 challenges (RFC 8555 8.4) by
// DNS UPDATE (RFC 2136), signed with a shared key (TSIG, RFC 8945).
//
// It talks to the one server that takes the zone's updates, to resolvers for
// what that server is not authoritative for, and to the servers that have to
// show a record before a CA looks: all over TCP. It is no resolver for others,
// holds no record, and knows nothing of ACME beyond the name and the value that
// it is given.
//
// Invariants:
//   - an update adds or removes one value, never a set of records, so that
//     challenges of one name, or of names that lead to one, do not meet;
//   - what the server says of an update is believed if the key has signed it;
//     an unsigned answer is taken for a refusal or for nothing at all;
//   - each exchange is bounded in time and size, and so is the wait for the
//     servers;
//   - no text of ours has the secret in it.
//
// Callers: acme, by way of the roof.
package rfc2136
