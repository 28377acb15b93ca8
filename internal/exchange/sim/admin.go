package sim

import (
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/mail"
)

// AdminAct is one cmdlet that changed something, as Search-AdminAuditLog
// shows it.
type AdminAct struct {
	RunDate          time.Time
	Caller           string
	CmdletName       string
	ObjectModified   string
	CmdletParameters json.RawMessage
	ClientIP         string
	Succeeded        bool
}

// exchangeAudience is what an application's token for this API is for.
const exchangeAudience = "https://outlook.office365.com"

// admin is the stand-in for Exchange Online PowerShell:
// /adminapi/{tenant}/{noun}[/{name}], GET POST PATCH DELETE for the cmdlets
// Get New Set Remove, with the cmdlets' parameter names.
func (s *Sim) admin(q *request) reply {
	s.mu.Lock()
	defer s.mu.Unlock()
	who, refusal := s.identify(q, exchangeAudience)
	switch {
	case refusal != nil:
		return *refusal
	case len(q.path) < 3 || len(q.path) > 4:
		return s.unknownLocked(q, "")
	case !strings.EqualFold(who.tenant.ID, q.path[1]), !who.may("Exchange.ManageAsApp"):
		return q.forbidden()
	}
	c := &cmdlet{q: q, sim: s, tenant: who.tenant, caller: "admin@" + who.tenant.Domain}
	if who.app != nil {
		c.caller = who.app.AppID
	}
	if len(q.path) == 4 {
		c.name = q.path[3]
	}
	run := c.find(q.path[2])
	if run == nil {
		return s.unknownLocked(q, "")
	}
	body, err := run()
	if err != nil {
		return q.failed(err)
	}
	if body == nil {
		return reply{status: http.StatusNoContent}
	}
	return reply{status: http.StatusOK, body: body}
}

// cmdlet is one call of the admin API.
type cmdlet struct {
	q      *request
	sim    *Sim
	tenant *tenant
	caller string
	name   string // the object's, "" for none
}

// find is what a noun and a method do, nil for what is not modelled.
func (c *cmdlet) find(noun string) func() (any, error) {
	one := c.q.Method
	if c.name != "" {
		one += " {name}"
	}
	return map[string]func() (any, error){
		"GET InboundConnector":            c.listInbound,
		"GET {name} InboundConnector":     c.getInbound,
		"POST InboundConnector":           c.newInbound,
		"PATCH {name} InboundConnector":   c.setInbound,
		"DELETE {name} InboundConnector":  c.removeInbound,
		"GET OutboundConnector":           c.listOutbound,
		"GET {name} OutboundConnector":    c.getOutbound,
		"POST OutboundConnector":          c.newOutbound,
		"PATCH {name} OutboundConnector":  c.setOutbound,
		"DELETE {name} OutboundConnector": c.removeOutbound,
		"GET AcceptedDomain":              func() (any, error) { return values(c.tenant.AcceptedDomains), nil },
		"POST AcceptedDomain":             c.newDomain,
		"GET Recipient":                   func() (any, error) { return values(c.tenant.Recipients), nil },
		"POST Recipient":                  c.newRecipient,
		"GET OrganizationConfig":          c.getOrganization,
		"PATCH OrganizationConfig":        c.setOrganization,
		"GET AdminAuditLog":               func() (any, error) { return values(c.sim.acts[c.tenant.ID]), nil },
		"POST TrustedRoot":                c.addRoot,
		"GET Message":                     c.messages,
		"POST Submission":                 c.submission,
		"GET Simulator":                   func() (any, error) { return c.tenant.Switches, nil },
		"PATCH Simulator":                 c.setSwitches,
	}[one+" "+noun]
}

// values is a list in the API's shape.
func values[T any](all []T) any {
	if all == nil {
		all = []T{}
	}
	return map[string]any{"value": all}
}

// done keeps a change and enters it in the log of the administrators' acts.
func (c *cmdlet) done(verb, object string) error {
	if err := c.sim.disk.saveTenant(c.tenant); err != nil {
		return err
	}
	parameters := json.RawMessage("{}")
	if json.Valid(c.q.body) {
		parameters = json.RawMessage(c.q.body)
	}
	act := AdminAct{RunDate: c.sim.cfg.Now().UTC(), Caller: c.caller, CmdletName: verb + "-" + c.q.path[2], ObjectModified: object,
		CmdletParameters: parameters, ClientIP: c.q.ip.String(), Succeeded: true}
	if err := journal(c.sim.disk, actFile, c.tenant.ID, act); err != nil {
		return err
	}
	c.sim.acts[c.tenant.ID] = append(c.sim.acts[c.tenant.ID], act)
	return nil
}

