// Package audit verifies a ledger from what was published of it: an export, or
// a proof of one entry. It is the second opinion: it reads only the format of
// docs/ledger.md, computes the hashes of RFC 6962 itself, and shares no code
// with the room ledger, so that a mistake of one does not hide in the other.
//
// It answers what it can know: without an anchor, a checkpoint known from
// elsewhere, a log may be consistent and still be an old copy, or one of two.
//
// Invariants:
//   - it accepts nothing that the checkpoint's signature does not cover, but
//     says so of the entries behind the last checkpoint;
//   - an export that has a tail, or should have, is whole only if the entries
//     end where the tail says; of one from before there were tails the report
//     does not say that it is;
//   - its memory does not grow with the log;
//   - whatever bytes it is given, it answers with a report or an error of kind
//     invalid.
//
// Callers: the command line, and whoever wants to check us.
package audit
