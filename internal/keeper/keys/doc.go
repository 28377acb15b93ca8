// Package keys makes and loads private keys. A driver decides where a key
// lives: the software driver keeps it sealed (keeper/seal) and opens it for as
// long as it is used; a driver over PKCS#11 keeps it in its token and gives a
// handle. A pool has RSA keys ready, since one takes longer to make than a
// partner waits.
//
// It signs nothing; what is signed is keeper/sign's.
//
// Invariants:
//   - a software key is PKCS#8, and outside of a seal only in memory;
//   - a key loads only at the place it was made for;
//   - a key of the pool is given out once: it is gone from storage before it
//     is returned, and is sealed anew at its place.
//
// Callers: keeper.
package keys
