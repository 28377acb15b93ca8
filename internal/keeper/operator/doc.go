// Package operator is the orders that people sign: changing a binding, opening
// a campaign, lifting the breaker, thawing a restored keeper, rotating the KEK,
// restoring. The keeper takes none of them on the gateway's word: it verifies
// the operators' own signatures, and this room is how.
//
// It knows neither what an order does nor where nonces are kept.
//
// Invariants:
//   - a signature covers act, region, subject, parameters, nonce and end, in the
//     one encoding of [Order.Bytes]; nothing else is read from an order;
//   - an order counts once: its nonce is spent before [Verifier.Verify] returns;
//   - a rule that asks for two signers means two keys of two people;
//   - a [Verified] can't be had but from a Verifier;
//   - a private key is read only from a file that its owner alone can read.
//
// Callers: keeper, keeper/breaker (Verified), the command line (signing).
package operator
