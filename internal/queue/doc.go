// Package queue holds accepted mail until it is delivered, failed or dropped.
//
// The unit is the item: one message on one route, with a state per recipient
// (state.go has the table, docs/states.md shows it). Back-off belongs to the
// destination: while that is down its items are not rewritten and only a probe
// is sent. The queue knows nothing of SMTP sessions or of policy: it is told
// what the far end said, and classifies those replies by scope (recipient,
// message, route, host; reply.go has the table).
//
// Memory holds, for each lane (one tenant's items at one destination), the
// head of its items: a window. The rest stays on disk and is read when the
// window runs low. Lanes of a destination take turns, destinations take turns
// at slots.
//
// Invariants:
//   - an item leaves only by being delivered, failed or dropped, each in one
//     commit with the event that tells of it;
//   - a leased item has exactly one holder; leases are this process's memory,
//     so a restart finds every item unleased;
//   - a waiting item that nobody holds is in its lane's window, or on disk
//     behind the window's edge with the window marked as having more;
//   - no content through the Road door: envelopes and bodies are read by
//     tenant;
//   - memory is bounded: entries by windows, envelopes and bodies by
//     WindowBytes and the number of leases;
//   - bulk work runs in batches of at most 10 ms that give way to accept;
//   - a notification goes only to an authenticated sender of the tenant, and
//     never about a notification.
//
// Callers: edge (Put), deliver (slots), api (list, hold, retry…), archive
// later.
package queue
