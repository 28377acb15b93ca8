// Package queue holds accepted mail until it is delivered, failed or dropped.
//
// The unit is the item: one message on one route, with a state per recipient.
// Back-off belongs to the destination: while that is down its items are not
// rewritten and only a probe is sent. Memory holds a bounded window of each
// destination's items; the rest stays on disk. The queue knows nothing of
// SMTP sessions or of policy: it is told what the far end said, and classifies
// those replies by scope (recipient, message, route, host).
//
// Invariants:
//   - an item leaves only by being delivered, failed or dropped, each in one
//     commit with the event that tells of it;
//   - a leased item has exactly one holder; leases are this process's memory,
//     so a restart finds every item unleased;
//   - no content through the Road door: bodies are opened by tenant;
//   - bulk work runs in batches of at most 10 ms that give way to accept.
//
// Callers: edge (Put), deliver (slots), api (list, hold, retry…), archive
// later.
package queue
