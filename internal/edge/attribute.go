package edge

import (
	"net/netip"
	"strings"

	"github.com/sallyport-mail/sallyport/internal/mail"
	"github.com/sallyport-mail/sallyport/internal/tenant"
)

// attribution is whose outbound mail a session's is, and by what proof. The
// zero attribution is anybody on the internet, who may only send to our
// tenants. MAIL FROM and the From field are never part of it: anybody can
// write them.
type attribution struct {
	tenant     string
	connection string
	proof      string // "authentication", "certificate", "network", "originator"
	// platform is set when the client is a platform of many tenants. Whose
	// mail it is then stands in the header, so it is known at end of data.
	platform *platform
}

// anonymous is true of the internet at large.
func (a attribution) anonymous() bool { return a.tenant == "" && a.platform == nil }

// attribute answers for the inbound listener. A platform's certificate comes
// first: were it, or an address of the platform, registered by one tenant as
// its own, that tenant would be given everybody's mail. Of two proofs that
// name different tenants neither counts.
func (s *session) attribute() attribution {
	p := s.proven()
	if p.platform != nil {
		return attribution{platform: p.platform}
	}
	byNetwork := s.byNetwork(s.client.ip)
	if p.tenant == "" {
		return byNetwork
	}
	if byNetwork.tenant != "" && byNetwork.tenant != p.tenant {
		s.edge.c.Log.Warn("client has proofs of two tenants, neither counts",
			"client", s.client.text, "certificate", p.tenant, "network", byNetwork.tenant)
		return attribution{}
	}
	return attribution{tenant: p.tenant, connection: p.connection, proof: "certificate"}
}

func (s *session) byNetwork(ip netip.Addr) attribution {
	name, conn, ok := s.edge.c.Connections.ByNetwork(ip)
	if !ok {
		return attribution{}
	}
	return attribution{tenant: name, connection: conn, proof: "network"}
}

// maySendAs refuses a reverse-path that is another tenant's: through us it
// would pass that tenant's SPF. A stranger's is let through, for tenants
// forward mail.
func (s *session) maySendAs(name string, from mail.Address) *mail.Reply {
	if from.IsNull() {
		return nil
	}
	if d, ok := s.edge.c.Tenants.Domain(from.Domain); ok && d.Tenant != name {
		return notYourDomain(from)
	}
	return nil
}

// byOriginator reads the platform's word on which of its organisations a
// message is from. Only a header with exactly one such field says anything:
// of two, one may be the sender's own.
func (s *session) byOriginator(p *platform, header []byte) (attribution, *mail.Reply) {
	org, problem := originator(header, p.field)
	if problem != "" {
		return attribution{}, reply(550, "5.7.1", "Relaying denied: "+problem)
	}
	name, conn, ok := s.edge.c.Connections.ByOriginator(p.name, org)
	if !ok {
		return attribution{}, reply(550, "5.7.1", "Relaying denied: the organisation in "+p.field+" is not registered here")
	}
	who := attribution{tenant: name, connection: conn, proof: "originator", platform: p}
	return who, s.maySendAs(name, s.tx.from)
}

// originator is the value of the only field of that name.
func originator(header []byte, field string) (org, problem string) {
	values := mail.Values(header, field)
	if len(values) > 1 {
		return "", "the message has more than one " + field
	}
	if len(values) == 1 {
		org = strings.ToLower(strings.TrimSpace(values[0]))
	}
	if org == "" {
		return "", "the message has no " + field
	}
	return org, ""
}

// own reports whether notifications may go to the sender of an attributed
// message: the address must be of the very tenant that sent it.
func (s *session) own(name string) bool {
	d, ok := s.edge.c.Tenants.Domain(s.tx.from.Domain)
	return ok && name != "" && d.Tenant == name
}

// serves refuses what belongs to another region than the listener's: a region
// is a cell, and mail of one does not pass through another.
func (s *session) serves(t tenant.Tenant) *mail.Reply {
	if s.region == "" || s.region == t.Region {
		return nil
	}
	return otherRegion(s.edge.c.Hostname(t.Region))
}
