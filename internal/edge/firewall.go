package edge

import "github.com/sallyport-mail/sallyport/internal/mail"

// watched is how the names of all fields begin that firewall may leave out.
const watched = "X-MS-"

// firewalled are the fields in which the servers of one Exchange organisation,
// and the two sides of a hybrid one, tell each other what they have found: a
// spam confidence of -1, a sender who is a colleague, a journal report.
// Exchange takes them off what a stranger sends ("header firewall"). Mail that
// comes through us comes from no stranger: it would believe them.
// X-MS-Exchange-CrossTenant-* is not one of them: all mail of Exchange Online
// has it, and nobody acts on it.
func firewalled() []string {
	return []string{"X-MS-Exchange-Organization-*", "X-MS-Exchange-CrossPremises-*", "X-MS-Journal-Report"}
}

// firewall has those fields left out of each copy of the message, but for the
// copies of the tenant whose own system sent it. The body stays as it came.
func (s *session) firewall(groups []group, in incoming) {
	if !in.summary.Watched {
		return
	}
	found := mail.FindFields(in.header, firewalled()...)
	if len(found) == 0 {
		return
	}
	trusted := s.system(in)
	for i := range groups {
		if groups[i].tenant != trusted {
			groups[i].cut = found
		}
	}
}

// system is the tenant from whose own system the message comes, "" when it
// comes from none. A user is none: no mail program has cause to write such
// fields. Mail of a platform for our own tenants needs no attribution, so
// whose it is has not been asked before.
func (s *session) system(in incoming) string {
	who := s.tx.who
	if who.proof == "authentication" {
		return ""
	}
	if who.platform == nil || who.tenant != "" {
		return who.tenant
	}
	org, problem := originator(in.header, who.platform.field)
	if problem != "" {
		return ""
	}
	name, _, _ := s.edge.c.Connections.ByOriginator(who.platform.name, org)
	return name
}
