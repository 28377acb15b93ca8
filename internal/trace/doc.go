// Package trace is what happened to each message, written by many and read by
// people: "where is it, what happened, why".
//
// An [Event] is inserted into the road's own file, in the transaction of what
// it tells (accepted, attempted, delivered…), and moved to the trace file
// behind it by one mover, in batches; until the trace has it on disk, the road
// keeps it. Refusals in the SMTP dialogue are kept apart: unsynced, capped,
// and summed per address and reason.
//
// Invariants:
//   - each event is applied exactly once, also when the mover is killed
//     between its two commits;
//   - a reader who asks for a message sees every event committed before.
//
// Callers: queue (events), edge (refusals), api (reading), doctor.
package trace
