// Package alarm watches figures and tells people when one is wrong: mail that
// waits too long, a route that is down or stopped, a disk that fills, a
// certificate that ends, a spike of accepts or refusals.
//
// It reads figures from a function, judges them by pure rules, remembers which
// alarms are raised, and sends one notice for all that changed: as JSON by
// webhook, and as a message handed to a function that puts it into the queue.
// It changes nothing and knows no other room.
//
// Invariants:
//   - an alarm is told of when it is raised and when it is cleared, and never
//     twice within an hour, however often it comes and goes;
//   - a notice never blocks the watch: each webhook has a bounded queue, and
//     what does not fit is logged and dropped;
//   - what is remembered and what a notice lists are bounded, also when every
//     route is down.
//
// Callers: the roof.
package alarm
