package edge

import (
	"net/netip"
	"time"
)

// Limits of the dialogue; a zero field means its default, a negative one none.
type Limits struct {
	ConnectionsPerIP           int // concurrent; default 50. An IPv6 client is its /64
	ConnectionsPerNetwork      int // concurrent, IPv4 /24 and IPv6 /48; default 200
	ConnectsPerIPMinute        int // default 600
	ConnectsPerNetworkMinute   int // default 2400
	MessagesPerIPMinute        int // default 1200
	MessagesPerNetworkMinute   int // default 4800
	RecipientsPerIPMinute      int // default 6000, refused ones included
	RecipientsPerNetworkMinute int // default 24000
	MessagesPerListenerMinute  int // of all clients together; default none
	AuthFailuresPerIPMinute    int // default 10
	UnknownPerSession          int // refused recipients before 421; default 20
	HeaderFields               int // default 1000
	HeaderBytes                int // default 256 KiB
	MaxReceived                int // default 50: loop
}

const none = -1

// onLoopback leaves the rates that nobody set without a limit: what connects
// from this very machine is a filter or a balancer that speaks for everybody,
// or the operator himself. Connections at a time stay limited.
func (l Limits) onLoopback() Limits {
	for _, f := range []*int{
		&l.ConnectsPerIPMinute, &l.MessagesPerIPMinute, &l.RecipientsPerIPMinute,
		&l.ConnectsPerNetworkMinute, &l.MessagesPerNetworkMinute, &l.RecipientsPerNetworkMinute,
	} {
		if *f == 0 {
			*f = none
		}
	}
	return l.withDefaults()
}

func (l Limits) withDefaults() Limits {
	for _, f := range []struct {
		field *int
		value int
	}{
		{&l.ConnectionsPerIP, 50},
		{&l.ConnectionsPerNetwork, 200},
		{&l.ConnectsPerIPMinute, 600},
		{&l.ConnectsPerNetworkMinute, 2400},
		{&l.MessagesPerIPMinute, 1200},
		{&l.MessagesPerNetworkMinute, 4800},
		{&l.RecipientsPerIPMinute, 6000},
		{&l.RecipientsPerNetworkMinute, 24000},
		{&l.MessagesPerListenerMinute, none},
		{&l.AuthFailuresPerIPMinute, 10},
		{&l.UnknownPerSession, 20},
		{&l.HeaderFields, 1000},
		{&l.HeaderBytes, 256 << 10},
		{&l.MaxReceived, 50},
	} {
		if *f.field == 0 {
			*f.field = f.value
		}
	}
	return l
}

// client is an address as the limits see it.
type client struct {
	ip      netip.Addr
	text    string
	host    netip.Addr   // the address, of IPv6 the first of its /64: one customer
	network netip.Prefix // IPv4 /24, IPv6 /48; on loopback the address alone
	local   bool         // on loopback
}

func clientOf(remote netip.AddrPort) client {
	ip := remote.Addr().Unmap().WithZone("")
	c := client{ip: ip, text: ip.String(), host: ip, local: ip.IsLoopback()}
	switch {
	case c.local:
		c.network = mask(ip, ip.BitLen())
	case ip.Is6():
		c.host = mask(ip, 64).Addr()
		c.network = mask(ip, 48)
	default:
		c.network = mask(ip, 24)
	}
	return c
}

// mask never fails for a valid address; for the invalid one of a peer without
// an IP (a pipe in a test) it is the zero Prefix.
func mask(ip netip.Addr, bits int) netip.Prefix {
	p, _ := ip.Prefix(bits)
	return p
}

// account names what a tenant or a listener spends.
type account struct {
	what accountKind
	name string
}

type accountKind uint8

const (
	inboundOf accountKind = iota
	outboundOf
	submissionsOf
	listenerOf
)

// clientLimits are the counters of all limits. Their memory is bounded: see
// table.
type clientLimits struct {
	limits   Limits
	loopback Limits
	hosts    *table[netip.Addr]
	networks *table[netip.Prefix]
	accounts *table[account]
}

func newClientLimits(l Limits) *clientLimits {
	return &clientLimits{
		limits:   l.withDefaults(),
		loopback: l.onLoopback(),
		hosts:    newTable[netip.Addr](),
		networks: newTable[netip.Prefix](),
		accounts: newTable[account](),
	}
}

func (x *clientLimits) of(c client) *Limits {
	if c.local {
		return &x.loopback
	}
	return &x.limits
}

// enter counts a connection in; the sentence says why not, "" for yes. A
// connection that was counted in must leave.
func (x *clientLimits) enter(c client, now time.Time) string {
	t, l := now.UnixMicro(), x.of(c)
	if !x.networks.enter(c.network, t, l.ConnectionsPerNetwork, l.ConnectsPerNetworkMinute) {
		return "Too many connections from your network, try again later"
	}
	if !x.hosts.enter(c.host, t, l.ConnectionsPerIP, l.ConnectsPerIPMinute) {
		x.networks.leave(c.network)
		return "Too many connections from your address, try again later"
	}
	return ""
}

func (x *clientLimits) leave(c client) {
	x.hosts.leave(c.host)
	x.networks.leave(c.network)
}

// message counts a MAIL of a client.
func (x *clientLimits) message(c client, now time.Time) bool {
	t, l := now.UnixMicro(), x.of(c)
	return x.hosts.spend(c.host, t, rateMessages, l.MessagesPerIPMinute) &&
		x.networks.spend(c.network, t, rateMessages, l.MessagesPerNetworkMinute)
}

// recipient counts a RCPT of a client.
func (x *clientLimits) recipient(c client, now time.Time) bool {
	t, l := now.UnixMicro(), x.of(c)
	return x.hosts.spend(c.host, t, rateRecipients, l.RecipientsPerIPMinute) &&
		x.networks.spend(c.network, t, rateRecipients, l.RecipientsPerNetworkMinute)
}

// listener counts a MAIL on a listener.
func (x *clientLimits) listener(name string, now time.Time) bool {
	if x.limits.MessagesPerListenerMinute < 0 {
		return true
	}
	return x.accounts.spend(account{listenerOf, name}, now.UnixMicro(), rateMessages, x.limits.MessagesPerListenerMinute)
}

// mayAuth reports whether a client has not failed too often, authFailed
// counts a failure.
func (x *clientLimits) mayAuth(c client, now time.Time) bool {
	return x.hosts.left(c.host, now.UnixMicro(), rateFailures, x.limits.AuthFailuresPerIPMinute)
}

func (x *clientLimits) authFailed(c client, now time.Time) {
	x.hosts.spend(c.host, now.UnixMicro(), rateFailures, x.limits.AuthFailuresPerIPMinute)
}

// tenant counts n-th use of a tenant's rate; perMinute 0 is no limit, as in
// tenant.Settings.
func (x *clientLimits) tenant(a account, r rate, now time.Time, perMinute int) bool {
	if perMinute <= 0 {
		return true
	}
	return x.accounts.spend(a, now.UnixMicro(), r, perMinute)
}
