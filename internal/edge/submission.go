package edge

import (
	"context"
	"io"
	"mime"
	"net/mail"
	"strings"

	"github.com/sallyport-mail/sallyport/internal/fault"
	ours "github.com/sallyport-mail/sallyport/internal/mail"
	"github.com/sallyport-mail/sallyport/internal/tenant"
)

// submission is a session of the submission listener (RFC 6409): nothing
// without AUTH, and then only as one's own tenant.
type submission struct{ *session }

// Auth checks a password (RFC 4954). Failures are counted per address, for a
// password costs an Argon2id hash to check and may not be guessed.
func (s *submission) Auth(ctx context.Context, user, password string) *ours.Reply {
	now := s.edge.c.Now()
	if !s.edge.clients.mayAuth(s.client, now) {
		return s.refuse("AUTH", tooMany(421, "4.7.0", "Too many failed logins, try again in a few minutes"))
	}
	who, err := s.edge.c.Tenants.VerifySubmitter(ctx, user, password)
	if err != nil {
		if fault.Is(err, fault.Denied) {
			s.edge.clients.authFailed(s.client, now)
			return s.refuse("AUTH", reply(535, "5.7.8", "Authentication credentials invalid"))
		}
		return s.refuse("AUTH", reply(454, "4.7.0", "Temporary authentication failure, try again later"))
	}
	return s.welcome(who)
}

// welcome counts the session in at its tenant.
func (s *submission) welcome(who tenant.Submitter) *ours.Reply {
	t, ok := s.edge.c.Tenants.Tenant(who.Tenant)
	if !ok {
		return s.refuse("AUTH", reply(535, "5.7.8", "Authentication credentials invalid"))
	}
	if s.region != "" && s.region != t.Region {
		return s.refuse("AUTH", reply(535, "5.7.8", "This host serves another region, use "+s.edge.c.Hostname(t.Region)))
	}
	limit := t.Settings.ConnectionsMax
	if limit <= 0 {
		limit = none
	}
	if !s.edge.clients.accounts.enter(account{submissionsOf, t.Name}, s.edge.c.Now().UnixMicro(), limit, none) {
		return s.refuse("AUTH", tooMany(421, "4.7.0", "Too many connections of your organisation, try again later"))
	}
	s.submitter, s.submitting = who, true
	return nil
}

// Mail opens a transaction of an authenticated user.
func (s *submission) Mail(_ context.Context, from ours.Address, p ours.FromParams) *ours.Reply {
	who := attribution{}
	if s.submitter.Tenant != "" {
		who = attribution{tenant: s.submitter.Tenant, connection: s.submitter.Connection, proof: "authentication"}
	}
	return s.begin(from, p, who)
}

// maySubmit asks for a sender of one of the tenant's domains; <> is for the
// notifications of a user's own program.
func (s *session) maySubmit(from ours.Address) *ours.Reply {
	if s.submitter.Tenant == "" {
		return reply(530, "5.7.0", "Authentication required")
	}
	if !from.IsNull() && !s.speaksFor(from.Domain) {
		return notYourDomain(from)
	}
	return nil
}

func (s *session) speaksFor(domain string) bool {
	d, ok := s.edge.c.Tenants.Domain(domain)
	return ok && d.Tenant == s.submitter.Tenant
}

// author checks the From field of a submitted message: one field, and each
// address in it of the tenant (RFC 6409 6.1 leaves that to the server). It is
// what the reader sees, and what DMARC will hold against our signature.
func (s *session) author(header []byte) *ours.Reply {
	fields := ours.Values(header, "From")
	if len(fields) != 1 {
		return reply(550, "5.6.0", "The message needs exactly one From field")
	}
	list, err := addressParser().ParseList(fields[0])
	if err != nil || len(list) == 0 {
		return reply(550, "5.6.0", "The From field cannot be read")
	}
	for _, a := range list {
		domain := a.Address[strings.LastIndexByte(a.Address, '@')+1:]
		if name, err := ours.ParseDomain(domain); err != nil || !s.speaksFor(name) {
			return reply(550, "5.7.60", "The From field names an address that you may not send as")
		}
	}
	return nil
}

// addressParser takes display names in any charset: what they say is not
// asked, so they are left undecoded rather than refused.
func addressParser() *mail.AddressParser {
	asIs := func(_ string, in io.Reader) (io.Reader, error) { return in, nil }
	return &mail.AddressParser{WordDecoder: &mime.WordDecoder{CharsetReader: asIs}}
}
