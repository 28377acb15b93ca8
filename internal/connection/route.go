package connection

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/mailauth/dns"
)

// Prefixes of the queue's keys.
const (
	toTenant = "t:"      // t:<tenant>:<connection>
	toMX     = "mx:"     // mx:<host>,<host>
	toDomain = "domain:" // domain:<domain>
)

// maxKey is the longest key that lists its hosts.
const maxKey = 200

// Route says where a message for a domain goes.
type Route struct {
	Destination string // the queue's key: "t:<tenant>:<connection>", "mx:<host>,<host>" or "domain:<domain>"
	Connection  string // the tenant's connection, "" for the internet
	MaxSize     int64  // the SIZE that the far end was last seen to offer, 0 unknown
	UTF8        bool   // the far end was last seen to offer SMTPUTF8, or nothing is known
}

// offer is what a far end was last seen to offer.
type offer struct {
	maxSize int64
	utf8    bool
}

// maxOffers bounds what is remembered of destinations.
const maxOffers = 50_000

// offers remembers offers by destination.
type offers struct {
	mu   sync.RWMutex
	seen map[string]offer
}

func (o *offers) get(destination string) offer {
	o.mu.RLock()
	defer o.mu.RUnlock()
	if f, ok := o.seen[destination]; ok {
		return f
	}
	return offer{utf8: true}
}

func (o *offers) put(destination string, f offer) {
	o.mu.RLock()
	have, ok := o.seen[destination]
	o.mu.RUnlock()
	if ok && have == f {
		return // the rule: it is told at every connection
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.seen) >= maxOffers {
		o.seen = nil // learnt again at the next connection
	}
	if o.seen == nil {
		o.seen = make(map[string]offer)
	}
	o.seen[destination] = f
}

// Offered remembers what a far end offers, for Route.
func (r *Registry) Offered(destination string, maxSize int64, utf8 bool) {
	r.offers.put(destination, offer{maxSize, utf8})
}

func (r *Registry) route(destination, connection string) Route {
	f := r.offers.get(destination)
	return Route{Destination: destination, Connection: connection, MaxSize: f.maxSize, UTF8: f.utf8}
}

func (r *Registry) find(tenant, domain string, outbound bool) *entry {
	r.mu.RLock()
	defer r.mu.RUnlock()
	t := r.tenants[tenant]
	switch {
	case t == nil:
		return nil
	case outbound:
		return t.outbound.find(domain)
	default:
		return t.inbound.find(domain)
	}
}

// Inbound is the route to the tenant's own system for one of its domains; kind
// later when there is none yet.
func (r *Registry) Inbound(tenant, domain string) (Route, error) {
	const op = "connection.Inbound"
	e := r.find(tenant, domain, false)
	switch {
	case e == nil:
		return Route{}, fault.New(fault.Later, op, "no connection takes mail for "+domain+" yet").
			WithHint("Add one: sallyport connection add " + tenant + " NAME --kind smtp --host HOST.")
	case !e.enabled():
		return Route{}, disabled(op, e)
	}
	return r.route(e.destination, e.Name), nil
}

func disabled(op string, e *entry) error {
	return fault.New(fault.Later, op, "connection "+e.Name+" is disabled").
		WithHint("Enable it: sallyport connection enable " + e.Tenant + " " + e.Name + ".")
}

// Outbound is the route to the internet: the tenant's smart host when it has
// an outbound connection with hosts, else the MX set of the domain, looked up
// within ctx; a domain that cannot be looked up in time gets the key
// "domain:<domain>", one that does not exist or has a null MX (IsNullMX) kind never. A
// smart host that is disabled is kind later: its mail does not go around it.
func (r *Registry) Outbound(ctx context.Context, tenant, domain string) (Route, error) {
	const op = "connection.Outbound"
	if e := r.find(tenant, domain, true); e != nil {
		if !e.enabled() {
			return Route{}, disabled(op, e)
		}
		return r.route(e.destination, e.Name), nil
	}
	hosts, err := r.exchangers(ctx, domain)
	switch fault.KindOf(err) {
	case fault.Never:
		return Route{}, wrap(op, err)
	case fault.Missing:
		return Route{}, fault.Wrap(fault.Never, op, err)
	}
	if err != nil {
		return r.route(toDomain+domain, ""), nil
	}
	return r.route(mxKey(hosts), ""), nil
}

// IsNullMX reports the error about a domain that says that it takes no mail.
// It has a reply code of its own (RFC 7504 4, RFC 7505 6), for edge to give at
// RCPT and deliver to note when the record has appeared since.
func IsNullMX(err error) bool { return fault.Is(err, fault.Never) && errors.Is(err, dns.ErrNullMX) }

// exchangers are the hosts of a domain, or the address that a literal is
// (RFC 5321 4.1.3).
func (r *Registry) exchangers(ctx context.Context, domain string) ([]dns.MX, error) {
	if ip, ok := literal(domain); ok {
		return []dns.MX{{Host: ip.String()}}, nil
	}
	return dns.Hosts(ctx, r.c.Resolver, domain)
}

// literal reads the domain part [192.0.2.1] or [IPv6:2001:db8::1].
func literal(domain string) (netip.Addr, bool) {
	in, ok := strings.CutPrefix(domain, "[")
	if !ok {
		return netip.Addr{}, false
	}
	in = strings.TrimPrefix(strings.TrimSuffix(in, "]"), "IPv6:")
	ip, err := netip.ParseAddr(in)
	return ip, err == nil
}

// mxKey names a set of hosts: domains with the same set share a destination,
// its connections and its back-off.
func mxKey(hosts []dns.MX) string {
	names := make([]string, 0, len(hosts))
	for _, h := range hosts {
		names = append(names, strings.ToLower(strings.TrimSuffix(h.Host, ".")))
	}
	names = sortedSet(names)
	key := toMX + strings.Join(names, ",")
	if len(key) <= maxKey {
		return key
	}
	sum := sha256.Sum256([]byte(key))
	return toMX + names[0] + "#" + hex.EncodeToString(sum[:8])
}

// parseDestination takes a key apart: the tenant's connection, or false for
// the internet.
func parseDestination(key string) (tenant, name string, ok bool) {
	rest, ok := strings.CutPrefix(key, toTenant)
	if !ok {
		return "", "", false
	}
	return cut(rest)
}

func cut(s string) (before, after string, ok bool) { return strings.Cut(s, ":") }

// isInternet reports a key of the internet's.
func isInternet(key string) bool {
	return slices.ContainsFunc([]string{toMX, toDomain}, func(p string) bool { return strings.HasPrefix(key, p) })
}

// Destination is the queue's key of a tenant's connection.
func Destination(tenant, name string) string { return toTenant + tenant + ":" + name }
