// Package pkcs11 keeps keys in a PKCS#11 token: identities' private keys
// (keys.Driver) and a region's KEK (seal.KEK). Neither can be read out of the
// token; what is stored outside is the sealed name of an object.
//
// It is built with cgo only. A binary without cgo has the same names, which
// answer that they are not there: the default binary needs no C library.
//
// It knows no database and no ledger, and decides nothing about who may sign.
//
// Invariants:
//   - every private or secret key made here is sensitive and not extractable,
//     and a KEK that is not is refused;
//   - a handle loads only at the place it was made for: it is sealed there;
//   - a signature is verified before it is given out, so an object that was
//     replaced in the token signs nothing;
//   - a token that is gone makes errors of kind later, and is used again when it
//     is back: all sessions of its module are closed, the module is initialised
//     anew, and the login repeated;
//   - a PIN that was refused is not tried again until the PIN file says another,
//     since tokens lock after a few wrong ones;
//   - no call outlives its time for the caller, even when the module hangs.
//
// A module is code of its maker inside the keeper's process: a crash in it ends
// the keeper.
//
// Callers: the roof.
package pkcs11
