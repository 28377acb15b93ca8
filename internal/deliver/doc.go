// Package deliver sends what the queue hands out: it takes slots, opens and
// reuses connections, runs transactions, and reports what the far end said.
//
// It decides nothing about what a reply means; the queue does. It knows no
// route by itself either; connection does.
//
// A goroutine serves one slot: it asks the slot for the next item, sends it
// over the connection it holds, and hands the outcome to a report that is
// written while the next item is already on the wire. How many slots there are
// is the queue's setting, and so the number of goroutines is bounded by it.
//
// Invariants:
//   - a connection is reused only for an equal (tenant, connection, identity,
//     TLS rule, source address, host), and checked before use;
//   - at most one 250 per connection is unrecorded: the final dot of the next
//     message is sent only when the last report is durable;
//   - while a report cannot be written nothing is begun but a probe a second;
//   - a host that has not answered yet has a few connections at most, so that
//     silent ones cannot take all slots;
//   - each attempt is recorded with the remote's words;
//   - an item that was leased is reported exactly once, whatever happened.
//
// Callers: the roof.
package deliver
