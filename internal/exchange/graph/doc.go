// Package graph is the client for what the gateway needs of Microsoft Graph:
// an application's certificates, and the logs that show who used them.
//
// It is not a general client and reads no mail. Proofs of possession come from
// a callback: the client never sees a key.
//
// Invariants: pages are followed only to the service that was configured, and
// their number is bounded; sign-ins are read from beta, for v1.0 has neither
// the token's identifier nor the key's.
//
// Callers: connection, incident.
package graph
