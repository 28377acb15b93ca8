package admin

import (
	"context"
	"encoding/pem"
	"net/http"
	"net/url"
	"time"

	"github.com/sallyport-mail/sallyport/internal/exchange/wire"
)

// Config says which tenant's connectors, and where.
type Config struct {
	Base   string // https://host:port, without a path
	Tenant string // the Entra tenant id
	Token  func(ctx context.Context) (string, error)
	HTTP   *http.Client
	Now    func() time.Time
}

// Client manages one tenant's connectors.
type Client struct {
	base string
	call wire.Caller
}

// New makes a client; it calls nobody yet.
func New(c Config) *Client {
	return &Client{base: c.Base + "/adminapi/" + url.PathEscape(c.Tenant) + "/",
		call: wire.Caller{Token: c.Token, HTTP: c.HTTP, Now: c.Now}}
}

// Inbound is an inbound connector, by the parameter names of
// Get-InboundConnector.
type Inbound struct {
	Name                         string
	Enabled                      bool
	ConnectorType                string // Partner or OnPremises
	Comment                      string
	SenderDomains                []string
	SenderIPAddresses            []string
	TlsSenderCertificateName     string
	RequireTls                   bool
	RestrictDomainsToCertificate bool
	RestrictDomainsToIPAddresses bool
	CloudServicesMailEnabled     bool
	TreatMessagesAsInternal      bool
	AssociatedAcceptedDomains    []string
	EFSkipIPs                    []string
	EFSkipLastIP                 bool
	EFUsers                      []string
	WhenChangedUTC               time.Time
}

// InboundChange names what New- or Set-InboundConnector is to set; nil leaves
// a parameter alone.
type InboundChange struct {
	Name                         *string   `json:",omitempty"`
	Enabled                      *bool     `json:",omitempty"`
	ConnectorType                *string   `json:",omitempty"`
	Comment                      *string   `json:",omitempty"`
	SenderDomains                *[]string `json:",omitempty"`
	SenderIPAddresses            *[]string `json:",omitempty"`
	TlsSenderCertificateName     *string   `json:",omitempty"`
	RequireTls                   *bool     `json:",omitempty"`
	RestrictDomainsToCertificate *bool     `json:",omitempty"`
	RestrictDomainsToIPAddresses *bool     `json:",omitempty"`
	CloudServicesMailEnabled     *bool     `json:",omitempty"`
	TreatMessagesAsInternal      *bool     `json:",omitempty"`
	AssociatedAcceptedDomains    *[]string `json:",omitempty"`
	EFSkipIPs                    *[]string `json:",omitempty"`
	EFSkipLastIP                 *bool     `json:",omitempty"`
	EFUsers                      *[]string `json:",omitempty"`
}

// Outbound is an outbound connector, by the parameter names of
// Get-OutboundConnector.
type Outbound struct {
	Name             string
	Enabled          bool
	ConnectorType    string
	Comment          string
	RecipientDomains []string
	SmartHosts       []string
	UseMXRecord      bool
	TlsSettings      *string
	TlsDomain        string
	WhenChangedUTC   time.Time
}

// OutboundChange names what New- or Set-OutboundConnector is to set.
type OutboundChange struct {
	Name             *string   `json:",omitempty"`
	Enabled          *bool     `json:",omitempty"`
	ConnectorType    *string   `json:",omitempty"`
	Comment          *string   `json:",omitempty"`
	RecipientDomains *[]string `json:",omitempty"`
	SmartHosts       *[]string `json:",omitempty"`
	UseMXRecord      *bool     `json:",omitempty"`
	TlsSettings      *string   `json:",omitempty"`
	TlsDomain        *string   `json:",omitempty"`
}

// do calls one noun of the API, of one object where name is not empty.
func (c *Client) do(ctx context.Context, op, method, noun, name string, in, out any) error {
	address := c.base + noun
	if name != "" {
		address += "/" + url.PathEscape(name)
	}
	return c.call.Do(ctx, op, method, address, in, out)
}

// Inbounds are the tenant's inbound connectors.
func (c *Client) Inbounds(ctx context.Context) ([]Inbound, error) {
	var out struct{ Value []Inbound }
	err := c.do(ctx, "admin.Inbounds", http.MethodGet, "InboundConnector", "", nil, &out)
	return out.Value, err
}

// Inbound is one of them.
func (c *Client) Inbound(ctx context.Context, name string) (Inbound, error) {
	var out Inbound
	err := c.do(ctx, "admin.Inbound", http.MethodGet, "InboundConnector", name, nil, &out)
	return out, err
}

// NewInbound makes one.
func (c *Client) NewInbound(ctx context.Context, with InboundChange) (Inbound, error) {
	var out Inbound
	err := c.do(ctx, "admin.NewInbound", http.MethodPost, "InboundConnector", "", with, &out)
	return out, err
}

// SetInbound changes one.
func (c *Client) SetInbound(ctx context.Context, name string, change InboundChange) (Inbound, error) {
	var out Inbound
	err := c.do(ctx, "admin.SetInbound", http.MethodPatch, "InboundConnector", name, change, &out)
	return out, err
}

// RemoveInbound removes one.
func (c *Client) RemoveInbound(ctx context.Context, name string) error {
	return c.do(ctx, "admin.RemoveInbound", http.MethodDelete, "InboundConnector", name, nil, nil)
}

// Outbounds are the tenant's outbound connectors.
func (c *Client) Outbounds(ctx context.Context) ([]Outbound, error) {
	var out struct{ Value []Outbound }
	err := c.do(ctx, "admin.Outbounds", http.MethodGet, "OutboundConnector", "", nil, &out)
	return out.Value, err
}

// NewOutbound makes one.
func (c *Client) NewOutbound(ctx context.Context, with OutboundChange) (Outbound, error) {
	var out Outbound
	err := c.do(ctx, "admin.NewOutbound", http.MethodPost, "OutboundConnector", "", with, &out)
	return out, err
}

// SetOutbound changes one.
func (c *Client) SetOutbound(ctx context.Context, name string, change OutboundChange) (Outbound, error) {
	var out Outbound
	err := c.do(ctx, "admin.SetOutbound", http.MethodPatch, "OutboundConnector", name, change, &out)
	return out, err
}

// RemoveOutbound removes one.
func (c *Client) RemoveOutbound(ctx context.Context, name string) error {
	return c.do(ctx, "admin.RemoveOutbound", http.MethodDelete, "OutboundConnector", name, nil, nil)
}

// AcceptedDomains are the domains whose mail the tenant takes.
func (c *Client) AcceptedDomains(ctx context.Context) ([]string, error) {
	var out struct{ Value []string }
	err := c.do(ctx, "admin.AcceptedDomains", http.MethodGet, "AcceptedDomain", "", nil, &out)
	return out.Value, err
}

// AddAcceptedDomain makes a domain the tenant's, so that a certificate below
// it can relay for the tenant.
func (c *Client) AddAcceptedDomain(ctx context.Context, domain string) error {
	return c.do(ctx, "admin.AddAcceptedDomain", http.MethodPost, "AcceptedDomain", "", map[string]string{"DomainName": domain}, nil)
}

// TrustRoot makes the simulator take an authority for a public one. The real
// service has no such thing: there the certificate comes from a public
// authority.
func (c *Client) TrustRoot(ctx context.Context, der []byte) error {
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return c.do(ctx, "admin.TrustRoot", http.MethodPost, "TrustedRoot", "", map[string]string{"Certificate": string(text)}, nil)
}
