package sim

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/mail"
)

// Types of a connector.
const (
	partner    = "Partner"
	onPremises = "OnPremises"
)

// InboundConnector has the parameters of New-InboundConnector (facts 1.1).
type InboundConnector struct {
	Name                         string
	Enabled                      bool
	ConnectorType                string // Partner or OnPremises
	ConnectorSource              string
	Comment                      string
	SenderDomains                []string
	SenderIPAddresses            []string
	ClientHostNames              []string
	TlsSenderCertificateName     string
	RequireTls                   bool
	RestrictDomainsToCertificate bool
	RestrictDomainsToIPAddresses bool
	CloudServicesMailEnabled     bool
	TreatMessagesAsInternal      bool
	AssociatedAcceptedDomains    []string
	TrustedOrganizations         []string
	ScanAndDropRecipients        []string
	EFSkipIPs                    []string
	EFSkipLastIP                 bool
	EFUsers                      []string
	WhenChangedUTC               time.Time
}

// OutboundConnector has the parameters of New-OutboundConnector (facts 1.4).
type OutboundConnector struct {
	Name                          string
	Enabled                       bool
	ConnectorType                 string
	ConnectorSource               string
	Comment                       string
	RecipientDomains              []string
	SmartHosts                    []string
	UseMXRecord                   bool
	TlsSettings                   *string // null, EncryptionOnly, CertificateValidation or DomainValidation
	TlsDomain                     string
	RouteAllMessagesViaOnPremises bool
	CloudServicesMailEnabled      bool
	IsTransportRuleScoped         bool
	AllAcceptedDomains            bool
	TestMode                      bool
	SenderRewritingEnabled        bool
	MtaStsMode                    string
	IsValidated                   bool
	LastValidationTimestamp       *time.Time
	WhenChangedUTC                time.Time
}

// inbound is a connector with what the front still takes it for: a change
// takes effect there when Switches.PropagationDelay is over.
type inbound struct {
	Shown   InboundConnector
	Before  *InboundConnector // nil: it was not there
	Until   time.Time         // Before holds until then
	Removed bool              // goes when Until is over
}

// newInbound has the defaults of the cmdlet.
func newInbound() InboundConnector {
	return InboundConnector{Enabled: true, RequireTls: true, ConnectorSource: "Default"}
}

func newOutbound() OutboundConnector {
	return OutboundConnector{Enabled: true, UseMXRecord: true, ConnectorSource: "Default", MtaStsMode: "Opportunistic"}
}

// atFront is the connector as the front knows it now, nil for none.
func (c *inbound) atFront(now time.Time) *InboundConnector {
	switch {
	case now.Before(c.Until):
		return c.Before
	case c.Removed:
		return nil
	}
	return &c.Shown
}

// change puts the next form in, which the front learns of after delay.
func (c *inbound) change(next InboundConnector, now time.Time, delay time.Duration) {
	if before := c.atFront(now); before != nil {
		b := *before
		c.Before = &b
	} else {
		c.Before = nil
	}
	next.WhenChangedUTC = now.UTC()
	c.Shown, c.Until = next, now.Add(delay)
}

// maxConnectorBody bounds a request that describes a connector.
const maxConnectorBody = 64 << 10

