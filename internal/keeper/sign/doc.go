// Package sign makes the signatures of the keeper's acts. It builds what it
// signs from the parts that the act names, and never signs bytes that somebody
// gives it: so a signature that was asked for one act is worth nothing for
// another.
//
// It knows no store, no ledger and no wire; who may ask for what is decided
// before it is called, and entered there.
//
// Invariants:
//   - a [Key] signs for its one use; the use is checked before the parts are;
//   - what is signed for two acts can never be the same bytes, even under one
//     key: TLS 1.3 begins with 64 spaces and a context string (RFC 8446 4.4.3);
//     TLS 1.2 has the curve type 3 where TLS 1.3 has the T of its context; a
//     JWT begins with the base64 of {"alg" and its audience comes from a fixed
//     template; DKIM and ARC end in a header field whose name we write; X.509
//     is DER that begins with a SEQUENCE;
//   - every input is bounded.
//
// Callers: keeper.
package sign
