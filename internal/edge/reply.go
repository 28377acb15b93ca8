package edge

import (
	"time"

	"github.com/sallyport-mail/sallyport/internal/connection"
	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/mail"
	"github.com/sallyport-mail/sallyport/internal/trace"
)

// The replies of the edge, in one place so that they read as one voice. The
// codes are of RFC 5321 4.2, the enhanced ones of RFC 3463 and the IANA
// registry that RFC 5248 began.

func reply(code int, enhanced, text string) *mail.Reply {
	return &mail.Reply{Code: code, Enhanced: enhanced, Text: text}
}

func tooMany(code int, enhanced, text string) *mail.Reply { return reply(code, enhanced, text) }

func blockedClient(why string) *mail.Reply {
	return reply(554, "5.7.1", because("Your address is blocked here", why))
}

func blockedSender(why string) *mail.Reply {
	return reply(550, "5.7.1", because("The sender is blocked here", why))
}

func because(text, why string) string {
	if why == "" {
		return text
	}
	return text + ": " + why
}

func diskFull() *mail.Reply {
	return reply(452, "4.3.1", "Not enough space for the message, try again later")
}

func notNow() *mail.Reply {
	return reply(451, "4.3.0", "The message could not be kept, try again later")
}

func relayingDenied(domain string) *mail.Reply {
	return reply(550, "5.7.1", "Relaying denied: mail for "+domain+" is not taken here")
}

func otherRegion(host string) *mail.Reply {
	return reply(550, "5.7.1", "Relaying denied: this host serves another region, use "+host)
}

func noSuchUser(a mail.Address, why string) *mail.Reply {
	return reply(550, "5.1.1", because("No such recipient <"+a.String()+">", why))
}

func cannotVerify(a mail.Address, why string) *mail.Reply {
	return reply(451, "4.1.1", because("The recipient <"+a.String()+"> cannot be verified now, try again later", why))
}

func noRoute(domain string) *mail.Reply {
	return reply(451, "4.3.5", "No route yet for "+domain+", try again later")
}

func tooLarge(limit int64) *mail.Reply {
	return reply(552, "5.3.4", "The message is too large for this recipient: at most "+decimal(limit)+" bytes")
}

func noUTF8(a mail.Address) *mail.Reply {
	return reply(553, "5.6.7", "The server of <"+a.String()+"> does not take SMTPUTF8 mail")
}

func notYourDomain(a mail.Address) *mail.Reply {
	return reply(550, "5.7.60", "<"+a.String()+"> is not an address that you may send as")
}

// unroutable is what a look-up of an outbound route came to.
func unroutable(domain string, err error) *mail.Reply {
	switch {
	case connection.IsNullMX(err):
		return reply(556, "5.1.10", because("Mail for "+domain+" cannot be delivered", fault.Sentence(err)))
	case fault.Is(err, fault.Never):
		return reply(550, "5.1.2", because("Mail for "+domain+" cannot be delivered", fault.Sentence(err)))
	}
	return reply(451, "4.4.3", "The route for "+domain+" is not known now, try again later")
}

// refuse counts and traces a negative reply and returns it.
func (s *session) refuse(command string, r *mail.Reply) *mail.Reply {
	s.note(command, "", "", *r)
	return r
}

// refuseTo is refuse for one recipient of a tenant.
func (s *session) refuseTo(tenantName, to string, r *mail.Reply) *mail.Reply {
	s.note("RCPT", tenantName, to, *r)
	return r
}

// note counts a negative reply and hands it to the trace, which sums what
// comes often. What a tenant's own client is refused is that tenant's to read,
// and nobody else's.
func (s *session) note(command, tenantName, to string, r mail.Reply) {
	if r.Temporary() {
		s.edge.deferred.Add(1)
	} else {
		s.edge.refused.Add(1)
	}
	if own := s.tx.who.tenant; own != "" {
		tenantName = own
	}
	now := s.edge.c.Now()
	s.edge.c.Trace.Refused(trace.Refusal{
		Time: now, Last: now, Count: 1,
		Peer: s.client.text, Hello: s.conn.Hello,
		Tenant: tenantName, From: s.tx.fromText, To: to,
		Command: command, Code: r.Code, Enhanced: r.Enhanced, Text: r.Text,
	})
}

// rateWait is when mail that was over a tenant's rate is tried again.
const rateWait = 5 * time.Minute
