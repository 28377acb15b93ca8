// Package connection is a tenant's connection to one outside system: where its
// inbound mail is delivered, through which host its outbound mail leaves, and
// by what a platform proves that it speaks for the tenant.
//
// It holds no secret and no key: those stand behind keeper/client.
//
// Invariants:
//   - a tenant has one inbound connection, unless further ones name the
//     domains that they serve;
//   - a client certificate, a network, and an originator organisation each
//     belong to at most one tenant;
//   - everything the road asks is answered from memory, but for the DNS;
//   - a message travels by its own tenant's connections only;
//   - no error in a tenant's connection makes its mail fail for good: it waits.
//
// Callers: directory (probes), edge (attribution), deliver, api, doctor.
package connection
