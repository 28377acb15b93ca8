// Package keeper is custody: it holds the keys, the sealed secrets and the
// ledger of one region, and does named acts with them for those who may ask.
// It puts the rooms below it together: seal, keys, sign, breaker, operator,
// and the ledger; keeper/wire brings the requests.
//
// It knows no mail, no gateway and no partner; where a key is shown is what the
// binding of its connection says, which the keeper owns.
//
// Invariants:
//   - no key and no secret is used before an entry that says so is on disk; the
//     outcome is entered after;
//   - what a request says of tenant, connection, purpose and identity is held
//     against the rows, and what does not fit is refused, entered and alarmed;
//   - an identity moves as the table in state.go says; retired and compromised
//     are for ever;
//   - a binding is given once, and changed by an order only;
//   - a frozen keeper does nothing but tell how it stands and take orders;
//   - where there is a KEK of standbys, the key of an identity made as one is
//     opened for its making and for the move that takes it into use, and nothing
//     else waits for that KEK;
//   - what it remembers of itself is what a sealed manifest says, and that is the
//     one which the ledger has last; anything else is frozen, its breaker tripped;
//   - all of it is of one region.
//
// Callers: the roof (the process sallyport keeper), through keeper/wire.
package keeper
