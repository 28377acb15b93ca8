// Package smtp is both ends of SMTP on the wire (RFC 5321), our own code.
//
// The server turns bytes into calls on a [Session] and replies into bytes;
// the client does the reverse. Neither decides anything about mail: who may
// send, where a message goes and what is kept are the session's business.
//
// Extensions: PIPELINING (RFC 2920), 8BITMIME (RFC 6152), SMTPUTF8 (RFC 6531),
// SIZE (RFC 1870), CHUNKING (RFC 3030, without BINARYMIME), DSN (RFC 3461),
// ENHANCEDSTATUSCODES (RFC 2034), STARTTLS (RFC 3207), AUTH (RFC 4954: PLAIN,
// LOGIN), LMTP as a client (RFC 2033), the PROXY protocol versions 1 and 2.
//
// Invariants:
//   - only CR LF . CR LF ends DATA; a bare CR or bare LF never starts a
//     command, in either direction, and the client never sends one;
//   - content with a bare CR or LF, or with a line that is a lone dot but for
//     NUL bytes, is refused on the way in and on the way out;
//   - content has one end only: a connection that breaks before is an error to
//     whoever reads it, never io.EOF;
//   - whatever is pipelined behind STARTTLS in clear is thrown away (RFC 3207
//     4.2, and CVE-2011-0411), by server and client;
//   - a BDAT chunk is always consumed, whatever is replied to it;
//   - a connection ends with the certificate that its handshake showed, and no
//     TLS session is resumed without one;
//   - memory per session is bounded, however long a line, a reply or a body,
//     and a connection that waits holds no buffer.
//
// A connection costs few system calls: replies to a pipelined group are one
// write, deadlines move at most once a second, content is scanned where the
// kernel has put it and handed on from there ([Session].Data's reader is an
// io.WriterTo), and the client writes content and final dot together.
//
// Callers: edge (server), connection and deliver (client), demo and the test
// peers (both).
package smtp
