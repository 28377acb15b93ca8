package edge

import (
	"slices"

	"github.com/sallyport-mail/sallyport/internal/mail"
	"github.com/sallyport-mail/sallyport/internal/tenant"
)

// spend counts an accepted recipient, and for the first of a tenant the
// message too, against the tenant's rates. It is asked last, so that what is
// refused for another reason costs the tenant nothing.
func (s *session) spend(t tenant.Tenant, kind accountKind) *mail.Reply {
	if t.Settings.MessagesPerMinute <= 0 && t.Settings.RecipientsPerMinute <= 0 || s.tenantAllows(t.Name) {
		return nil
	}
	now := s.edge.c.Now()
	a := account{kind, t.Name}
	if kind == inboundOf && !slices.Contains(s.tx.counted, t.Name) {
		if !s.edge.clients.tenant(a, rateMessages, now, t.Settings.MessagesPerMinute) {
			return tooMany(450, "4.7.1", "Too many messages for this organisation, try again in a minute")
		}
		s.tx.counted = append(s.tx.counted, t.Name)
	}
	if !s.edge.clients.tenant(a, rateRecipients, now, t.Settings.RecipientsPerMinute) {
		return tooMany(450, "4.7.1", "Too many recipients for this organisation, try again in a minute")
	}
	return nil
}

// spendOutbound counts a message of a tenant on its way out, once its tenant
// is known: at MAIL, or for a platform at end of data.
func (s *session) spendOutbound(name string) *mail.Reply {
	t, ok := s.edge.c.Tenants.Tenant(name)
	if !ok || s.tenantAllows(name) {
		return nil
	}
	if s.edge.clients.tenant(account{outboundOf, name}, rateMessages, s.edge.c.Now(), t.Settings.MessagesPerMinute) {
		return nil
	}
	return tooMany(450, "4.7.1", "Your organisation sends too many messages, try again in a minute")
}

// tenantAllows reports that the sender or the client is on an allow list, of
// the operator or of the tenant: rates are not for them.
func (s *session) tenantAllows(name string) bool {
	if s.exempt {
		return true
	}
	verdict, _ := s.edge.c.Tenants.Sender(name, s.client.text, s.tx.fromText)
	return verdict == tenant.Allowed
}
