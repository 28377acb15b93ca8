package tenant

import (
	"context"
	"log/slog"
	"time"

	"github.com/sallyport-mail/sallyport/internal/store"
)

// Config of the registry.
type Config struct {
	DB      *store.DB // control
	Regions []string  // regions served by this process
	Log     *slog.Logger
	Now     func() time.Time
}

// Tenant is one customer organisation. Names are slugs: [a-z0-9-], 1 to 40.
type Tenant struct {
	Name      string    `json:"name"`
	Region    string    `json:"region"`
	CreatedAt time.Time `json:"created_at"`
	Settings  Settings  `json:"settings"`
}

// Settings of a tenant; the zero value of each field means the default.
type Settings struct {
	TraceDays           int      `json:"trace_days"`            // how long message traces are kept; default 30
	FailedDays          int      `json:"failed_days"`           // how long finally refused and held mail is kept; default 14
	ExpiryHours         int      `json:"expiry_hours"`          // how long delivery is tried; default 120 (5 days)
	DelayNoticeHours    int      `json:"delay_notice_hours"`    // delay DSN to own senders after; default 4, -1 never
	MaxSize             int64    `json:"max_size"`              // bytes; default the listener's
	MaxRecipients       int      `json:"max_recipients"`        // a message; default the listener's
	MessagesPerMinute   int      `json:"messages_per_minute"`   // inbound and outbound each; 0 none
	RecipientsPerMinute int      `json:"recipients_per_minute"` // 0 none
	ConnectionsMax      int      `json:"connections_max"`       // concurrent submission sessions; 0 none
	Block               []string `json:"block"`                 // senders refused: address, domain, .domain (and below), IP or CIDR
	Allow               []string `json:"allow"`                 // like Block, and wins over it and over rate limits
	Egress              string   `json:"egress"`                // name of the egress pool, default "default"
}

// Domain is a domain whose mail is a tenant's.
type Domain struct {
	Name       string    `json:"name"` // A-labels
	Tenant     string    `json:"tenant"`
	Recipients string    `json:"recipients"` // "list", "probe" or "none"
	PlusTags   bool      `json:"plus_tags"`  // user+tag is user, for the recipient check
	CreatedAt  time.Time `json:"created_at"`
}

// Registry answers from memory and changes the control database.
type Registry struct { /* unexported */
}

// New loads everything.
func New(ctx context.Context, c Config) (*Registry, error) { panic("skeleton") }

// Actor is who asks for a change, for the audit event: "token:<id>" or
// "system".
type Actor string

func (r *Registry) Add(ctx context.Context, a Actor, t Tenant) (Tenant, error) { panic("skeleton") }
func (r *Registry) Set(ctx context.Context, a Actor, name string, s Settings) (Tenant, error) {
	panic("skeleton")
}

// Remove refuses (conflict) while the tenant has domains or queued mail;
// inUse is asked for the latter.
func (r *Registry) Remove(ctx context.Context, a Actor, name string, inUse func(tenant string) error) error {
	panic("skeleton")
}
func (r *Registry) Tenant(name string) (Tenant, bool) { panic("skeleton") }

// Tenants are in order of name, after the name given, at most limit.
func (r *Registry) Tenants(after string, limit int) []Tenant { panic("skeleton") }
func (r *Registry) Regions() []string                        { panic("skeleton") }

func (r *Registry) AddDomain(ctx context.Context, a Actor, d Domain) (Domain, error) {
	panic("skeleton")
}
func (r *Registry) RemoveDomain(ctx context.Context, a Actor, tenant, domain string) error {
	panic("skeleton")
}

// Domain looks up exactly this domain: subdomains only if added.
func (r *Registry) Domain(name string) (Domain, bool) { panic("skeleton") }
func (r *Registry) Domains(tenant string) []Domain    { panic("skeleton") }
func (r *Registry) Count() (tenants, domains int)     { panic("skeleton") }

// Blocks are the operator's own sender lists, for all tenants.
type Lists struct {
	Block []string `json:"block"`
	Allow []string `json:"allow"`
}

func (r *Registry) Lists() Lists                                         { panic("skeleton") }
func (r *Registry) SetLists(ctx context.Context, a Actor, l Lists) error { panic("skeleton") }

// Verdict of the sender lists.
type Verdict int

const (
	Neutral Verdict = iota
	Allowed
	Blocked
)

// Sender judges a client address and a sender by the operator's and the
// tenant's lists; tenant may be "". Allow wins within each list, the operator's
// block over the tenant's allow.
func (r *Registry) Sender(tenant string, ip string, from string) (Verdict, string) { panic("skeleton") }
