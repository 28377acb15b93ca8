package dns

import (
	"context"
	"math/rand/v2"
	"net/netip"
	"strings"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sync/singleflight"

	"github.com/sallyport-mail/sallyport/internal/fault"
)

// maxChain is how many CNAME records are followed for one question.
const maxChain = 8

// resolver asks recursive servers.
type resolver struct {
	servers   []string
	local     map[string][]netip.Addr // names known without asking
	preferred atomic.Uint32           // index of the server that answered last
	timeout   time.Duration           // for one try at one server
	rounds    int                     // how often each server is tried
	cache     *cache
	flight    singleflight.Group
}

func newResolver(servers []string, local map[string][]netip.Addr) *resolver {
	return &resolver{servers: servers, local: local, timeout: 3 * time.Second, rounds: 2, cache: newCache(maxCacheCost, time.Now)}
}

// question is what is asked; the name is absolute and in lower case.
type question struct {
	name string
	kind uint16
}

// answer is what is known about a question: records or, when there are none,
// why. Errors of kind later are never kept.
type answer struct {
	records []dns.RR // of the type asked for only
	missing string   // "" when there are records
	ttl     time.Duration
}

// MX implements [Resolver].
func (r *resolver) MX(ctx context.Context, domain string) ([]MX, error) {
	records, ttl, err := r.records(ctx, "dns.MX", domain, dns.TypeMX)
	if err != nil {
		return nil, err
	}
	all := make([]MX, 0, len(records))
	for _, rr := range records {
		mx := rr.(*dns.MX)
		all = append(all, MX{Host: plainName(mx.Mx), Preference: mx.Preference, TTL: ttl})
	}
	return all, nil
}

// TXT implements [Resolver]. The strings of a record are joined (RFC 7208 3.3).
func (r *resolver) TXT(ctx context.Context, name string) ([]string, error) {
	records, _, err := r.records(ctx, "dns.TXT", name, dns.TypeTXT)
	if err != nil {
		return nil, err
	}
	all := make([]string, 0, len(records))
	for _, rr := range records {
		all = append(all, strings.Join(rr.(*dns.TXT).Txt, ""))
	}
	return all, nil
}

// PTR implements [Resolver].
func (r *resolver) PTR(ctx context.Context, a netip.Addr) ([]string, error) {
	name, err := dns.ReverseAddr(a.Unmap().WithZone("").String())
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, "dns.PTR", err)
	}
	records, _, err := r.records(ctx, "dns.PTR", name, dns.TypePTR)
	if err != nil {
		return nil, err
	}
	all := make([]string, 0, len(records))
	for _, rr := range records {
		all = append(all, plainName(rr.(*dns.PTR).Ptr))
	}
	return all, nil
}

// Addrs implements [Resolver]: both families are asked at once, and IPv6
// comes first, each family in random order. When one family fails the other's
// answer stands.
func (r *resolver) Addrs(ctx context.Context, host string) ([]netip.Addr, error) {
	if known := r.localAddrs(host); known != nil {
		return known, nil
	}
	type half struct {
		addrs []netip.Addr
		err   error
	}
	six := make(chan half, 1)
	go func() {
		a, err := r.family(ctx, host, dns.TypeAAAA)
		six <- half{a, err}
	}()
	v4, err4 := r.family(ctx, host, dns.TypeA)
	v6 := <-six
	switch {
	case len(v6.addrs)+len(v4) > 0:
		return append(v6.addrs, v4...), nil
	case fault.Is(v6.err, fault.Missing):
		return nil, err4 // missing as well, or what matters more
	default:
		return nil, v6.err
	}
}

// localAddrs answers for names that need no DNS: localhost always (RFC 6761
// 6.3), and those of the hosts file.
func (r *resolver) localAddrs(host string) []netip.Addr {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	if known := r.local[host]; known != nil {
		return append([]netip.Addr(nil), known...)
	}
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()}
	}
	return nil
}

func (r *resolver) family(ctx context.Context, host string, kind uint16) ([]netip.Addr, error) {
	records, _, err := r.records(ctx, "dns.Addrs", host, kind)
	if err != nil {
		return nil, err
	}
	all := make([]netip.Addr, 0, len(records))
	for _, rr := range records {
		if a, ok := recordAddr(rr); ok {
			all = append(all, a)
		}
	}
	rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	return all, nil
}

func recordAddr(rr dns.RR) (netip.Addr, bool) {
	switch rr := rr.(type) {
	case *dns.A:
		a, ok := netip.AddrFromSlice(rr.A.To4())
		return a, ok
	case *dns.AAAA:
		return netip.AddrFromSlice(rr.AAAA.To16())
	}
	return netip.Addr{}, false
}

// plainName is a name without the dot at its end, but for the root's.
func plainName(name string) string {
	if name == "." {
		return name
	}
	return strings.ToLower(strings.TrimSuffix(name, "."))
}

// records answers one question from the cache or the servers.
func (r *resolver) records(ctx context.Context, op, name string, kind uint16) ([]dns.RR, time.Duration, error) {
	if _, ok := dns.IsDomainName(name); !ok || name == "" {
		return nil, 0, fault.New(fault.Invalid, op, "not a domain name")
	}
	q := question{strings.ToLower(dns.Fqdn(name)), kind}
	a, ok := r.cache.get(q)
	if !ok {
		var err error
		if a, err = r.share(ctx, q); err != nil {
			return nil, 0, fault.Wrap(fault.Later, op, err)
		}
	}
	if a.missing != "" {
		return nil, 0, fault.New(fault.Missing, op, name+": "+a.missing)
	}
	return a.records, a.ttl, nil
}

// share lets all who ask the same wait for one query. That runs under a
// deadline of its own: the first asker may leave without harm to the others.
func (r *resolver) share(ctx context.Context, q question) (answer, error) {
	key := q.name + " " + dns.TypeToString[q.kind]
	done := r.flight.DoChan(key, func() (any, error) {
		limit := r.timeout * time.Duration(r.rounds*len(r.servers)+1)
		own, cancel := context.WithTimeout(context.WithoutCancel(ctx), limit)
		defer cancel()
		a, err := r.resolve(own, q)
		if err == nil {
			a = r.cache.put(q, a)
		}
		return a, err
	})
	select {
	case <-ctx.Done():
		return answer{}, ctx.Err()
	case res := <-done:
		if res.Err != nil {
			return answer{}, res.Err
		}
		return res.Val.(answer), nil
	}
}
