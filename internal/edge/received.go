package edge

import (
	"net/netip"
	"strings"
	"time"

	"github.com/sallyport-mail/sallyport/internal/mail"
)

// prefix is what we write before the original bytes of a message: our
// Received field (RFC 5321 4.4), and for submitted mail the fields that
// RFC 6409 8.1 and 8.2 let us add.
func (s *session) prefix(id string, g *group, in incoming) []byte {
	r := mail.Received{
		Hello: s.conn.Hello, IP: s.client.ip, By: s.host, ID: id,
		With: mail.Protocol(s.conn.ESMTP, s.tx.params.UTF8, s.conn.TLS != nil, s.submitter.User != ""),
		Mark: s.edge.mark(g.tenant), Time: in.at.UTC(),
	}
	if t := s.tls(); t != nil {
		r.Version, r.Cipher = t.Version, t.Cipher
	}
	if len(g.to) == 1 {
		r.For = g.to[0].Address
	}
	if s.discreet(g) {
		r.IP, r.Hello = netip.Addr{}, outwardHello(s.conn.Hello)
	}
	out := r.Append(make([]byte, 0, 512))
	if s.kind == Submission {
		out = completed(out, id, s.host, in)
	}
	return out
}

// discreet is true of a message that leaves the tenant whose client brought
// it, where that client is a user or stands inside its house: which address it
// has there is not for the world, nor for another tenant. The sending tenant's
// trace has it.
func (s *session) discreet(g *group) bool {
	leaves := g.outbound || s.tx.who.tenant != "" && s.tx.who.tenant != g.tenant
	return leaves && (inner(s.client.ip) || s.submitter.User != "")
}

// inner reports addresses that mean nothing outside (RFC 1918, RFC 4193).
func inner(ip netip.Addr) bool {
	return ip.IsPrivate() || ip.IsLoopback() || ip.IsLinkLocalUnicast()
}

// outwardHello keeps a name and hides a literal, by which most programs
// introduce themselves with their inner address.
func outwardHello(hello string) string {
	if strings.HasPrefix(hello, "[") {
		return "client"
	}
	return hello
}

func completed(out []byte, id, host string, in incoming) []byte {
	if in.summary.Date == "" {
		out = append(out, "Date: "...)
		out = in.at.UTC().AppendFormat(out, time.RFC1123Z)
		out = append(out, "\r\n"...)
	}
	if in.summary.MessageID == "" {
		out = append(out, "Message-ID: "...)
		out = append(out, messageID(id, host)...)
		out = append(out, "\r\n"...)
	}
	return out
}

func messageID(id, host string) string { return "<" + id + "@" + host + ">" }