func (c *cmdlet) notFound() error {
	return fault.New(fault.Missing, "sim", "The operation couldn't be performed because object '"+c.name+"' couldn't be found.")
}

func exists(name string) error {
	return fault.New(fault.Conflict, "sim", "there is a connector '"+name+"' already")
}

// settled forgets connectors whose removal the front has learned of.
func (c *cmdlet) settled() []*inbound {
	now := c.sim.cfg.Now()
	c.tenant.Inbound = slices.DeleteFunc(c.tenant.Inbound, func(i *inbound) bool { return i.Removed && !now.Before(i.Until) })
	return c.tenant.Inbound
}

func (c *cmdlet) inbound(name string) *inbound {
	for _, i := range c.settled() {
		if !i.Removed && strings.EqualFold(i.Shown.Name, name) {
			return i
		}
	}
	return nil
}

func (c *cmdlet) listInbound() (any, error) {
	all := []InboundConnector{}
	for _, i := range c.settled() {
		if !i.Removed {
			all = append(all, i.Shown)
		}
	}
	return values(all), nil
}

func (c *cmdlet) getInbound() (any, error) {
	i := c.inbound(c.name)
	if i == nil {
		return nil, c.notFound()
	}
	return i.Shown, nil
}

func (c *cmdlet) delay() time.Duration { return time.Duration(c.tenant.Switches.PropagationDelay) }

func (c *cmdlet) newInbound() (any, error) {
	next, err := parseInbound(c.q.body, newInbound())
	if err != nil {
		return nil, err
	}
	if c.inbound(next.Name) != nil {
		return nil, exists(next.Name)
	}
	held := &inbound{Removed: true} // until now the front knew of none
	held.change(next, c.sim.cfg.Now(), c.delay())
	held.Removed = false
	c.tenant.Inbound = append(c.tenant.Inbound, held)
	c.sim.noteOnPremises(c.tenant)
	return held.Shown, c.done("New", next.Name)
}

func (c *cmdlet) setInbound() (any, error) {
	held := c.inbound(c.name)
	if held == nil {
		return nil, c.notFound()
	}
	next, err := parseInbound(c.q.body, held.Shown)
	if err != nil {
		return nil, err
	}
	if other := c.inbound(next.Name); other != nil && other != held {
		return nil, exists(next.Name)
	}
	held.change(next, c.sim.cfg.Now(), c.delay())
	c.sim.noteOnPremises(c.tenant)
	return held.Shown, c.done("Set", c.name)
}

func (c *cmdlet) removeInbound() (any, error) {
	held := c.inbound(c.name)
	if held == nil {
		return nil, c.notFound()
	}
	held.change(held.Shown, c.sim.cfg.Now(), c.delay())
	held.Removed = true
	c.settled()
	c.sim.noteOnPremises(c.tenant)
	return nil, c.done("Remove", c.name)
}

func (c *cmdlet) outbound(name string) int {
	return slices.IndexFunc(c.tenant.Outbound, func(o *OutboundConnector) bool { return strings.EqualFold(o.Name, name) })
}

func (c *cmdlet) listOutbound() (any, error) { return values(c.tenant.Outbound), nil }

func (c *cmdlet) getOutbound() (any, error) {
	i := c.outbound(c.name)
	if i < 0 {
		return nil, c.notFound()
	}
	return c.tenant.Outbound[i], nil
}

func (c *cmdlet) newOutbound() (any, error) {
	next, err := parseOutbound(c.q.body, newOutbound())
	if err != nil {
		return nil, err
	}
	if c.outbound(next.Name) >= 0 {
		return nil, exists(next.Name)
	}
	next.WhenChangedUTC = c.sim.cfg.Now().UTC()
	c.tenant.Outbound = append(c.tenant.Outbound, &next)
	return next, c.done("New", next.Name)
}

func (c *cmdlet) setOutbound() (any, error) {
	i := c.outbound(c.name)
	if i < 0 {
		return nil, c.notFound()
	}
	next, err := parseOutbound(c.q.body, *c.tenant.Outbound[i])
	if err != nil {
		return nil, err
	}
	if other := c.outbound(next.Name); other >= 0 && other != i {
		return nil, exists(next.Name)
	}
	next.WhenChangedUTC = c.sim.cfg.Now().UTC()
	c.tenant.Outbound[i] = &next
	return next, c.done("Set", c.name)
}

func (c *cmdlet) removeOutbound() (any, error) {
	i := c.outbound(c.name)
	if i < 0 {
		return nil, c.notFound()
	}
	c.tenant.Outbound = slices.Delete(c.tenant.Outbound, i, i+1)
	return nil, c.done("Remove", c.name)
}

