package tenant

import (
	"net/netip"
	"slices"
)

// Networks maps networks to values and finds the longest one that contains an
// address: one map look-up for each prefix length in use. The zero value is
// empty. It is for one writer or many readers at a time.
type Networks[V any] struct {
	v4, v6 family[V]
}

type family[V any] struct {
	bits []int // lengths in use, longest first
	nets map[netip.Prefix]V
}

// ParseNetwork reads an address or a network in CIDR form; bits below the mask
// are cleared and IPv4 addresses mapped into IPv6 become IPv4.
func ParseNetwork(s string) (netip.Prefix, bool) {
	if ip, err := netip.ParseAddr(s); err == nil && ip.Zone() == "" {
		ip = ip.Unmap()
		return netip.PrefixFrom(ip, ip.BitLen()), true
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return netip.Prefix{}, false
	}
	if p.Addr().Is4In6() {
		if p.Bits() < 96 {
			return netip.Prefix{}, false
		}
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	return p.Masked(), true
}

func (n *Networks[V]) of(ip netip.Addr) *family[V] {
	if ip.Is4() {
		return &n.v4
	}
	return &n.v6
}

// Put sets the value of a network as ParseNetwork returned it.
func (n *Networks[V]) Put(p netip.Prefix, v V) {
	f := n.of(p.Addr())
	if f.nets == nil {
		f.nets = make(map[netip.Prefix]V)
	}
	f.nets[p] = v
	if !slices.Contains(f.bits, p.Bits()) {
		f.bits = append(f.bits, p.Bits())
		slices.SortFunc(f.bits, func(a, b int) int { return b - a })
	}
}

// Delete removes a network.
func (n *Networks[V]) Delete(p netip.Prefix) {
	// A length that is no longer in use costs one look-up, no more.
	delete(n.of(p.Addr()).nets, p)
}

// Find returns the value of the longest network that contains ip.
func (n *Networks[V]) Find(ip netip.Addr) (v V, ok bool) {
	ip = ip.Unmap().WithZone("")
	f := n.of(ip)
	for _, bits := range f.bits {
		p, err := ip.Prefix(bits)
		if err != nil {
			continue
		}
		if v, ok = f.nets[p]; ok {
			return v, true
		}
	}
	return v, false
}

// Overlaps returns the values of all networks that share an address with p.
func (n *Networks[V]) Overlaps(p netip.Prefix) []V {
	var found []V
	for q, v := range n.of(p.Addr()).nets {
		if q.Overlaps(p) {
			found = append(found, v)
		}
	}
	return found
}

// Empty reports whether there are no networks at all.
func (n *Networks[V]) Empty() bool { return len(n.v4.nets) == 0 && len(n.v6.nets) == 0 }