// decodeOnto reads JSON onto what is there: parameters that are not named
// stay as they are, as with Set-InboundConnector.
func decodeOnto(body []byte, onto any) error {
	if len(body) > maxConnectorBody {
		return fault.New(fault.Invalid, "sim", "the request is longer than a connector can be")
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(onto); err != nil {
		text := err.Error()
		if name, ok := strings.CutPrefix(text, "json: unknown field "); ok {
			text = "A parameter cannot be found that matches parameter name " + strings.ReplaceAll(name, `"`, "'") + "."
		}
		return fault.New(fault.Invalid, "sim", text).WithHint("Send one JSON object with the cmdlet's parameter names.")
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return fault.New(fault.Invalid, "sim", "something follows the JSON object")
	}
	return nil
}

// parseInbound is New- or Set-InboundConnector: a base with parameters put in,
// checked as the cmdlet documents them.
func parseInbound(body []byte, base InboundConnector) (InboundConnector, error) {
	// JSON is decoded into a slice's own memory: the shown connector must not
	// share it.
	for _, list := range []*[]string{&base.SenderDomains, &base.SenderIPAddresses, &base.ClientHostNames, &base.AssociatedAcceptedDomains,
		&base.TrustedOrganizations, &base.ScanAndDropRecipients, &base.EFSkipIPs, &base.EFUsers} {
		*list = slices.Clone(*list)
	}
	if err := decodeOnto(body, &base); err != nil {
		return base, err
	}
	return base, base.check()
}

func refuse(text string) error { return fault.New(fault.Invalid, "sim", text) }

func (c *InboundConnector) check() error {
	switch {
	case strings.TrimSpace(c.Name) == "" || len(c.Name) > 64 || strings.ContainsAny(c.Name, "/\r\n"):
		return refuse("Name must have 1 to 64 characters, no slash and no line end")
	case c.ConnectorType != partner && c.ConnectorType != onPremises:
		return refuse("ConnectorType must be Partner or OnPremises")
	case len(c.SenderDomains) == 0:
		return refuse("SenderDomains names no domain")
	case c.TlsSenderCertificateName != "" && !isPattern(c.TlsSenderCertificateName):
		return refuse("TlsSenderCertificateName must be one domain, or *. and one domain")
	}
	for _, d := range c.SenderDomains {
		if d != "*" && !isPattern(d) {
			return refuse("SenderDomains: " + d + " is not *, a domain, or *. and a domain")
		}
	}
	if err := checkPrefixes("SenderIPAddresses", c.SenderIPAddresses); err != nil {
		return err
	}
	if err := checkPrefixes("EFSkipIPs", c.EFSkipIPs); err != nil {
		return err
	}
	return c.checkType()
}

// checkType refuses parameters that the connector's type does not have.
func (c *InboundConnector) checkType() error {
	isPartner := c.ConnectorType == partner
	switch {
	case !isPartner && (c.RestrictDomainsToCertificate || c.RestrictDomainsToIPAddresses):
		return refuse("RestrictDomainsToCertificate and RestrictDomainsToIPAddresses are for Partner connectors")
	case isPartner && (c.CloudServicesMailEnabled || c.TreatMessagesAsInternal):
		return refuse("CloudServicesMailEnabled and TreatMessagesAsInternal are for OnPremises connectors")
	case c.CloudServicesMailEnabled && c.TreatMessagesAsInternal:
		return refuse("CloudServicesMailEnabled and TreatMessagesAsInternal exclude each other")
	case c.RestrictDomainsToCertificate && c.TlsSenderCertificateName == "":
		return refuse("RestrictDomainsToCertificate needs TlsSenderCertificateName")
	case c.RestrictDomainsToIPAddresses && len(c.SenderIPAddresses) == 0:
		return refuse("RestrictDomainsToIPAddresses needs SenderIPAddresses")
	case !isPartner && c.TlsSenderCertificateName == "" && len(c.SenderIPAddresses) == 0:
		return refuse("an OnPremises connector needs TlsSenderCertificateName or SenderIPAddresses")
	}
	return nil
}

// checkPrefixes holds addresses against the documented form: IPv4, alone or
// as a range of /24 to /32.
func checkPrefixes(parameter string, all []string) error {
	for _, s := range all {
		if _, ok := prefix(s); !ok {
			return refuse(parameter + ": " + s + " is not an IPv4 address, alone or with /24 to /32")
		}
	}
	return nil
}

func prefix(s string) (netip.Prefix, bool) {
	if ip, err := netip.ParseAddr(s); err == nil {
		return netip.PrefixFrom(ip, ip.BitLen()), ip.Is4()
	}
	p, err := netip.ParsePrefix(s)
	return p, err == nil && p.Addr().Is4() && p.Bits() >= 24
}

// isPattern reports a domain, or a leading wildcard and a domain.
func isPattern(s string) bool {
	d, err := mail.ParseDomain(strings.TrimPrefix(s, "*."))
	return err == nil && !strings.HasPrefix(d, "[")
}

// parseOutbound is New- or Set-OutboundConnector.
func parseOutbound(body []byte, base OutboundConnector) (OutboundConnector, error) {
	base.RecipientDomains, base.SmartHosts = slices.Clone(base.RecipientDomains), slices.Clone(base.SmartHosts)
	base.TlsSettings, base.LastValidationTimestamp = cloned(base.TlsSettings), cloned(base.LastValidationTimestamp)
	if err := decodeOnto(body, &base); err != nil {
		return base, err
	}
	return base, base.check()
}

// cloned is a pointer to a copy, for JSON is decoded into what a pointer is to.
func cloned[T any](p *T) *T {
	if p == nil {
		return nil
	}
	v := *p
	return &v
}

func (c *OutboundConnector) check() error {
	settings := ""
	if c.TlsSettings != nil {
		settings = *c.TlsSettings
	}
	switch {
	case strings.TrimSpace(c.Name) == "" || len(c.Name) > 64 || strings.ContainsAny(c.Name, "/\r\n"):
		return refuse("Name must have 1 to 64 characters, no slash and no line end")
	case c.ConnectorType != partner && c.ConnectorType != onPremises:
		return refuse("ConnectorType must be Partner or OnPremises")
	case c.UseMXRecord && len(c.SmartHosts) > 0:
		return refuse("UseMXRecord must be false with SmartHosts")
	case !c.UseMXRecord && len(c.SmartHosts) == 0:
		return refuse("without UseMXRecord SmartHosts must name a host")
	case settings != "" && settings != "EncryptionOnly" && settings != "CertificateValidation" && settings != "DomainValidation":
		return refuse("TlsSettings must be null, EncryptionOnly, CertificateValidation or DomainValidation")
	case settings == "DomainValidation" && !isPattern(c.TlsDomain):
		return refuse("DomainValidation needs TlsDomain")
	case settings != "DomainValidation" && c.TlsDomain != "":
		return refuse("TlsDomain is for DomainValidation alone")
	case c.MtaStsMode != "Opportunistic" && c.MtaStsMode != "None":
		return refuse("MtaStsMode must be Opportunistic or None")
	}
	for _, d := range c.RecipientDomains {
		if d != "*" && !isPattern(d) {
			return refuse("RecipientDomains: " + d + " is not *, a domain, or *. and a domain")
		}
	}
	return nil
}

// matches reports whether a pattern of a connector covers a name. A leading
// wildcard is a domain and all its subdomains (facts 1.2); a certificate that
// is itself a wildcard stands for the domain below which it is.
func matches(pattern, name string) bool {
	pattern, name = strings.ToLower(pattern), strings.ToLower(strings.TrimSuffix(name, "."))
	base, wild := strings.CutPrefix(pattern, "*.")
	if !wild {
		return pattern == name
	}
	name = strings.TrimPrefix(name, "*.")
	return name == base || strings.HasSuffix(name, "."+base)
}
