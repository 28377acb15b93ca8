// Package outbox brings the gateway's audit events to the ledgers: each that
// was committed with its change is entered once, in the ledger of its tenant's
// region; one of no tenant in that of the first region.
//
// It knows neither what an event means nor what a ledger is: store has the
// events, the keeper of the region enters them.
//
// Invariants:
//   - an event leaves the database only after a keeper has said that it is in
//     the ledger;
//   - the region of an event is written down before it is brought there the
//     first time, and never changes;
//   - an event has the same key at each try, and the ledger takes a key once:
//     a kill of either process at any step, and a copy of the database that is
//     put back, enter nothing twice;
//   - a keeper that is away holds up the events of its own region only.
//
// Callers: the roof.
package outbox
