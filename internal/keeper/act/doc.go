// Package act is the words between the keeper and those who ask it: the names
// of the acts, what each takes and what it gives, and how a chain in it is read
// ([Purposes]). There is nothing behind it: no key, no wire, no rule of who may.
//
// Invariants:
//   - no act takes bytes to be signed; each takes the parts that the keeper
//     builds from;
//   - every request says for which region, tenant, connection and purpose, and
//     on whose behalf (trace).
//
// Callers: keeper/wire, keeper/client, keeper, connection.
package act
