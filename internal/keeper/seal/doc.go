// Package seal keeps secrets unreadable: a secret or private key is sealed
// under its tenant's data key, the data key is wrapped by the region's key
// encryption key (KEK), and the KEK stands behind a driver.
//
// What a sealed thing is for is part of its seal: region, tenant, connection,
// purpose, kind, epoch and the binding (which partner it may be shown to) are
// the associated data of the AEAD, in the one encoding of [Place.Bytes]. A row
// that was swapped, copied to another tenant or region, or whose binding was
// edited does not open.
//
// It knows no database and no ledger: it is given values and gives values back.
// It decides nothing about who may open what.
//
// Invariants:
//   - no two places that differ in any field have the same encoding;
//   - a data key opens and seals for its own region and tenant only;
//   - a new KEK re-wraps data keys; what is sealed below them is not touched;
//   - a [Secret] never prints, and is wiped by Wipe;
//   - foreign bytes (blobs, KEK files, answers of a transit service) are
//     bounded, and make an error, never a panic.
//
// Wiping is what Go allows: copies that the runtime, Tink or net/http make on
// the way are out of our reach until they are collected, so core dumps and swap
// must be off for the process.
//
// Callers: keeper, keeper/keys.
package seal
