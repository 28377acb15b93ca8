// Package wire is the keeper's side of its socket: HTTP/1.1 with JSON bodies,
// one POST route for each named act, over a Unix socket whose peer is known by
// the kernel (SO_PEERCRED), or over TCP with mutual TLS.
//
// It knows no key and no ledger; what an act does is behind [Acts]. It decides
// who may ask for which act, and nothing finer: whether a tenant, a connection
// and a purpose fit together is the keeper's to check.
//
// Invariants:
//   - a peer without a grant for an act is refused before its body is read;
//   - every refusal is told to Config.Refused: unknown peers, unknown acts,
//     acts beyond the grant, another region, a request that does not say for
//     whom;
//   - bodies, times and the number of connections are bounded;
//   - an error becomes a problem document (RFC 9457) by its kind; the text of
//     an internal one stays here.
//
// Callers: keeper.
package wire
