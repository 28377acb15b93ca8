package edge

import (
	"crypto/x509"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sallyport-mail/sallyport/internal/connection"
	"github.com/sallyport-mail/sallyport/internal/directory"
	"github.com/sallyport-mail/sallyport/internal/mail"
	"github.com/sallyport-mail/sallyport/internal/queue"
	"github.com/sallyport-mail/sallyport/internal/smtp"
	"github.com/sallyport-mail/sallyport/internal/store"
	"github.com/sallyport-mail/sallyport/internal/tenant"
	"github.com/sallyport-mail/sallyport/internal/trace"
)

// Config of the edge.
type Config struct {
	Store       *store.Store
	Tenants     *tenant.Registry
	Connections *connection.Registry
	Directory   *directory.Directory
	Queue       *queue.Queue
	Trace       *trace.Log
	Limits      Limits
	// Hostname is our name for a region ("mx.us.example.net"), or for all of
	// them ("mx.example.net") when region is "".
	Hostname func(region string) string
	// Postmaster is who gets mail for <postmaster> without a domain (RFC 5321
	// 4.5.1). It is taken only when its domain is a tenant's; the zero Address
	// refuses such mail.
	Postmaster mail.Address
	// PlatformRoots are the authorities that a platform's client certificate
	// is verified against; nil is the system's.
	PlatformRoots *x509.CertPool
	// PlatformNames lists, per platform, the names that its client certificate
	// may bear; nil is DefaultPlatformNames.
	PlatformNames map[string][]string
	// PlatformFields names, per platform, the header field that says which of
	// its organisations a message is from; default X-OriginatorOrg.
	PlatformFields map[string]string
	Log            *slog.Logger
	Now            func() time.Time
}

// DefaultPlatformNames are the names in the client certificates that the
// platforms present when they deliver to us.
func DefaultPlatformNames() map[string][]string {
	return map[string][]string{
		"exchange-online": {"mail.protection.outlook.com"},
		"google":          {"smtp.gmail.com"},
	}
}

// Kind of a listener.
type Kind string

const (
	Inbound    Kind = "inbound"    // port 25: mail for our tenants' domains, and from platforms
	Submission Kind = "submission" // 587 and 465: AUTH only
)

// readBuffer is how much of a message is copied at a time.
const readBuffer = 32 << 10

// Edge makes sessions.
type Edge struct {
	c         Config
	platforms []platform
	clients   *clientLimits
	ids       *idSource
	buffers   sync.Pool // of *[readBuffer]byte

	sessions                              atomic.Int64
	connects, accepted, refused, deferred atomic.Uint64
	unproven                              atomic.Uint64
	unprovens                             unprovens
}

// New makes an edge; it starts nothing.
func New(c Config) *Edge {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.PlatformNames == nil {
		c.PlatformNames = DefaultPlatformNames()
	}
	clients := newClientLimits(c.Limits)
	c.Limits = clients.limits
	return &Edge{
		c:         c,
		platforms: platformsOf(c.PlatformNames, c.PlatformFields),
		clients:   clients,
		ids:       newIDSource(),
		unprovens: unprovens{book: map[string]*unproven{}},
		buffers:   sync.Pool{New: func() any { return new([readBuffer]byte) }},
	}
}

// Backend is what a listener of that kind is served with. region is "" for a
// listener shared by all regions; one of a region serves only its tenants.
func (e *Edge) Backend(kind Kind, region string) smtp.Backend {
	return &backend{edge: e, kind: kind, region: region, host: e.c.Hostname(region)}
}

// Stats are figures for metrics.
type Stats struct {
	Sessions                    int64
	Connects, Accepted, Refused uint64
	Deferred, Unproven          uint64
}

// Stats returns what was counted since the start: Accepted are messages,
// Refused and Deferred the replies with 5xx and 4xx, Unproven the handshakes
// with a client certificate that is registered but no proof.
func (e *Edge) Stats() Stats {
	return Stats{
		Sessions: e.sessions.Load(),
		Connects: e.connects.Load(),
		Accepted: e.accepted.Load(),
		Refused:  e.refused.Load(),
		Deferred: e.deferred.Load(),
		Unproven: e.unproven.Load(),
	}
}
