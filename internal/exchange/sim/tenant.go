package sim

import (
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
)

// tenant is one customer's Microsoft 365.
type tenant struct {
	ID               string
	Domain           string
	AcceptedDomains  []string
	AdminToken       string
	Apps             []*application
	Inbound          []*inbound
	Outbound         []*OutboundConnector
	Recipients       []string // addresses that exist; none listed: all do
	RejectDirectSend bool
	Roots            [][]byte // DER; trusted for this tenant's connectors beside Config.Roots
	Switches         Switches

	pool *x509.CertPool // Config.Roots and Roots, nil until it is needed
}

// Switches change how a tenant is treated. Each is off, or the documented
// figure, in a new tenant; docs/simulator.md says why each one is a switch.
type Switches struct {
	// CNOnly compares the certificate's common name alone; off, a name of
	// subjectAltName does as well.
	CNOnly bool
	// NeedClientAuth refuses certificates without the clientAuth purpose.
	NeedClientAuth bool
	// AttributeAtData gives the replies of attribution at end of data rather
	// than at RCPT.
	AttributeAtData bool
	// Throttle answers every RCPT with 451 and this enhanced code, 4.7.500 to
	// 4.7.699 or 4.7.850 to 4.7.899.
	Throttle string
	// MailboxBusy answers end of data with 432 4.3.2.
	MailboxBusy bool
	// PropagationDelay is how long the front goes on with what a connector was
	// before a change.
	PropagationDelay Duration
	// LogDelay is this tenant's, instead of Config.LogDelay.
	LogDelay *Duration
	// DropLogs writes no rows of sign-ins, DuplicateLogs two of each.
	DropLogs      bool
	DuplicateLogs bool
	// StrictJTI refuses an assertion's id that was seen before.
	StrictJTI bool
	// TokenThrottle answers the token endpoint with AADSTS90055.
	TokenThrottle bool
	// AllowedAddresses is a Conditional Access policy for workload identities:
	// sign-ins from elsewhere are refused with AADSTS53003. Empty: no policy.
	AllowedAddresses []string
	// GraphThrottle is how many Graph requests from now on are answered with
	// 429, RetryAfter what they say.
	GraphThrottle int
	RetryAfter    Duration
	// SignInReads is how many reads of the sign-in log an application may do
	// in 10 seconds (5 as documented), 0: any number.
	SignInReads int
	// AppRoles are the application permissions granted to the tenant's app.
	AppRoles []string
}

// Duration is a time.Duration that JSON writes as "1m30s".
type Duration time.Duration

// MarshalText is part of encoding.TextMarshaler.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// UnmarshalText is part of encoding.TextUnmarshaler.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	if err == nil && v < 0 {
		err = fmt.Errorf("a negative duration: %s", text)
	}
	*d = Duration(v)
	return err
}

// application is an app registration with its service principal, both in the
// customer's own tenant (facts 2.4).
type application struct {
	AppID       string
	ObjectID    string
	PrincipalID string
	DisplayName string
	Keys        []keyCredential
	NoPrincipal bool // the service principal was deleted
	Disabled    bool // accountEnabled false
}

// lockedName is whom a new tenant's connector lets in: nobody yet. A tenant
// comes with its MX at some gateway and a connector that says so.
const lockedName = "not-set-yet."

