package deliver

import (
	"context"
	"hash/fnv"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/sallyport-mail/sallyport/internal/connection"
	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/mailauth/dns"
)

// defaultPool is the pool of tenants that name none.
const defaultPool = "default"

// egress is the pools by name.
type egress map[string]*pool

// pool is a Pool by address family.
type pool struct {
	name   string
	v4, v6 []Source
}

func newEgress(pools []Pool) egress {
	e := make(egress, len(pools))
	for _, p := range pools {
		q := &pool{name: p.Name}
		for _, s := range p.Sources {
			s.Address = s.Address.Unmap()
			if s.Address.Is4() {
				q.v4 = append(q.v4, s)
			} else {
				q.v6 = append(q.v6, s)
			}
		}
		e[p.Name] = q
	}
	return e
}

// poolOf is a tenant's pool. A pool that is named but not configured is a
// mistake that must not stop mail: the default pool serves, and the log tells.
func (d *Deliverer) poolOf(name string) *pool {
	want := defaultPool
	if t, ok := d.tenants.Tenant(name); ok && t.Settings.Egress != "" {
		want = t.Settings.Egress
	}
	if p := d.egress[want]; p != nil {
		return p
	}
	if want != defaultPool {
		d.log.LogAttrs(context.Background(), slog.LevelWarn, "egress pool is not configured, the default one is used",
			slog.String("tenant", name), slog.String("pool", want))
		if p := d.egress[defaultPool]; p != nil {
			return p
		}
	}
	return &pool{name: defaultPool}
}

// dress gives a candidate our side of the connection: source address and EHLO
// name. It is false when the pool has sources, but none of that family: mail
// must not leave from an address that the operator did not name. A tenant's
// mail to a host keeps to one source, for greylisting and reputation count by
// address.
func (p *pool) dress(c *connection.Candidate, tenant string) bool {
	if c.Target.Network == "unix" || len(p.v4)+len(p.v6) == 0 {
		return true
	}
	sources := p.v4
	if a, err := netip.ParseAddrPort(c.Target.Address); err == nil && a.Addr().Unmap().Is6() {
		sources = p.v6
	}
	if len(sources) == 0 {
		return false
	}
	h := fnv.New32a()
	_, _ = h.Write([]byte(tenant + "\x00" + c.Host)) // a hash does not fail
	s := sources[h.Sum32()%uint32(len(sources))]
	c.Target.Local = s.Address
	if s.Hello != "" {
		c.Target.Hello = s.Hello
	}
	return true
}

// Dress gives a candidate the source address and EHLO name that deliveries of
// the tenant's mail have: connection.Config.Dress.
func (d *Deliverer) Dress(c *connection.Candidate, tenant string) error {
	t, _ := d.tenants.Tenant(tenant)
	c.Target.Hello = d.hostname(t.Region)
	if p := d.poolOf(tenant); !p.dress(c, tenant) {
		return p.noSource(c.Host)
	}
	return nil
}

// noSource is the error about hosts that no source of the pool can reach.
func (p *pool) noSource(host string) error {
	return fault.New(fault.Later, "deliver.route", "no source address of the egress pool "+p.name+" has the address family of "+host).
		WithHint("Add a source address of that family to the pool.")
}

// CheckPools looks up forward-confirmed reverse DNS of each source (RFC 8499);
// one line per finding, for doctor.
func (d *Deliverer) CheckPools(ctx context.Context, r dns.Resolver) []string {
	var lines []string
	for _, name := range slices.Sorted(maps.Keys(d.egress)) {
		p := d.egress[name]
		for _, s := range slices.Concat(p.v4, p.v6) {
			if finding := checkSource(ctx, r, s); finding != "" {
				lines = append(lines, "egress pool "+name+", "+s.Address.String()+": "+finding)
			}
		}
	}
	return lines
}

// checkSource is what is wrong with one source, "" for nothing.
func checkSource(ctx context.Context, r dns.Resolver, s Source) string {
	if s.Hello == "" {
		return "no EHLO name is set; give it the name that its PTR record says"
	}
	if finding := confirms(ctx, r, s.Hello, s.Address); finding != "" {
		return "the EHLO name " + s.Hello + " " + finding
	}
	names, err := r.PTR(ctx, s.Address)
	if err != nil && !fault.Is(err, fault.Missing) {
		return "its PTR record could not be looked up: " + fault.Sentence(err)
	}
	if len(names) == 0 {
		return "it has no PTR record; ask whoever owns the address for one that says " + s.Hello
	}
	for _, n := range names {
		if strings.EqualFold(strings.TrimSuffix(n, "."), strings.TrimSuffix(s.Hello, ".")) {
			return ""
		}
	}
	for _, n := range names {
		if confirms(ctx, r, strings.TrimSuffix(n, "."), s.Address) == "" {
			return "its PTR record says " + n + ", the EHLO name is " + s.Hello + "; make them the same"
		}
	}
	return "its PTR record says " + names[0] + ", which does not lead back to the address"
}

// confirms looks up whether a name leads to an address, "" for yes.
func confirms(ctx context.Context, r dns.Resolver, name string, a netip.Addr) string {
	addrs, err := r.Addrs(ctx, name)
	switch {
	case err != nil && !fault.Is(err, fault.Missing):
		return "could not be looked up: " + fault.Sentence(err)
	case slices.ContainsFunc(addrs, func(b netip.Addr) bool { return b.Unmap() == a.Unmap() }):
		return ""
	case len(addrs) == 0:
		return "has no address record; publish one with " + a.String()
	default:
		return "leads to " + addrs[0].String() + ", not to this address"
	}
}
