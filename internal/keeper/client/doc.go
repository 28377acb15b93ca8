// Package client is what other rooms know of custody: the two seams behind
// which keys and secrets stand.
//
// [Remote] fulfils both by asking the keeper process, and has the other named
// acts besides. [Files] fulfils both from files that only the gateway's user can
// read, where no keeper is configured; no database ever holds a key or a secret.
//
// Invariants:
//   - no call returns key bytes: a certificate's key is a crypto.Signer and
//     nothing else (making a key for init to write is the exception); that of
//     the keeper signs TLS handshakes and refuses everything else;
//   - a keeper that is away is an error of kind later;
//   - a name never leads out of its directory;
//   - a file is replaced as a whole or not at all, and is on disk when the
//     call returns;
//   - a new certificate that can't be used never displaces one that can.
//
// Callers: connection, deliver, and the roof (TLS of the listeners, init,
// doctor and the certificate alarm).
package client
