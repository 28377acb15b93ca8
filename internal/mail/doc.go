// Package mail turns the bytes of messages and addresses into values and back.
//
// It knows addresses (RFC 5321 4.1.2, RFC 6531), envelopes, replies, the
// header section (RFC 5322) and delivery status notifications (RFC 3464). It
// is pure: no network, no clock, no disk, no configuration; the same bytes
// give the same value. It judges nothing: whether a message is wanted is
// policy's business.
//
// Invariants:
//   - an [Address] that was parsed prints back to something that parses to
//     the same Address;
//   - no function here allocates more than a small multiple of its input.
//
// Callers: every room that touches a message.
package mail
