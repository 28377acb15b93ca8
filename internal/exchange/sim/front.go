package sim

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/x509"
	"io"
	"strings"
	"time"

	"github.com/sallyport-mail/sallyport/internal/mail"
	"github.com/sallyport-mail/sallyport/internal/smtp"
)

// Limits of an envelope: 200 recipients of one domain (facts 1.3), and in all
// what a tenant may set at most (facts 1.7).
const (
	mostOfOneDomain = 200
	mostRecipients  = 1000
)

// maxHeader is how much of a message is looked at for its header section.
const maxHeader = 256 << 10

// Arrival is one message for one recipient that was answered with 250.
type Arrival struct {
	Time      time.Time
	Recipient string
	From      string
	MessageID string
	Size      int64
	// Connector is through which it came, "" for anonymous mail.
	Connector string
	// Relayed is mail for a domain that is not hosted here, which an
	// OnPremises connector let out.
	Relayed bool
	// Certificate is the first name of what the hop presented, "" for none.
	Certificate string
	Remote      string
	// Stamped are the X-MS-Exchange fields that the message has after the
	// header firewall, as "Name: value".
	Stamped []string
}

func newID() []byte { return random(rand.Reader, 16) }

// Connect makes a session; it is part of smtp.Backend.
func (s *Sim) Connect(_ context.Context, c *smtp.Conn) (smtp.Session, *mail.Reply) {
	return &visit{sim: s, conn: c}, nil
}

// visit is one SMTP connection to the front.
type visit struct {
	sim     *Sim
	conn    *smtp.Conn
	hop     *hop
	from    mail.Address
	origin  origin
	to      []place
	domains map[string]int
}

// place is one recipient of a transaction with where it goes.
type place struct {
	to        mail.Address
	tenant    *tenant // whose arrival it is
	connector *InboundConnector
	internal  bool
	relayed   bool
	late      *mail.Reply // a refusal kept for end of data, by switch
}

// Hello takes any name.
func (v *visit) Hello(context.Context) *mail.Reply { return nil }

// Mail looks whether the hop is a tenant's own server.
func (v *visit) Mail(_ context.Context, from mail.Address, _ mail.FromParams) *mail.Reply {
	v.Reset()
	v.from = from
	if v.hop == nil || v.hop.tls != (v.conn.TLS != nil) {
		v.hop = &hop{ip: v.conn.Remote.Addr().Unmap()}
		if v.conn.TLS != nil {
			v.hop.tls, v.hop.chain = true, v.conn.TLS.PeerCertificates
		}
	}
	v.sim.mu.Lock()
	defer v.sim.mu.Unlock()
	v.hop.names = nil // connectors, trust and the clock may have changed since the last message
	v.origin = v.sim.originOf(v.hop, from)
	return nil
}

// Rcpt decides about one recipient.
func (v *visit) Rcpt(_ context.Context, to mail.Recipient) *mail.Reply {
	if v.domains[to.Domain] >= mostOfOneDomain {
		return &mail.Reply{Code: 452, Enhanced: "4.5.3", Text: "Too many recipients"}
	}
	v.sim.mu.Lock()
	p, refusal := v.sim.route(v, to.Address)
	v.sim.mu.Unlock()
	if refusal != nil && p.late == nil {
		return refusal
	}
	if v.domains == nil {
		v.domains = map[string]int{}
	}
	v.domains[to.Domain]++
	v.to = append(v.to, p)
	return nil
}

// route attributes one recipient, in the order of facts 1.2: the tenant whose
// own server the hop is, then the recipient's tenant. The caller holds mu.
func (s *Sim) route(v *visit, to mail.Address) (place, *mail.Reply) {
	t := s.domains[to.Domain]
	if t == nil {
		if v.origin.tenant == nil {
			return place{}, relayReply(v.origin.matched)
		}
		return place{to: to, tenant: v.origin.tenant, connector: v.origin.connector, internal: true, relayed: true}, nil
	}
	if code := t.Switches.Throttle; code != "" {
		return place{}, &mail.Reply{Code: 451, Enhanced: code, Text: "Access denied, please try again later"}
	}
	p := place{to: to, tenant: t}
	if v.origin.tenant == t {
		p.connector, p.internal = v.origin.connector, true
	} else {
		c, refusal := s.partnerOf(v.hop, t, v.from, to)
		if refusal == nil && c == nil && t.RejectDirectSend && t.accepts(v.from.Domain) {
			refusal = &mail.Reply{Code: 550, Enhanced: "5.7.68",
				Text: "TenantInboundAttribution; Direct Send not allowed for this organization from unauthorized sources"}
		}
		if refusal != nil {
			if t.Switches.AttributeAtData {
				p.late = refusal
			}
			return p, refusal
		}
		p.connector = c
	}
	if !t.knows(to.Key()) {
		return place{}, &mail.Reply{Code: 550, Enhanced: "5.4.1", Text: "Recipient address rejected: Access denied"}
	}
	return p, nil
}

