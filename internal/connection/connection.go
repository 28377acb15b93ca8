package connection

import (
	"context"
	"crypto/x509"
	"hash/fnv"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sallyport-mail/sallyport/internal/keeper/client"
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
	// Keepers is the keeper of a tenant's region; nil without keepers, and then
	// identities are files that Signers reads.
	Keepers func(tenant string) (Keeper, error)
	// Standby has a next identity made in quiet time for each connection that
	// shows one, so that a replacement waits for no issuer.
	Standby bool
	// Flow measures a connection's mail between two moments; nil measures
	// nothing.
	Flow func(ctx context.Context, tenant, connection string, from, to time.Time) (Flow, error)
	// Changed is told of each change of a connection's identities that has
	// ended: mail that the partner refused meanwhile can go. Nil tells nobody.
	Changed func(ctx context.Context, tenant, connection string)
	Roots   func() (pem []byte)   // system roots when nil
	IsLocal func(netip.Addr) bool // is that address ours? for loops; nil is no
	MXPort  int                   // the internet's port, 0 is 25
	Hello   string                // name of tests' sender, and their EHLO name without Dress
	// Dress gives a test's candidate the source address and EHLO name that
	// deliveries of the tenant's mail have; nil leaves it as it is.
	Dress    func(c *Candidate, tenant string) error
	Timeouts smtp.Timeouts
	Log      *slog.Logger
	Now      func() time.Time
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

// How a connection authenticates.
const (
	AuthNone  = "none"
	AuthPlain = "plain" // PLAIN, or LOGIN where only that is offered
	AuthLogin = "login" // the same
	AuthSCRAM = "scram" // SCRAM-SHA-256 or nothing
)

// Kinds of connection.
const (
	KindSMTP = "smtp"
	KindM365 = "m365" // Microsoft 365: mail by a connector, and the customer's own app registration
)

// Directions of a connection.
const (
	DirectionInbound  = "inbound"
	DirectionOutbound = "outbound"
	DirectionBoth     = "both"
)

// States of a connection.
const (
	Enabled  = "enabled"
	Disabled = "disabled"
)

// Platforms that send many tenants' mail.
const (
	PlatformExchangeOnline = "exchange-online"
	PlatformGoogle         = "google"
)

// Connection is one tenant's connection.
//
// With direction inbound its hosts take the tenant's mail. With direction
// outbound its hosts, if any, are the smart host by which the tenant's mail
// leaves, and its networks, certificates and originators say whose mail a
// client's is. With both, the hosts take the tenant's mail and the rest says
// whose mail it is: the hosts are no smart host, for that would send the
// tenant's mail back to where it came from.
type Connection struct {
	Tenant      string    `json:"tenant"`
	Name        string    `json:"name"`
	Kind        string    `json:"kind"`      // "smtp" or "m365"
	Direction   string    `json:"direction"` // "inbound", "outbound" or "both"
	State       string    `json:"state"`     // "enabled" or "disabled"
	Host        string    `json:"host"`      // first of Hosts, for the contract's fields
	Port        int       `json:"port"`
	Hosts       []Host    `json:"hosts"`
	MX          bool      `json:"mx"` // deliver to the MX of Host, or of each domain when there is none
	TLS         string    `json:"tls"`
	CA          string    `json:"ca"` // PEM; "" is the system's roots
	ServerName  string    `json:"server_name"`
	Pins        []string  `json:"pins"` // "sha256:<hex>" of the peer's leaf certificate, instead of a chain
	Auth        string    `json:"auth"` // one of the ways to authenticate (the password is a credential)
	User        string    `json:"user"`
	LMTP        bool      `json:"lmtp"`
	Domains     []string  `json:"domains"`            // which domains it serves; empty is all
	Networks    []string  `json:"networks"`           // outbound: client networks that are this tenant's alone
	ClientCert  []string  `json:"client_cert_sha256"` // outbound: client certificates that are this tenant's alone
	Platform    string    `json:"platform"`           // outbound: "exchange-online" or "google", shared by many tenants
	Originator  []string  `json:"originator"`         // outbound: X-OriginatorOrg values registered for this tenant
	Concurrency int       `json:"concurrency"`        // connections at a time; default 20
	Issuer      string    `json:"issuer"`             // of our mail certificate: "" or "builtin" the region's own CA, "acme" a public one
	Graph       string    `json:"graph"`              // m365: https address of Graph
	Login       string    `json:"login"`              // m365: https address of Entra's login service
	EntraTenant string    `json:"entra_tenant"`       // m365: id of the customer's Entra tenant
	AppID       string    `json:"app_id"`             // m365: client id of the customer's app registration for us; "" for none
	AppObject   string    `json:"app_object"`         // m365: its object id
	Connector   string    `json:"connector"`          // m365: name of the inbound connector; asked for with "", the one that is found
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

// Registry answers from memory and changes the control database. What it
// returns is shared: slices in it are not to be changed.
type Registry struct {
	c Config
	// One tenant's changes come one after another; those that claim a network,
	// a certificate or an originator one after another over all tenants.
	stripes [64]sync.Mutex
	claim   sync.Mutex

	mu       sync.RWMutex
	tenants  map[string]*routing
	networks tenant.Networks[*entry]
	claims   map[claim]*entry // but networks
	offers   offers

	roots  rootCache
	health healthBook

	standby   standbys
	busy      keyed                   // changes of identity, one after another for each connection
	wake      chan struct{}           // for Run
	hurried   map[place]chan struct{} // closed to have a change try again
	shutters  map[place]*shutter      // closed when a connection may be dialled again
	unready   map[place]bool          // connections whose first identity is still with its issuer
	late      []string                // of Care
	enders    []func(tenant, connection, sha256 string) (left int)
	returners []func(sha256 string)
	stop      func(at ReplacementState, when string) error // a test's; nil
}

// entry is a connection as it is used. It is not changed after it has been
// published, but for its health; a change publishes a new one.
type entry struct {
	Connection
	destination string         // "t:<tenant>:<name>"
	ca          *x509.CertPool // of CA, nil without one
	claims      []claim
	networks    []netip.Prefix
	health      *atomic.Pointer[Health] // shared by the versions of an entry
	found       *atomic.Pointer[string] // the same: name of the connector that lets us in, as Exchange has it
}

func (e *entry) view() Connection {
	c := e.Connection
	if h := e.health.Load(); h != nil {
		c.Health = *h
	}
	if c.Connector == "" {
		c.Connector = e.foundConnector()
	}
	return c
}

func (e *entry) enabled() bool { return e.State == Enabled }

// routing is what a tenant's connections come to.
type routing struct {
	all      []*entry // by name
	inbound  choice
	outbound choice // smart hosts
}

// choice finds the connection for a domain: one that names it, else the one
// that names none.
type choice struct {
	named map[string]*entry
	other *entry
}

func (c *choice) find(domain string) *entry {
	if e := c.named[domain]; e != nil {
		return e
	}
	return c.other
}

func (c *choice) add(e *entry) {
	if len(e.Domains) == 0 {
		c.other = e
		return
	}
	if c.named == nil {
		c.named = make(map[string]*entry)
	}
	for _, d := range e.Domains {
		c.named[d] = e
	}
}

// New loads everything, and has the tenant registry remove a tenant's
// connections with the tenant.
func New(ctx context.Context, c Config) (*Registry, error) {
	r := &Registry{c: c, tenants: make(map[string]*routing), claims: make(map[claim]*entry), wake: make(chan struct{}, 1)}
	r.health.write = r.writeHealth
	r.standby.pace = quietPace()
	if err := r.load(ctx); err != nil {
		return nil, wrap("connection.New", err)
	}
	c.Tenants.OnRemove(tenant.Hook{Tenant: r.removeAll, Done: r.forgetTenant})
	return r, nil
}

// Close writes down health that is known only in memory.
func (r *Registry) Close(ctx context.Context) error { return r.health.close(ctx) }

func (r *Registry) lock(tenant string) (unlock func()) {
	h := fnv.New32a()
	h.Write([]byte(tenant))
	m := &r.stripes[h.Sum32()%uint32(len(r.stripes))]
	m.Lock()
	return m.Unlock
}

// now is the time as the database keeps it.
func (r *Registry) now() time.Time { return r.c.Now().UTC().Truncate(time.Microsecond) }

func (r *Registry) entry(tenant, name string) *entry {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.tenants[tenant].entry(name)
}

func (t *routing) entry(name string) *entry {
	if t == nil {
		return nil
	}
	at, found := slices.BinarySearchFunc(t.all, name, func(e *entry, name string) int { return strings.Compare(e.Name, name) })
	if !found {
		return nil
	}
	return t.all[at]
}

// Get looks a connection up by its name.
func (r *Registry) Get(tenant, name string) (Connection, bool) {
	e := r.entry(tenant, name)
	if e == nil {
		return Connection{}, false
	}
	return e.view(), true
}

// List is a tenant's connections in order of name; "" is all tenants'.
func (r *Registry) List(tenant string) []Connection {
	r.mu.RLock()
	defer r.mu.RUnlock()
	list := []Connection{}
	for name, t := range r.tenants {
		if tenant != "" && tenant != name {
			continue
		}
		for _, e := range t.all {
			list = append(list, e.view())
		}
	}
	slices.SortFunc(list, func(a, b Connection) int {
		if a.Tenant != b.Tenant {
			return strings.Compare(a.Tenant, b.Tenant)
		}
		return strings.Compare(a.Name, b.Name)
	})
	return list
}

// publish puts entry e (or nothing, when nil) in the place of the connection
// of that name.
func (r *Registry) publish(tenant, name string, e *entry) {
	r.mu.Lock()
	defer r.mu.Unlock()
	old := r.tenants[tenant]
	if old == nil {
		old = &routing{}
	}
	if before := old.entry(name); before != nil {
		r.unclaim(before)
	}
	all := slices.DeleteFunc(slices.Clone(old.all), func(have *entry) bool { return have.Name == name })
	if e != nil {
		all = append(all, e)
		r.enterClaims(e)
	}
	if len(all) == 0 {
		delete(r.tenants, tenant)
		return
	}
	r.tenants[tenant] = newRouting(all)
}

func newRouting(all []*entry) *routing {
	slices.SortFunc(all, func(a, b *entry) int { return strings.Compare(a.Name, b.Name) })
	t := &routing{all: all}
	for _, e := range all {
		switch {
		case e.Direction != DirectionOutbound:
			t.inbound.add(e)
		case len(e.Hosts) > 0:
			t.outbound.add(e)
		}
	}
	return t
}
