package sim

import (
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/sallyport-mail/sallyport/internal/mail"
)

// hop is who hands a message in, as far as connectors care.
type hop struct {
	ip    netip.Addr
	tls   bool
	chain []*x509.Certificate // what was presented, leaf first; nil: nothing

	names map[*x509.CertPool]map[string][]string // verdicts already reached, by what they depend on
}

// presented are the names a certificate speaks for at tenant t: none when its
// chain does not end at an authority that t's connectors accept, or it is not
// valid now. Self-signed ones are refused so (facts 1.2).
func (h *hop) presented(s *Sim, t *tenant) []string {
	if len(h.chain) == 0 {
		return nil
	}
	pool := t.trust(s.cfg.Roots)
	key := fmt.Sprint(t.Switches.CNOnly, t.Switches.NeedClientAuth)
	if names, known := h.names[pool][key]; known {
		return names
	}
	names := h.verify(pool, t.Switches, s.cfg.Now())
	if h.names == nil {
		h.names = map[*x509.CertPool]map[string][]string{}
	}
	if h.names[pool] == nil {
		h.names[pool] = map[string][]string{}
	}
	h.names[pool][key] = names
	return names
}

func (h *hop) verify(pool *x509.CertPool, sw Switches, now time.Time) []string {
	between := x509.NewCertPool()
	for _, c := range h.chain[1:] {
		between.AddCert(c)
	}
	usage := x509.ExtKeyUsageAny // what Exchange asks for after 2026 is not known (facts 1.2)
	if sw.NeedClientAuth {
		usage = x509.ExtKeyUsageClientAuth
	}
	leaf := h.chain[0]
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: pool, Intermediates: between, CurrentTime: now,
		KeyUsages: []x509.ExtKeyUsage{usage}}); err != nil {
		return nil
	}
	names := []string{strings.ToLower(leaf.Subject.CommonName)}
	if !sw.CNOnly {
		for _, n := range leaf.DNSNames {
			names = append(names, strings.ToLower(n))
		}
	}
	return names
}

// shows reports whether the hop's certificate has a connector's name.
func (h *hop) shows(names []string, c *InboundConnector) bool {
	if c.TlsSenderCertificateName == "" {
		return false
	}
	for _, n := range names {
		if n != "" && matches(c.TlsSenderCertificateName, n) {
			return true
		}
	}
	return false
}

// comesFrom reports whether the hop's address is one of a connector's.
func (h *hop) comesFrom(c *InboundConnector) bool {
	for _, s := range c.SenderIPAddresses {
		if p, ok := prefix(s); ok && p.Contains(h.ip) {
			return true
		}
	}
	return false
}

// origin is the outcome of looking for an OnPremises connector: the tenant
// whose own server the hop is.
type origin struct {
	tenant    *tenant
	connector *InboundConnector
	// matched is set where a connector matched the hop, but neither the
	// certificate's domain nor the sender's is an accepted domain.
	matched bool
}

// originOf attributes a hop to a tenant's OnPremises connector: the IP or the
// certificate matches the connector, and the certificate's domain or that of
// MAIL FROM is an accepted domain of the tenant (facts 1.2, the rule in force
// since November 2023). A match by certificate goes before one by sender.
func (s *Sim) originOf(h *hop, from mail.Address) origin {
	var best origin
	for _, t := range s.onPrem {
		names := h.presented(s, t)
		for _, held := range t.Inbound {
			c := held.atFront(s.cfg.Now())
			if c == nil || !c.Enabled || c.ConnectorType != onPremises {
				continue
			}
			byName := h.shows(names, c)
			if !byName && !h.comesFrom(c) {
				continue
			}
			switch {
			case byName && t.acceptsAny(names):
				return origin{tenant: t, connector: c}
			case t.accepts(from.Domain):
				best = origin{tenant: t, connector: c}
			case best.tenant == nil:
				best.matched = true
			}
		}
	}
	return best
}

func (t *tenant) acceptsAny(names []string) bool {
	for _, n := range names {
		if t.acceptsName(n) {
			return true
		}
	}
	return false
}

// partnerOf is what the recipient tenant's Partner connectors say of a hop:
// the connector that it came through, or the refusal. Both nil: anonymous mail
// that no connector speaks of.
func (s *Sim) partnerOf(h *hop, t *tenant, from, to mail.Address) (*InboundConnector, *mail.Reply) {
	names := h.presented(s, t)
	locked := false
	var through *InboundConnector
	for _, held := range t.Inbound {
		c := held.atFront(s.cfg.Now())
		if c == nil || !c.Enabled || c.ConnectorType != partner || !c.covers(from.Domain) || !c.associated(to.Domain) {
			continue
		}
		switch {
		case c.RequireTls && !h.tls && (c.RestrictDomainsToIPAddresses && h.comesFrom(c) || !c.restricts()):
			// Exchange writes 451 5.7.3; the class must agree with the code (RFC
			// 2034 4), and our server sends nothing else.
			return nil, &mail.Reply{Code: 451, Enhanced: "4.7.3", Text: "STARTTLS is required to send mail"}
		case !c.restricts():
			// It matches by certificate or address, or not at all: a connector
			// that restricts nothing keeps nobody out.
			if through == nil && (h.shows(names, c) || h.comesFrom(c)) {
				through = c
			}
		case c.RestrictDomainsToCertificate && h.shows(names, c), c.RestrictDomainsToIPAddresses && h.comesFrom(c):
			return c, nil
		default:
			locked = true
		}
	}
	if locked {
		r := s.lockedReply()
		return nil, &r
	}
	return through, nil
}

func (c *InboundConnector) restricts() bool {
	return c.RestrictDomainsToCertificate || c.RestrictDomainsToIPAddresses
}

// covers reports whether a connector's SenderDomains name a domain; the null
// sender's is none, which only * covers.
func (c *InboundConnector) covers(domain string) bool {
	for _, d := range c.SenderDomains {
		if d == "*" || domain != "" && matches(d, domain) {
			return true
		}
	}
	return false
}

// associated reports whether the connector is for a recipient's domain: all
// are where AssociatedAcceptedDomains is empty (facts 1.1).
func (c *InboundConnector) associated(domain string) bool {
	if len(c.AssociatedAcceptedDomains) == 0 {
		return true
	}
	for _, d := range c.AssociatedAcceptedDomains {
		if matches(d, domain) {
			return true
		}
	}
	return false
}

// lockedReply is 5.7.51 with host, time and id as Exchange Online writes them.
func (s *Sim) lockedReply() mail.Reply {
	return mail.Reply{Code: 550, Enhanced: "5.7.51", Text: fmt.Sprintf(
		"TenantInboundAttribution; There is a partner connector configured that matched the message's recipient domain. "+
			"The connector had either the RestrictDomainsToIPAddresses or RestrictDomainsToCertificate set [%s %s %s]",
		frontName, s.cfg.Now().UTC().Format("2006-01-02T15:04:05.000Z"), traceID())}
}

// relayReply is 5.7.64 in its two variants.
func relayReply(matched bool) *mail.Reply {
	text := "TenantAttribution; Relay Access Denied SMTP"
	if matched {
		text = "Relay Access Denied ATTR36"
	}
	return &mail.Reply{Code: 550, Enhanced: "5.7.64", Text: text}
}

func traceID() string { return strings.ToUpper(hex.EncodeToString(newID()[:8])) }
