package edge

import (
	"github.com/sallyport-mail/sallyport/internal/mail"
)

// group is one message to be: the recipients of one tenant on one route.
type group struct {
	tenant      string
	region      string
	outbound    bool
	own         bool
	destination string
	connection  string
	maxSize     int64
	verdict     mail.Reply  // zero: to be delivered
	keep        bool        // the verdict is no refusal: the message is kept as failed
	cut         []mail.Span // of the content: not for this tenant
	to          []mail.Recipient
	parts       []part // the items; one, unless each domain is delivered for itself
}

// part is the recipients of a group that travel together.
type part struct {
	domain string
	to     []mail.Recipient
}

// groupKey is what the recipients of a group have in common. Recipients with
// different verdicts are parted, for each verdict becomes an item's state.
type groupKey struct {
	tenant      string
	outbound    bool
	own         bool
	destination string
	verdict     mail.Reply
}

func (r *recipient) key() groupKey {
	k := groupKey{r.tenant, r.outbound, r.own, r.route.Destination, r.verdict}
	if k.destination == "" {
		k.destination = "domain:" + r.Domain // no route was found for it
	}
	return k
}

// split parts an envelope into one group per tenant and route, in the order
// of their first recipients. perDomain says of a connection whether it
// delivers by the MX of each domain, so that recipients of different domains
// do not travel together.
func split(all []recipient, perDomain func(tenant, connection string) bool) []group {
	groups := make([]group, 0, 1)
	var at map[groupKey]int
	if len(all) > 1 {
		at = make(map[groupKey]int, len(all))
	}
	for i := range all {
		r, k := &all[i], all[i].key()
		g, found := at[k]
		if !found {
			g = len(groups)
			groups = append(groups, newGroup(r, k))
			if at != nil {
				at[k] = g
			}
		}
		groups[g].add(r, perDomain)
	}
	return groups
}

func newGroup(r *recipient, k groupKey) group {
	return group{
		tenant: r.tenant, region: r.region, outbound: r.outbound, own: r.own,
		destination: k.destination, connection: r.route.Connection,
		verdict: r.verdict, maxSize: r.maxSize,
	}
}

// add puts a recipient into the part of its domain, or into the only one.
func (g *group) add(r *recipient, perDomain func(tenant, connection string) bool) {
	g.to = append(g.to, r.Recipient)
	g.maxSize = smaller(g.maxSize, r.maxSize)
	for i := range g.parts {
		if g.parts[i].domain == r.Domain || !perDomain(g.tenant, g.connection) {
			g.parts[i].to = append(g.parts[i].to, r.Recipient)
			return
		}
	}
	g.parts = append(g.parts, part{domain: r.Domain, to: []mail.Recipient{r.Recipient}})
}

// perDomain is true of the internet, where two domains with the same MX today
// may part tomorrow, and of connections that look the MX up themselves.
func (s *session) perDomain(tenantName, connectionName string) bool {
	if connectionName == "" {
		return true
	}
	c, ok := s.edge.c.Connections.Get(tenantName, connectionName)
	return ok && c.MX
}

// judgeGroups gives verdicts to the groups whose message cannot go on: too
// large for the tenant or its route, or in a loop.
func (e *Edge) judgeGroups(groups []group, in incoming) {
	size := in.body.Size()
	for i := range groups {
		g := &groups[i]
		switch {
		case g.verdict.Code != 0:
		case g.maxSize > 0 && size > g.maxSize:
			g.verdict = *tooLarge(g.maxSize)
		case e.loops(g.tenant, in):
			g.verdict, g.keep = *looping(), true
		}
	}
}

// whole is the reply to an envelope of which nothing is accepted: 5xx only if
// everything is refused, 4xx only if everything is deferred.
func whole(groups []group) *mail.Reply {
	first := groups[0].verdict
	for _, g := range groups {
		if g.keep || g.verdict.Code/100 != first.Code/100 {
			return nil
		}
	}
	if first.Code == 0 {
		return nil
	}
	return &first
}
