package sim

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/mail"
	"github.com/sallyport-mail/sallyport/internal/smtp"
)

// submitTime bounds one hand-over to a smart host, which a person waits for.
const submitTime = 30 * time.Second

// Submit sends a message out as a mailbox of the tenant would: through the
// outbound connector for the recipient's domain, to its smart host, with the
// TLS that its TlsSettings ask for. The reply is the smart host's, or what
// Exchange Online writes where it could not hand over. It tries once.
func (s *Sim) Submit(ctx context.Context, tenantID string, from, to mail.Address, content []byte) (mail.Reply, error) {
	s.mu.Lock()
	t := s.find(tenantID)
	if t == nil {
		s.mu.Unlock()
		return mail.Reply{}, noSuchTenant(tenantID)
	}
	c := t.outboundFor(to.Domain)
	accepted, domain, pool := t.accepts(from.Domain), t.Domain, t.trust(s.cfg.Roots)
	s.mu.Unlock()
	switch {
	case !accepted:
		return mail.Reply{}, refuse(from.String() + " is not in an accepted domain")
	case c == nil:
		return mail.Reply{}, fault.New(fault.Missing, "sim", "no outbound connector with SmartHosts is for "+to.Domain).
			WithHint("Make one with POST OutboundConnector; the simulator looks up no MX.")
	}
	ctx, cancel := context.WithTimeout(ctx, submitTime)
	defer cancel()
	last := mail.Reply{}
	for _, host := range c.SmartHosts {
		client, err := smtp.Dial(ctx, s.target(c, host, pool))
		if err != nil {
			last = unreachable(err)
			continue
		}
		return handOver(ctx, client, from, to, outgoing(content, domain)), nil
	}
	return last, nil
}

// outboundFor is the connector whose RecipientDomains name a domain most
// closely, nil for none with a smart host.
func (t *tenant) outboundFor(domain string) *OutboundConnector {
	var best *OutboundConnector
	closest := -1
	for _, c := range t.Outbound {
		if !c.Enabled || len(c.SmartHosts) == 0 {
			continue
		}
		for _, d := range c.RecipientDomains {
			if n := len(strings.TrimPrefix(d, "*")); (d == "*" || matches(d, domain)) && n > closest {
				best, closest = c, n
			}
		}
	}
	return best
}

// target is a smart host with the four TlsSettings (facts 1.4): opportunistic,
// encrypted, chain verified, chain and name verified.
func (s *Sim) target(c *OutboundConnector, host string, pool *x509.CertPool) smtp.Target {
	if _, _, err := net.SplitHostPort(host); err != nil {
		host = net.JoinHostPort(host, "25")
	}
	target := smtp.Target{Address: host, Hello: frontName, TLS: smtp.TLSRequired}
	settings := ""
	if c.TlsSettings != nil {
		settings = *c.TlsSettings
	}
	// Verification by hand: what is compared is not always the host's name.
	config := &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12, Time: s.cfg.Now}
	switch settings {
	case "":
		target.TLS = smtp.TLSOpportunistic
	case "CertificateValidation", "DomainValidation":
		name := ""
		if settings == "DomainValidation" {
			name = c.TlsDomain
		}
		config.VerifyConnection = func(state tls.ConnectionState) error {
			return verifyPeer(state.PeerCertificates, pool, name, s.cfg.Now())
		}
	}
	target.Config = config
	return target
}

// subjectMismatch is a certificate for another name than TlsDomain.
type subjectMismatch struct{ expected, presented string }

func (e *subjectMismatch) Error() string {
	return "SubjectMismatch Expected Subject: " + e.expected + ". Presented Subject: " + e.presented
}

func verifyPeer(chain []*x509.Certificate, pool *x509.CertPool, name string, now time.Time) error {
	between := x509.NewCertPool()
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	if _, err := chain[0].Verify(x509.VerifyOptions{Roots: pool, Intermediates: between, CurrentTime: now}); err != nil {
		return err
	}
	if name == "" || slices.ContainsFunc(append(chain[0].DNSNames, chain[0].Subject.CommonName), func(n string) bool { return matches(name, n) }) {
		return nil
	}
	return &subjectMismatch{name, chain[0].Subject.String()}
}

// unreachable is 4.4.317 and 4.4.316 in Exchange's words (facts 1.3).
func unreachable(err error) mail.Reply {
	r := mail.Reply{Code: 450, Enhanced: "4.4.317"}
	var mismatch *subjectMismatch
	var dial *smtp.DialError
	switch {
	case errors.As(err, &mismatch):
		r.Text = mismatch.Error()
	case errors.As(err, &dial) && dial.Step == "starttls":
		r.Text = "451 5.7.3 STARTTLS is required to send mail"
	case errors.As(err, &dial) && dial.Step == "dial":
		return mail.Reply{Code: 450, Enhanced: "4.4.316", Text: "Connection refused [Message=Socket error code 10061]"}
	default:
		r.Text = err.Error()
	}
	r.Text = "Cannot connect to remote server [Message=" + r.Text + "]"
	return r
}

// outgoing takes off the fields that stay inside, and says whose mail it is.
func outgoing(content []byte, domain string) []byte {
	header := content[:mail.ScanHeader(content, "").Bytes]
	clean := mail.Without(content, mail.FindFields(header, organization+"*", crossPremises+"*", "X-OriginatorOrg"))
	return append([]byte("X-OriginatorOrg: "+domain+"\r\n"), clean...)
}

func handOver(ctx context.Context, c *smtp.Client, from, to mail.Address, content []byte) mail.Reply {
	defer c.Quit()
	env := mail.Envelope{From: from, Params: mail.FromParams{Size: int64(len(content))}, To: []mail.Recipient{{Address: to}}}
	result, err := c.Send(ctx, env, smtp.Content{Bytes: content, Size: int64(len(content))}, nil)
	switch {
	case len(result.Data) > 0:
		return result.Data[0]
	case len(result.Rcpt) > 0 && result.Rcpt[0].Code != 0 && !result.Rcpt[0].Positive():
		return result.Rcpt[0]
	case result.Mail.Code != 0 && !result.Mail.Positive():
		return result.Mail
	case err != nil:
		return unreachable(err)
	}
	return mail.Reply{Code: 450, Enhanced: "4.4.0", Text: "the smart host said nothing"}
}

// submission is POST Submission of the admin API: ours, so that another
// process can have mail sent out.
func (c *cmdlet) submission() (any, error) {
	var in struct{ From, To, Content string }
	if err := decodeOnto(c.q.body, &in); err != nil {
		return nil, err
	}
	from, err := mail.ParseAddress(in.From)
	if err != nil {
		return nil, err
	}
	to, err := mail.ParseAddress(in.To)
	if err != nil {
		return nil, err
	}
	c.sim.mu.Unlock() // nobody else waits for the smart host
	defer c.sim.mu.Lock()
	r, err := c.sim.Submit(c.q.Context(), c.tenant.ID, from, to, []byte(in.Content))
	return map[string]any{"Code": r.Code, "Enhanced": r.Enhanced, "Text": r.Text}, err
}