// newTenant makes the n-th tenant, from 1, with a lock-down connector as facts
// 1.1 describe it and an app registration without a key.
func newTenant(n int, now time.Time) *tenant {
	domain := fmt.Sprintf("tenant%d.m365.test", n)
	t := &tenant{
		ID: uuid.NewString(), Domain: domain,
		AcceptedDomains: []string{domain, fmt.Sprintf("tenant%d.onmicrosoft.test", n)},
		AdminToken:      "admin-" + base64.RawURLEncoding.EncodeToString(random(rand.Reader, 24)),
		Apps: []*application{{AppID: uuid.NewString(), ObjectID: uuid.NewString(), PrincipalID: uuid.NewString(),
			DisplayName: "Mail gateway"}},
		Switches: Switches{SignInReads: 5, RetryAfter: Duration(time.Second), AppRoles: []string{"AuditLog.Read.All"}},
	}
	c := newInbound()
	c.Name, c.ConnectorType, c.SenderDomains = "Inbound from mail gateway", partner, []string{"*"}
	c.RestrictDomainsToCertificate, c.TlsSenderCertificateName = true, lockedName+domain
	c.WhenChangedUTC = now.UTC()
	t.Inbound = []*inbound{{Shown: c}}
	return t
}

func (t *tenant) listed(smtpAddr, httpAddr, caFile string) Listed {
	l := Listed{EntraTenant: t.ID, Domain: t.Domain, AdminToken: t.AdminToken, SMTP: smtpAddr, CAFile: caFile}
	if httpAddr != "" {
		l.Graph = "https://" + httpAddr
	}
	if len(t.Inbound) > 0 {
		l.ConnectorName = t.Inbound[0].Shown.Name
	}
	if len(t.Apps) > 0 {
		l.AppID = t.Apps[0].AppID
	}
	return l
}

// app is the application of that client id, nil for none.
func (t *tenant) app(id string) *application {
	for _, a := range t.Apps {
		if strings.EqualFold(a.AppID, id) {
			return a
		}
	}
	return nil
}

// accepts reports whether a domain is one of the tenant's accepted domains.
func (t *tenant) accepts(domain string) bool {
	for _, d := range t.AcceptedDomains {
		if strings.EqualFold(d, domain) {
			return true
		}
	}
	return false
}

// acceptsName reports whether a certificate's name is, or is below, an
// accepted domain of the tenant (facts 1.2).
func (t *tenant) acceptsName(name string) bool {
	name = strings.TrimPrefix(name, "*.")
	for _, d := range t.AcceptedDomains {
		if name == d || strings.HasSuffix(name, "."+d) {
			return true
		}
	}
	return false
}

// knows reports whether a recipient exists, where the tenant lists any.
func (t *tenant) knows(key string) bool {
	if len(t.Recipients) == 0 {
		return true
	}
	for _, r := range t.Recipients {
		if strings.EqualFold(r, key) {
			return true
		}
	}
	return false
}

// trust is which authorities a tenant's connectors accept.
func (t *tenant) trust(public []*x509.Certificate) *x509.CertPool {
	if t.pool != nil {
		return t.pool
	}
	pool := x509.NewCertPool()
	for _, c := range public {
		pool.AddCert(c)
	}
	for _, der := range t.Roots {
		if c, err := x509.ParseCertificate(der); err == nil { // it was parsed when it came in
			pool.AddCert(c)
		}
	}
	t.pool = pool
	return pool
}

// adopt enters a tenant in the indexes. The caller holds mu, or is alone.
func (s *Sim) adopt(t *tenant) {
	if s.tenants[t.ID] == nil {
		s.order = append(s.order, t.ID)
	}
	s.tenants[t.ID] = t
	s.admins[t.AdminToken] = t
	for _, d := range t.AcceptedDomains {
		s.domains[d] = t
	}
	s.noteOnPremises(t)
}

// noteOnPremises keeps the list short that every message is looked up in.
func (s *Sim) noteOnPremises(t *tenant) {
	delete(s.onPrem, t.ID)
	for _, c := range t.Inbound {
		if c.Shown.ConnectorType == onPremises || c.Before != nil && c.Before.ConnectorType == onPremises {
			s.onPrem[t.ID] = t
		}
	}
}

// logDelay is after how long a row of t's logs is shown.
func (s *Sim) logDelay(t *tenant) time.Duration {
	if t.Switches.LogDelay != nil {
		return time.Duration(*t.Switches.LogDelay)
	}
	return s.cfg.LogDelay
}
