// Package edge is who connects, for which tenant, whether they may, whether
// the recipient is real, and how much.
//
// It is the session behind the SMTP server's seam. It attributes mail (inbound
// by recipient domain; outbound by authentication, or by a certificate, a
// network or an originator organisation that is one tenant's alone), enforces
// limits, splits the envelope into one message per tenant and route at the end
// of data, and puts them into the queue in one durable write. It opens no
// credential and delivers nothing, and it changes no byte of the content: what
// it has to say stands in a prefix, and which header fields a tenant is not to
// get is noted beside the body.
//
// Invariants:
//   - 250 after the final dot is said only when Queue.Put returned nil;
//   - MAIL FROM and From: never attribute outbound mail to a tenant; a
//     reverse-path of another tenant's is refused even where the tenant is
//     proven;
//   - nothing is relayed for anybody who is not attributed to exactly one
//     tenant: two proofs of different tenants are none, and a platform's
//     certificate outweighs the network it comes from;
//   - a platform's mail is attributed at end of data, and when that fails, it
//     is refused for every recipient of the message, for one reply cannot say
//     two things;
//   - one tenant's message, trace and Received field tell nothing of another
//     tenant's users;
//   - fields that only a tenant's own Exchange may set reach it only from there;
//   - no DSN goes to a stranger;
//   - the memory of the limits is bounded, however many addresses connect.
//
// Callers: the roof.
package edge
