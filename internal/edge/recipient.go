package edge

import (
	"context"
	"strings"
	"time"

	"github.com/sallyport-mail/sallyport/internal/connection"
	"github.com/sallyport-mail/sallyport/internal/directory"
	"github.com/sallyport-mail/sallyport/internal/mail"
	"github.com/sallyport-mail/sallyport/internal/tenant"
)

// recipient is an accepted RCPT with where its copy goes.
type recipient struct {
	mail.Recipient
	tenant   string
	region   string
	outbound bool
	own      bool // notifications may go to the sender
	pending  bool // a platform's: tenant and route follow from the header
	route    connection.Route
	maxSize  int64 // the smallest of the limits known, 0 none
	// verdict is set when the recipient is refused or deferred after its RCPT
	// was accepted.
	verdict mail.Reply
}

// routeWait bounds the look-up of a route within RCPT. What takes longer goes
// on in delivery.
const routeWait = 3 * time.Second

// Rcpt adds a recipient. Of a recipient that is named twice one copy goes out.
func (s *session) Rcpt(ctx context.Context, to mail.Recipient) *mail.Reply {
	if s.spendsTooManyRecipients() {
		return s.refuseTo("", to.String(), tooMany(450, "4.7.1", "Too many recipients from your address, try again in a minute"))
	}
	to, refusal := s.withDomain(to)
	if refusal == nil && s.has(to.Address) {
		return nil
	}
	var r recipient
	if refusal == nil {
		r, refusal = s.resolve(ctx, to)
	}
	if refusal != nil {
		return s.unknownToo(s.refuseTo(r.tenant, to.String(), refusal))
	}
	s.tx.to = append(s.tx.to, r)
	return nil
}

func (s *session) spendsTooManyRecipients() bool {
	return !s.exempt && s.tx.who.anonymous() && !s.edge.clients.recipient(s.client, s.edge.c.Now())
}

// withDomain puts the operator's address in the place of the bare <postmaster>
// (RFC 5321 4.5.1), which the wire completes with our own name.
func (s *session) withDomain(to mail.Recipient) (mail.Recipient, *mail.Reply) {
	if to.Domain != "" && !strings.EqualFold(to.Domain, s.host) {
		return to, nil
	}
	tenants, postmaster := s.edge.c.Tenants, s.edge.c.Postmaster
	if _, ours := tenants.Domain(to.Domain); ours {
		return to, nil
	}
	_, ours := tenants.Domain(postmaster.Domain)
	if !strings.EqualFold(to.Local, "postmaster") || !ours {
		return to, reply(550, "5.1.1", "This host has no mailbox of that name")
	}
	to.Address = postmaster
	return to, nil
}

func (s *session) has(a mail.Address) bool {
	for i := range s.tx.to {
		if s.tx.to[i].Address == a {
			return true
		}
	}
	return false
}

// unknownToo ends a session that guesses addresses.
func (s *session) unknownToo(r *mail.Reply) *mail.Reply {
	if r.Enhanced != "5.1.1" {
		return r
	}
	s.unknown++
	if most := s.edge.clients.limits.UnknownPerSession; most < 0 || s.unknown <= most {
		return r
	}
	return s.refuse("RCPT", tooMany(421, "4.7.0", "Too many unknown recipients"))
}

// resolve finds whose recipient it is: one of our tenants', whoever sends, or
// else one on the internet, for those who may relay.
func (s *session) resolve(ctx context.Context, to mail.Recipient) (recipient, *mail.Reply) {
	if d, ours := s.edge.c.Tenants.Domain(to.Domain); ours {
		return s.inbound(ctx, to, d)
	}
	who := s.tx.who
	switch {
	case strings.HasPrefix(to.Domain, "["):
		// A literal names a host and no domain of anybody (RFC 5321 4.1.3).
		return recipient{}, relayingDenied(to.Domain)
	case who.tenant != "":
		return s.outbound(ctx, to, who.tenant)
	case who.platform != nil:
		return recipient{Recipient: to, outbound: true, pending: true}, nil
	}
	return recipient{}, relayingDenied(to.Domain)
}

// inbound is a recipient in a tenant's own domain.
func (s *session) inbound(ctx context.Context, to mail.Recipient, d tenant.Domain) (recipient, *mail.Reply) {
	r := recipient{Recipient: to, tenant: d.Tenant, own: s.tx.who.tenant == d.Tenant && s.own(d.Tenant)}
	t, ok := s.edge.c.Tenants.Tenant(d.Tenant)
	if !ok {
		return r, relayingDenied(to.Domain)
	}
	r.region = t.Region
	if refusal := s.serves(t); refusal != nil {
		return r, refusal
	}
	if refusal := s.judgeSender(d.Tenant); refusal != nil {
		return r, refusal
	}
	if refusal := s.exists(ctx, to.Address, d); refusal != nil {
		return r, refusal
	}
	var err error
	if r.route, err = s.edge.c.Connections.Inbound(d.Tenant, d.Name); err != nil {
		return r, noRoute(d.Name)
	}
	return s.admitted(r, t, inboundOf)
}

// exists asks the directory. A local part that a server behind us might read
// as a route ("%", "!", "@" in quotes) is taken only where a list has it: that
// is how a relay behind a gateway is fooled into relaying for strangers.
func (s *session) exists(ctx context.Context, a mail.Address, d tenant.Domain) *mail.Reply {
	if strings.ContainsAny(a.Local, "%!@") && d.Recipients != "list" {
		return relayingDenied(a.String())
	}
	answer, why := s.edge.c.Directory.Check(ctx, d, a)
	switch answer {
	case directory.Known:
		return nil
	case directory.Later:
		return cannotVerify(a, why)
	default:
		return noSuchUser(a, why)
	}
}

// outbound is a recipient on the internet of mail that is a tenant's.
func (s *session) outbound(ctx context.Context, to mail.Recipient, name string) (recipient, *mail.Reply) {
	r := recipient{Recipient: to, tenant: name, outbound: true, own: s.own(name)}
	t, ok := s.edge.c.Tenants.Tenant(name)
	if !ok {
		return r, relayingDenied(to.Domain)
	}
	r.region = t.Region
	if refusal := s.serves(t); refusal != nil {
		return r, refusal
	}
	wait, cancel := context.WithTimeout(ctx, routeWait)
	defer cancel()
	var err error
	if r.route, err = s.edge.c.Connections.Outbound(wait, name, to.Domain); err != nil {
		return r, unroutable(to.Domain, err)
	}
	return s.admitted(r, t, outboundOf)
}

// admitted asks what the route can carry and the tenant's own limits.
func (s *session) admitted(r recipient, t tenant.Tenant, kind accountKind) (recipient, *mail.Reply) {
	r.maxSize = smaller(r.route.MaxSize, t.Settings.MaxSize)
	if r.maxSize > 0 && s.tx.params.Size > r.maxSize {
		return r, tooLarge(r.maxSize)
	}
	if (s.tx.params.UTF8 || r.NeedsUTF8()) && !r.route.UTF8 {
		return r, noUTF8(r.Address)
	}
	if most := t.Settings.MaxRecipients; most > 0 && s.countFor(t.Name) >= most {
		return r, tooMany(452, "4.5.3", "Too many recipients of one organisation, send the others in a further message")
	}
	return r, s.spend(t, kind)
}

// smaller is the smaller of two limits of which 0 is none.
func smaller(a, b int64) int64 {
	if a == 0 || b != 0 && b < a {
		return b
	}
	return a
}

func (s *session) countFor(name string) int {
	n := 0
	for i := range s.tx.to {
		if s.tx.to[i].tenant == name {
			n++
		}
	}
	return n
}
