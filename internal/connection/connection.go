package connection

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net/netip"
	"time"

	"github.com/sallyport-mail/sallyport/internal/keeper/client"
	"github.com/sallyport-mail/sallyport/internal/mail"
	"github.com/sallyport-mail/sallyport/internal/mailauth/dns"
	"github.com/sallyport-mail/sallyport/internal/smtp"
	"github.com/sallyport-mail/sallyport/internal/store"
	"github.com/sallyport-mail/sallyport/internal/tenant"
)

// Config of the registry.
type Config struct {
	DB          *store.DB // control
	Tenants     *tenant.Registry
	Resolver    dns.Resolver
	Signers     client.Signers
	Credentials client.Credentials
	Roots       func() (pem []byte) // system roots when nil
	Timeouts    smtp.Timeouts
	Log         *slog.Logger
	Now         func() time.Time
}

// Host is one host of a connection.
type Host struct {
	Host     string `json:"host"`
	Port     int    `json:"port"`
	Priority int    `json:"priority"` // lower first, as MX preference
	Weight   int    `json:"weight"`   // share among equals, as RFC 2782
}

// TLS rules, as the command line names them.
const (
	TLSNone          = "none"
	TLSOpportunistic = "opportunistic"
	TLSRequired      = "required"
	TLSVerified      = "verified"
	TLSMutual        = "mutual"
)

// Connection is one tenant's connection.
type Connection struct {
	Tenant      string    `json:"tenant"`
	Name        string    `json:"name"`
	Kind        string    `json:"kind"`      // "smtp" (others come)
	Direction   string    `json:"direction"` // "inbound", "outbound" or "both"
	State       string    `json:"state"`     // "enabled" or "disabled"
	Host        string    `json:"host"`      // first of Hosts, for the contract's fields
	Port        int       `json:"port"`
	Hosts       []Host    `json:"hosts"`
	MX          bool      `json:"mx"` // deliver to the MX of each domain
	TLS         string    `json:"tls"`
	CA          string    `json:"ca"` // PEM; "" is the system's roots
	ServerName  string    `json:"server_name"`
	Pins        []string  `json:"pins"` // "sha256:<hex>" of the peer's leaf certificate, instead of a chain
	Auth        string    `json:"auth"` // "none", "plain" (the password is a credential)
	User        string    `json:"user"`
	LMTP        bool      `json:"lmtp"`
	Domains     []string  `json:"domains"`            // which domains it serves; empty is all
	Networks    []string  `json:"networks"`           // outbound: client networks that are this tenant's alone
	ClientCert  []string  `json:"client_cert_sha256"` // outbound: client certificates that are this tenant's alone
	Platform    string    `json:"platform"`           // outbound: "exchange-online" or "google", shared by many tenants
	Originator  []string  `json:"originator"`         // outbound: X-OriginatorOrg values registered for this tenant
	Concurrency int       `json:"concurrency"`        // connections at a time; default 20
	Health      Health    `json:"health"`
	CreatedAt   time.Time `json:"created_at"`
}

// Health is the last thing known of a connection.
type Health struct {
	OK        *bool      `json:"ok"`
	CheckedAt *time.Time `json:"checked_at"`
	LatencyMS *int64     `json:"latency_ms"`
	Reason    *string    `json:"reason"`
}

// Registry answers from memory and changes the control database.
type Registry struct { /* unexported */
}

func New(ctx context.Context, c Config) (*Registry, error) { panic("skeleton") }

func (r *Registry) Add(ctx context.Context, a tenant.Actor, c Connection) (Connection, error) {
	panic("skeleton")
}
func (r *Registry) SetState(ctx context.Context, a tenant.Actor, tenant, name, state string) (Connection, error) {
	panic("skeleton")
}
func (r *Registry) Remove(ctx context.Context, a tenant.Actor, tenant, name string) error {
	panic("skeleton")
}
func (r *Registry) Get(tenant, name string) (Connection, bool) { panic("skeleton") }
func (r *Registry) List(tenant string) []Connection            { panic("skeleton") }

