package dns

import (
	"context"
	"net/netip"
	"time"
)

// Resolver answers questions. Errors are of kind missing for NXDOMAIN and for
// a name without records of that type, later for everything that a later try
// may answer otherwise.
type Resolver interface {
	MX(ctx context.Context, domain string) ([]MX, error)
	Addrs(ctx context.Context, host string) ([]netip.Addr, error) // AAAA and A, in the order the resolver prefers
	TXT(ctx context.Context, name string) ([]string, error)
	PTR(ctx context.Context, a netip.Addr) ([]string, error)
}

// MX is one mail exchanger (RFC 5321 5.1). A null MX (RFC 7505) is Host ".".
type MX struct {
	Host       string
	Preference uint16
	TTL        time.Duration
}

// Fake answers from literals; a missing name gives kind missing, a name in
// Fail gives kind later. Its zero value knows nothing.
type Fake struct {
	MXs   map[string][]MX
	Hosts map[string][]netip.Addr
	TXTs  map[string][]string
	PTRs  map[netip.Addr][]string
	Fail  map[string]bool
}

// New returns a Resolver that asks the servers named ("127.0.0.1:53"), or
// those of /etc/resolv.conf when none is named. It caches answers for their
// TTL, bounded, and follows no CNAME chain longer than 8.
func New(servers []string) (Resolver, error) { panic("skeleton") }
