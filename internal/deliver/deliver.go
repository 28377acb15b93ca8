package deliver

import (
	"context"
	"log/slog"
	"net/netip"
	"time"

	"github.com/sallyport-mail/sallyport/internal/connection"
	"github.com/sallyport-mail/sallyport/internal/mailauth/dns"
	"github.com/sallyport-mail/sallyport/internal/queue"
	"github.com/sallyport-mail/sallyport/internal/tenant"
)

// Config of the deliverer.
type Config struct {
	Queue         *queue.Queue
	Connections   *connection.Registry
	Tenants       *tenant.Registry
	Pools         []Pool
	Hostname      func(region string) string // EHLO name where a pool has none
	HostCeiling   int                        // connections to one remote address over all destinations; default 40
	Idle          time.Duration              // how long a connection is kept for more mail; default 5 s
	PerConnection int                        // messages on one connection; default 1000
	Log           *slog.Logger
	Now           func() time.Time
}

// Pool is an egress pool: source addresses with the EHLO name of each.
type Pool struct {
	Name    string
	Sources []Source
}

// Source is one source address.
type Source struct {
	Address netip.Addr
	Hello   string
}

// Deliverer is the way out.
type Deliverer struct { /* unexported */
}

func New(c Config) *Deliverer { panic("skeleton") }

// Run delivers until ctx ends; then it finishes the transactions that have
// begun, up to grace, and returns.
func (d *Deliverer) Run(ctx context.Context, grace time.Duration) error { panic("skeleton") }

// CheckPools looks up forward-confirmed reverse DNS of each source (RFC 8499);
// one line per finding, for doctor.
func (d *Deliverer) CheckPools(ctx context.Context, r dns.Resolver) []string { panic("skeleton") }
