package main

import (
	"net"
	"net/netip"
	"strconv"

	"github.com/sallyport-mail/sallyport/internal/connection"
	"github.com/sallyport-mail/sallyport/internal/deliver"
	"github.com/sallyport-mail/sallyport/internal/fault"
)

// pools are the egress pools of the settings.
func (c config) pools() ([]deliver.Pool, error) {
	var out []deliver.Pool
	for _, p := range c.Delivery.Pools {
		pool := deliver.Pool{Name: p.Name}
		for _, s := range p.Sources {
			a, err := netip.ParseAddr(s.Address)
			if err != nil {
				return nil, fault.New(fault.Invalid, "", "pool "+p.Name+": "+s.Address+" is not an address")
			}
			pool.Sources = append(pool.Sources, deliver.Source{Address: a, Hello: s.Hello})
		}
		out = append(out, pool)
	}
	return out, nil
}

// dress gives a connection's test our side of deliveries. Nothing is tested
// before the API is there, and so the deliverer.
func (g *gateway) dress(c *connection.Candidate, tenant string) error {
	return g.deliverer.Dress(c, tenant)
}

// isOurs tells the addresses that an MX must not lead to: this machine's, when
// one of our listeners has the port that MX hosts are talked to on.
func (c config) isOurs() func(netip.Addr) bool {
	if !c.listensOn(orDefault(c.DNS.MXPort, 25)) {
		return func(netip.Addr) bool { return false }
	}
	own := map[netip.Addr]bool{}
	addrs, _ := net.InterfaceAddrs() // without them only loopback is known
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			own[p.Addr().Unmap()] = true
		}
	}
	return func(a netip.Addr) bool { return a.IsLoopback() || own[a.Unmap()] }
}

func (c config) listensOn(port int) bool {
	for _, l := range c.Listeners {
		if _, p, err := net.SplitHostPort(l.Address); err == nil && p == strconv.Itoa(port) {
			return true
		}
	}
	return false
}
