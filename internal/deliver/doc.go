// Package deliver sends what the queue hands out: it takes slots, opens and
// reuses connections, runs transactions, and reports what the far end said.
//
// It decides nothing about what a reply means; the queue does.
//
// Invariants:
//   - a connection is reused only for an equal (tenant, connection, TLS rule,
//     source address, host), and checked before use;
//   - at most one 250 per connection is unrecorded: the final dot of the next
//     message is sent only when the last report is durable;
//   - each attempt is recorded with the remote's words.
//
// Callers: the roof.
package deliver
