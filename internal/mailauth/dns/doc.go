// Package dns is the seam through which mail authentication and routing ask
// the DNS (RFC 1035), with a resolver over the network and a fake for tests.
//
// It is a stub resolver: it asks recursive servers, over UDP and where an
// answer is cut off over TCP, and believes them. It validates nothing and
// knows nothing of mail beyond which hosts take a domain's mail (RFC 5321
// 5.1, [Hosts]).
//
// Invariants:
//   - a name that does not exist and one without records of a type are of
//     kind missing; whatever a later try may answer otherwise is of kind later;
//   - the cache is bounded in bytes, and so is what one answer may hold;
//   - equal questions that are asked at the same time go out once, and each
//     asker waits no longer than its own context allows.
//
// Names are A-labels, without a dot at the end in what is returned (but for
// the null MX). Callers: connection and deliver (MX), doctor, and the rooms of
// mailauth.
package dns
