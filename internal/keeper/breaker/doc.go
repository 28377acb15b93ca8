// Package breaker stops bulk opening: past N openings a minute for a region it
// trips, and stays tripped until two operators lift it. Whoever took the
// gateway over can open a credential at a time, as the gateway can, but not
// all of them. Beside it a watch tells when a connection asks for an act more
// often than it plausibly needs to.
//
// It knows no ledger, no store and no clock of its own: the keeper keeps a
// [Snapshot] after each change of state and gives it back at the start.
//
// Invariants:
//   - a tripped breaker lets nothing through, whatever the clock does and
//     however often the keeper starts anew from its snapshot;
//   - it is lifted, and bulk opening authorised, only by an order that
//     keeper/operator verified, and by two people;
//   - a clock that jumps back gives no new openings.
//
// Callers: keeper.
package breaker
