package dns

import (
	"context"
	"net"
	"net/netip"
	"time"

	"github.com/miekg/dns"

	"github.com/sallyport-mail/sallyport/internal/fault"
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

// resolvConf and hostsFile are where the system names its resolvers and the
// hosts that are known without one.
const (
	resolvConf = "/etc/resolv.conf"
	hostsFile  = "/etc/hosts"
)

// New returns a Resolver that asks the servers named ("127.0.0.1:53"), or
// those of /etc/resolv.conf when none is named; then it also knows the names
// of /etc/hosts, as they are at this moment. It caches answers for their TTL,
// bounded, and follows no CNAME chain longer than 8.
func New(servers []string) (Resolver, error) {
	var local map[string][]netip.Addr
	if len(servers) == 0 {
		servers = systemServers(resolvConf)
		local = readHosts(hostsFile)
	}
	addresses := make([]string, 0, len(servers))
	for _, s := range servers {
		a, err := serverAddress(s)
		if err != nil {
			return nil, err
		}
		addresses = append(addresses, a)
	}
	return newResolver(addresses, local), nil
}

// systemServers reads resolv.conf. Without one the server of this very host
// is asked, as the C library does (resolv.conf(5)).
func systemServers(path string) []string {
	c, err := dns.ClientConfigFromFile(path)
	if err != nil || len(c.Servers) == 0 {
		return []string{"127.0.0.1:53"}
	}
	var servers []string
	for _, s := range c.Servers {
		servers = append(servers, net.JoinHostPort(s, c.Port))
	}
	return servers
}

// serverAddress completes an IP address with the port of DNS.
func serverAddress(s string) (string, error) {
	if ip, err := netip.ParseAddr(s); err == nil {
		return netip.AddrPortFrom(ip, 53).String(), nil
	}
	ap, err := netip.ParseAddrPort(s)
	if err != nil {
		return "", (&fault.Error{Kind: fault.Invalid, Op: "dns.New", Err: err}).
			WithHint("Name a DNS server by IP address and port, as in 127.0.0.1:53.")
	}
	return ap.String(), nil
}
