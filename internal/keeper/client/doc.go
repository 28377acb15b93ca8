// Package client is what other rooms know of custody: the two seams behind
// which keys and secrets stand.
//
// Until the keeper process exists [Files] fulfils both from files that only
// the gateway's user can read; no database ever holds a key or a secret. No
// call returns key bytes: a certificate's key is a crypto.Signer.
//
// Callers: connection, deliver, and the roof (TLS of the listeners).
package client
