// Package edge is who connects, for which tenant, whether they may, whether
// the recipient is real, and how much.
//
// It is the session behind the SMTP server's seam. It attributes mail (inbound
// by recipient domain; outbound by authentication, or by a certificate, a
// network or an originator organisation that is one tenant's alone), enforces
// limits, splits the envelope into one message per tenant and route at the end
// of data, and puts them into the queue in one durable write. It opens no
// credential and delivers nothing.
//
// Invariants:
//   - 250 after the final dot is said only when Queue.Put returned nil;
//   - MAIL FROM and From: never attribute outbound mail to a tenant;
//   - nothing is relayed for anybody who is not attributed to exactly one
//     tenant;
//   - no DSN goes to a stranger.
//
// Callers: the roof.
package edge
