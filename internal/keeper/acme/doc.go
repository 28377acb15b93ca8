// Package acme gets certificates from a public CA (RFC 8555) and asks it when
// to renew them (ARI, RFC 9773).
//
// It holds the account's key as a signer and is given the key of each
// certificate as one; it stores nothing. It opens no port: an HTTP-01 challenge
// is answered by whoever listens on port 80, from [Issuer.Challenge]; a DNS-01
// challenge is handed to a hook, of which the room rfc2136 is one.
//
// Invariants:
//   - only https is asked, no redirect is followed, and what a CA answers is
//     bounded: bytes, requests, certificates, names, time;
//   - a chain that is returned is for the name and the key that were asked for,
//     and hangs together;
//   - a CA that said when to come again is not asked before;
//   - nothing that a CA answers makes a panic: it makes a fault, of kind later
//     when it may pass, denied or never with the CA's own words when not.
//
// Which purposes a certificate has is the CA's decision (act.Purposes): public CAs
// leave out clientAuth, and a partner may or may not mind.
//
// Callers: keeper, by way of the roof.
package acme