// newDomain adds an accepted domain; one domain has one tenant.
func (c *cmdlet) newDomain() (any, error) {
	var in struct{ DomainName string }
	if err := decodeOnto(c.q.body, &in); err != nil {
		return nil, err
	}
	domain, err := mail.ParseDomain(in.DomainName)
	if err != nil {
		return nil, refuse("DomainName is not a domain")
	}
	switch owner := c.sim.domains[domain]; owner {
	case nil:
		c.tenant.AcceptedDomains = append(c.tenant.AcceptedDomains, domain)
		c.sim.domains[domain] = c.tenant
	case c.tenant:
	default:
		return nil, fault.New(fault.Conflict, "sim", "the domain "+domain+" is another tenant's")
	}
	return map[string]any{"DomainName": domain}, c.done("New", domain)
}

// newRecipient makes an address exist. With the first one all others do not:
// the edge then blocks them (facts 1.3, 5.4.1).
func (c *cmdlet) newRecipient() (any, error) {
	var in struct{ PrimarySmtpAddress string }
	if err := decodeOnto(c.q.body, &in); err != nil {
		return nil, err
	}
	a, err := mail.ParseAddress(in.PrimarySmtpAddress)
	if err != nil || !c.tenant.accepts(a.Domain) {
		return nil, refuse("PrimarySmtpAddress is not an address in an accepted domain")
	}
	if key := a.Key(); !slices.Contains(c.tenant.Recipients, key) {
		c.tenant.Recipients = append(c.tenant.Recipients, key)
	}
	return map[string]any{"PrimarySmtpAddress": a.Key()}, c.done("New", a.Key())
}

type organizationConfig struct{ RejectDirectSend bool }

func (c *cmdlet) getOrganization() (any, error) {
	return organizationConfig{c.tenant.RejectDirectSend}, nil
}

func (c *cmdlet) setOrganization() (any, error) {
	in := organizationConfig{c.tenant.RejectDirectSend}
	if err := decodeOnto(c.q.body, &in); err != nil {
		return nil, err
	}
	c.tenant.RejectDirectSend = in.RejectDirectSend
	return in, c.done("Set", c.tenant.Domain)
}

// addRoot makes an authority count as public for this tenant's connectors.
func (c *cmdlet) addRoot() (any, error) {
	var in struct{ Certificate string }
	if err := decodeOnto(c.q.body, &in); err != nil {
		return nil, err
	}
	block, _ := pem.Decode([]byte(in.Certificate))
	if block == nil {
		return nil, refuse("Certificate is not a certificate in PEM")
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil || !cert.IsCA {
		return nil, refuse("Certificate is not the certificate of an authority")
	}
	if !slices.ContainsFunc(c.tenant.Roots, func(der []byte) bool { return slices.Equal(der, cert.Raw) }) {
		c.tenant.Roots = append(c.tenant.Roots, cert.Raw)
		c.tenant.pool = nil
	}
	return map[string]any{"Subject": cert.Subject.String()}, c.done("Add", cert.Subject.String())
}

// mostMessages is a page of arrivals.
const mostMessages = 10_000

// messages lists arrivals, for one Recipient or all, with how many there are
// and how many pairs of recipient and Message-ID: the difference is what came
// twice. Skip pages on.
func (c *cmdlet) messages() (any, error) {
	query := c.q.URL.Query()
	skip := 0
	if text := query.Get("Skip"); text != "" {
		n, err := parseCount(text)
		if err != nil {
			return nil, err
		}
		skip = n
	}
	type pair struct{ recipient, id string }
	distinct := map[pair]bool{}
	found := []Arrival{}
	total := 0
	for _, a := range c.sim.arrivals[c.tenant.ID] {
		if r := query.Get("Recipient"); r != "" && !strings.EqualFold(r, a.Recipient) {
			continue
		}
		distinct[pair{strings.ToLower(a.Recipient), a.MessageID}] = true
		if total++; total > skip && len(found) < mostMessages {
			found = append(found, a)
		}
	}
	return map[string]any{"value": found, "total": total, "distinct": len(distinct)}, nil
}

// setSwitches is the simulator's own: what of it is switched.
func (c *cmdlet) setSwitches() (any, error) {
	next := c.tenant.Switches
	next.AllowedAddresses, next.AppRoles = slices.Clone(next.AllowedAddresses), slices.Clone(next.AppRoles)
	next.LogDelay = cloned(next.LogDelay)
	if err := decodeOnto(c.q.body, &next); err != nil {
		return nil, err
	}
	if err := next.check(); err != nil {
		return nil, err
	}
	c.tenant.Switches = next
	return next, c.done("Set", "Simulator")
}