// NoteHealth records what the last attempt showed, in memory (written to the
// database when it changes, at most once a minute).
func (r *Registry) NoteHealth(tenant, name string, h Health) { panic("skeleton") }

// Route says where a message for a domain goes.
type Route struct {
	Destination string // the queue's key: "t:<tenant>:<connection>", "mx:<host>,<host>" or "domain:<domain>"
	Connection  string // the tenant's connection, "" for the internet
	MaxSize     int64  // the SIZE that the far end was last seen to offer, 0 unknown
	UTF8        bool   // the far end was last seen to offer SMTPUTF8, or nothing is known
	EightBit    bool
}

// Inbound is the route to the tenant's own system for one of its domains; kind
// later when there is none yet.
func (r *Registry) Inbound(tenant, domain string) (Route, error) { panic("skeleton") }

// Outbound is the route to the internet: the tenant's smart host when it has
// an outbound connection with hosts, else the MX set of the domain, looked up
// within ctx; a domain that cannot be looked up in time gets the key
// "domain:<domain>", one that does not exist or has a null MX kind never.
func (r *Registry) Outbound(ctx context.Context, tenant, domain string) (Route, error) {
	panic("skeleton")
}

// Offered remembers what a far end offers, for Route.
func (r *Registry) Offered(destination string, maxSize int64, utf8, eightBit bool) { panic("skeleton") }

// Attribution: whose outbound mail is it? Each answers with the tenant.
func (r *Registry) ByNetwork(ip netip.Addr) (tenant, connection string, ok bool) { panic("skeleton") }
func (r *Registry) ByClientCert(sha256 string) (tenant, connection string, ok bool) {
	panic("skeleton")
}
func (r *Registry) ByOriginator(platform, org string) (tenant, connection string, ok bool) {
	panic("skeleton")
}

// Candidate is one way to reach a destination: what to dial and by which rule.
type Candidate struct {
	Host               string // name, for the trace
	Target             smtp.Target
	Rule               string // one of the TLS rules
	Pins               []string
	User               string // AUTH user, "" for none
	Tenant, Connection string
}

// Candidates lists the hosts of a route in the order to try them (priority,
// then weight at random; MX preference for the internet), resolved to
// addresses, IPv6 and IPv4. hello is our EHLO name, local the source address
// (zero for any).
func (r *Registry) Candidates(ctx context.Context, tenant, destination, domain, hello string, local netip.Addr) ([]Candidate, error) {
	panic("skeleton")
}

// Dial opens a candidate: TLS by its rule (opportunistic falls back to clear
// on a second connection), pins checked, AUTH with the opened credential.
// trace is the message on whose behalf. Failures are *smtp.DialError.
func (r *Registry) Dial(ctx context.Context, c Candidate, trace string) (*smtp.Client, error) {
	panic("skeleton")
}

// ClientTLS is the configuration by which a rule verifies a peer.
func (r *Registry) ClientTLS(c Connection, host string) (*tls.Config, error) { panic("skeleton") }

// TestStep is one step of a test, in the customer's words.
type TestStep struct {
	Name   string `json:"name"` // "resolve", "connect", "tls", "auth", "recipient", "message"
	OK     bool   `json:"ok"`
	MS     int64  `json:"ms"`
	Detail string `json:"detail"`
	Fix    string `json:"fix"` // what to do, "" when ok
}

// TestReport is the outcome of a test.
type TestReport struct {
	OK    bool       `json:"ok"`
	Steps []TestStep `json:"steps"`
}

// Test proves a connection for real: it sends a message to the real server,
// to rcpt, or to postmaster of the tenant's first domain that it serves.
func (r *Registry) Test(ctx context.Context, tenant, name string, rcpt mail.Address) (TestReport, error) {
	panic("skeleton")
}
