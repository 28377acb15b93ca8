package edge

import (
	"context"
	"crypto/tls"

	"github.com/sallyport-mail/sallyport/internal/mail"
	"github.com/sallyport-mail/sallyport/internal/smtp"
	"github.com/sallyport-mail/sallyport/internal/tenant"
)

// backend makes the sessions of one listener.
type backend struct {
	edge   *Edge
	kind   Kind
	region string
	host   string
}

// session is one connection. It is used by one goroutine at a time.
type session struct {
	*backend
	conn   *smtp.Conn
	client client
	exempt bool // allowed by the operator: no limits
	inside bool // counted in at the limits

	submitter  tenant.Submitter // after AUTH
	submitting bool             // counted in at its tenant's concurrent submissions

	proofOf *tls.ConnectionState // the handshake that proof is of
	proof   proof

	unknown int // recipients that do not exist
	tx      transaction
}

// transaction is what one MAIL began.
type transaction struct {
	from     mail.Address
	fromText string
	params   mail.FromParams
	who      attribution
	to       []recipient
	counted  []string // tenants that this message has been counted for
}

// Connect decides about a connection before it is greeted: the operator's
// block list, then the limits.
func (b *backend) Connect(_ context.Context, c *smtp.Conn) (smtp.Session, *mail.Reply) {
	b.edge.connects.Add(1)
	s := &session{backend: b, conn: c, client: clientOf(c.Remote)}
	if r := s.admit(); r != nil {
		return nil, s.refuse("CONNECT", r)
	}
	b.edge.sessions.Add(1)
	if b.kind == Submission {
		return &submission{s}, nil
	}
	return s, nil
}

func (s *session) admit() *mail.Reply {
	switch verdict, why := s.edge.c.Tenants.Sender("", s.client.text, ""); verdict {
	case tenant.Blocked:
		return blockedClient(why)
	case tenant.Allowed:
		s.exempt = true
		return nil
	}
	if why := s.edge.clients.enter(s.client, s.edge.c.Now()); why != "" {
		return tooMany(421, "4.7.0", why)
	}
	s.inside = true
	return nil
}

// Hello has nothing to decide: any name is taken, and it is traced.
func (s *session) Hello(context.Context) *mail.Reply { return nil }

// Mail opens a transaction of the inbound listener.
func (s *session) Mail(_ context.Context, from mail.Address, p mail.FromParams) *mail.Reply {
	return s.begin(from, p, s.attribute())
}

// begin is what MAIL does on each kind of listener, once it is known whose
// mail it would be.
func (s *session) begin(from mail.Address, p mail.FromParams, who attribution) *mail.Reply {
	s.tx.from, s.tx.fromText, s.tx.params, s.tx.who = from, from.String(), p, who
	r := s.mayBegin()
	if r != nil {
		s.refuse("MAIL", r)
		s.Reset()
	}
	return r
}

func (s *session) mayBegin() *mail.Reply {
	if r := s.spendMessage(); r != nil {
		return r
	}
	if s.kind == Submission {
		if r := s.maySubmit(s.tx.from); r != nil {
			return r
		}
	}
	if r := s.judgeSender(""); r != nil {
		return r
	}
	if who := s.tx.who; who.tenant != "" {
		if r := s.maySendAs(who.tenant, s.tx.from); r != nil {
			return r
		}
		if r := s.spendOutbound(who.tenant); r != nil {
			return r
		}
	}
	if err := s.edge.c.Store.Room(s.tx.params.Size); err != nil {
		return diskFull()
	}
	return nil
}

// spendMessage counts a MAIL of this client. A tenant's own server and a
// platform are many people's: they are limited by tenant.
func (s *session) spendMessage() *mail.Reply {
	if s.exempt {
		return nil
	}
	now := s.edge.c.Now()
	if !s.edge.clients.listener(s.conn.Listener, now) {
		return tooMany(450, "4.3.2", "This host is busy, try again in a minute")
	}
	if !s.tx.who.anonymous() || s.edge.clients.message(s.client, now) {
		return nil
	}
	return tooMany(450, "4.7.1", "Too many messages from your address, try again in a minute")
}

// judgeSender asks the sender lists: the operator's, and the tenant's when one
// is named.
func (s *session) judgeSender(tenantName string) *mail.Reply {
	verdict, why := s.edge.c.Tenants.Sender(tenantName, s.client.text, s.tx.fromText)
	if verdict == tenant.Blocked {
		return blockedSender(why)
	}
	return nil
}

// Reset ends the transaction. What the queue keeps was copied.
func (s *session) Reset() {
	clear(s.tx.to)
	s.tx = transaction{to: s.tx.to[:0], counted: s.tx.counted[:0]}
}

// Refused is told what the wire refused by itself.
func (s *session) Refused(command string, r mail.Reply) { s.note(command, "", "", r) }

// Close gives back what the connection was counted for.
func (s *session) Close() {
	s.edge.sessions.Add(-1)
	if s.inside {
		s.edge.clients.leave(s.client)
	}
	if s.submitting {
		s.edge.clients.accounts.leave(account{submissionsOf, s.submitter.Tenant})
	}
	s.inside, s.submitting = false, false
}
