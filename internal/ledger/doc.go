// Package ledger is the append-only log of one region: who did what to which
// tenant's connection, in an order that nobody can change unseen.
//
// The leaves are JSON texts, stored as they were hashed and never encoded
// again; over them stands a Merkle tree (RFC 6962, section 2.1), kept as tiles
// of 256 hashes; and each minute, and at every 1,000 entries, a checkpoint of
// it is signed (c2sp.org/tlog-checkpoint) and shown to witnesses. docs/ledger.md
// describes all of it for somebody who has nothing of ours.
//
// It does not hold the key that signs, it is given a signer. It does not know
// what an act means, nor whether it was allowed. It does not verify itself: that
// is the room audit, which reads the export and shares no code with this one.
//
// Invariants:
//   - an Append that returned nil is on disk, and its index is final;
//   - entries have the indexes 0, 1, 2 … without a gap, and none ever changes;
//     of an entry past its retention the leaf is removed and its hash stays;
//   - an entry with a key stands in the log once, however often it is appended;
//   - a log that does not agree with its own newest checkpoint is not opened,
//     and one that finds another writer's entries appends no more;
//   - what a checkpoint covers was on disk before it was signed;
//   - appending costs the same at any size, and a witness that is away delays
//     nothing.
//
// Callers: keeper (appends, witnesses, proofs), and through it the API and the
// command line.
package ledger