// Data reads the message and counts it for each recipient, all or none.
func (v *visit) Data(_ context.Context, r io.Reader) mail.Reply {
	header, size, err := readMessage(r)
	if err != nil {
		return mail.Reply{Code: 451, Enhanced: "4.3.0", Text: "The message was not received whole"}
	}
	s := v.sim
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range v.to {
		if p.late != nil {
			return *p.late
		}
		if p.tenant.Switches.MailboxBusy && !p.relayed {
			return mail.Reply{Code: 432, Enhanced: "4.3.2", Text: "STOREDRV.Deliver; recipient thread limit exceeded"}
		}
	}
	for _, p := range v.to {
		if err := s.arrive(v.arrival(p, header, size), p.tenant); err != nil {
			s.cfg.Log.Error("an arrival could not be kept", "error", err)
			return mail.Reply{Code: 451, Enhanced: "4.3.0", Text: "Temporary server error"}
		}
	}
	return mail.Reply{Code: 250, Enhanced: "2.6.0",
		Text: messageID(header) + " [InternalId=" + traceID() + ", Hostname=" + frontName + "] Queued mail for delivery"}
}

func messageID(header []byte) string {
	if id := mail.ScanHeader(header, "").MessageID; id != "" {
		return id
	}
	return "<" + strings.ToLower(traceID()) + "@" + frontName + ">"
}

func (v *visit) arrival(p place, header []byte, size int64) Arrival {
	a := Arrival{Time: v.sim.cfg.Now().UTC(), Recipient: p.to.String(), From: v.from.String(), MessageID: mail.ScanHeader(header, "").MessageID,
		Size: size, Relayed: p.relayed, Remote: v.conn.Remote.String(), Stamped: v.stamp(p, header)}
	if p.connector != nil {
		a.Connector = p.connector.Name
	}
	if len(v.hop.chain) > 0 {
		a.Certificate = firstName(v.hop.chain[0])
	}
	return a
}

// firstName is a certificate's common name, or where there is none, as public
// authorities issue them today, its first DNS name.
func firstName(c *x509.Certificate) string {
	if c.Subject.CommonName == "" && len(c.DNSNames) > 0 {
		return c.DNSNames[0]
	}
	return c.Subject.CommonName
}

// arrive counts one arrival. The caller holds mu.
func (s *Sim) arrive(a Arrival, t *tenant) error {
	if err := journal(s.disk, mailFile, t.ID, a); err != nil {
		return err
	}
	s.arrivals[t.ID] = append(s.arrivals[t.ID], a)
	return nil
}

// readMessage keeps the header section and counts the rest.
func readMessage(r io.Reader) (header []byte, size int64, err error) {
	b := bufio.NewReader(r)
	for len(header) < maxHeader {
		line, err := b.ReadSlice('\n')
		header = append(header, line...)
		if err == io.EOF || err == nil && len(bytes.TrimRight(line, "\r\n")) == 0 {
			break
		}
		if err != nil && err != bufio.ErrBufferFull {
			return nil, 0, err
		}
	}
	rest, err := io.Copy(io.Discard, b)
	return header, int64(len(header)) + rest, err
}

// Reset ends the transaction.
func (v *visit) Reset() {
	v.from, v.origin, v.to, v.domains = mail.Address{}, origin{}, nil, nil
}

// Refused needs no counting here.
func (v *visit) Refused(string, mail.Reply) {}

// Close has nothing to give back.
func (v *visit) Close() {}

// Arrivals are the messages that a tenant took, oldest first.
func (s *Sim) Arrivals(tenantID string) []Arrival {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Arrival(nil), s.arrivals[tenantID]...)
}
