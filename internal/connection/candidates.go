package connection

import (
	"cmp"
	"context"
	"crypto/tls"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/smtp"
)

// Bounds on what one domain's DNS can make us do.
const (
	maxTriedHosts = 20
	maxAddresses  = 8 // of one host
)

// Candidate is one way to reach a destination: what to dial and by which rule.
type Candidate struct {
	Host               string // name, for the trace
	Target             smtp.Target
	Rule               string // one of the TLS rules
	Pins               []string
	User               string // AUTH user, "" for none
	Auth               string // how it authenticates
	Tenant, Connection string
	// Identity is the certificate that a partner with mutual TLS is shown, nil
	// for others: what Target.Config gives out in the handshake.
	Identity func(context.Context) (*tls.Certificate, error)
}

// Verified reports whether a session over this candidate proved who the peer
// is, by a chain and name or by a pin. The state is nil in clear.
func (c Candidate) Verified(s *tls.ConnectionState) bool {
	return s != nil && (c.Rule == TLSVerified || c.Rule == TLSMutual || len(c.Pins) > 0)
}

// stop is a host of a route with where it stands in the order.
type stop struct {
	host     string
	port     int
	priority int
	weight   int
	addrs    []netip.Addr
}

// Candidates lists the hosts of a route in the order to try them (priority,
// then weight at random; MX preference for the internet), resolved to
// addresses, IPv6 and IPv4. hello is our EHLO name, local the source address
// (zero for any).
//
// Kind never means that the internet says so; whatever is wrong with a
// tenant's connection is kind later, since its mail is to wait for the repair.
func (r *Registry) Candidates(ctx context.Context, tenant, destination, domain, hello string, local netip.Addr) ([]Candidate, error) {
	const op = "connection.Candidates"
	owner, name, ok := parseDestination(destination)
	if !ok {
		if !isInternet(destination) {
			return nil, fault.New(fault.Internal, op, "destination "+destination+" is of no known form")
		}
		list, err := r.internet(ctx, domain, hello, local)
		return list, wrap(op, err)
	}
	// The wall: a message goes through its own tenant's connections only.
	if owner != tenant {
		return nil, fault.New(fault.Internal, op, "destination "+destination+" is not one of tenant "+tenant)
	}
	e := r.entry(owner, name)
	switch {
	case e == nil:
		return nil, fault.New(fault.Later, op, "connection "+name+" was removed").
			WithHint("Send the mail another way: sallyport queue reroute.")
	case !e.enabled():
		return nil, disabled(op, e)
	}
	list, err := r.own(ctx, e, domain, hello, local)
	if err != nil {
		return nil, &fault.Error{Kind: fault.Later, Op: op, Err: err, Hint: fault.HintOf(err)}
	}
	return list, nil
}

// own lists the candidates of a tenant's connection.
func (r *Registry) own(ctx context.Context, e *entry, domain, hello string, local netip.Addr) ([]Candidate, error) {
	stops, err := r.ownStops(ctx, e, domain)
	if err != nil {
		return nil, err
	}
	base := Candidate{Rule: e.TLS, Pins: e.Pins, User: e.User, Auth: e.Auth, Tenant: e.Tenant, Connection: e.Name}
	if e.TLS == TLSMutual {
		base.Identity = func(ctx context.Context) (*tls.Certificate, error) {
			return r.c.Signers.ClientCertificate(ctx, e.Tenant, e.Name)
		}
	}
	return r.spread(stops, local, func(s stop) Candidate {
		c := base
		c.Target = smtp.Target{Hello: hello, LMTP: e.LMTP, TLS: mode(e.TLS), Config: r.entryTLS(e, s.host)}
		return c
	})
}

func (r *Registry) ownStops(ctx context.Context, e *entry, domain string) ([]stop, error) {
	if e.MX {
		return r.mxStops(ctx, cmp.Or(e.Host, domain), e.Port)
	}
	stops := make([]stop, 0, len(e.Hosts))
	for _, h := range e.Hosts {
		stops = append(stops, stop{host: h.Host, port: h.Port, priority: h.Priority, weight: h.Weight})
	}
	stops = shuffle(stops)
	return r.resolve(ctx, stops)
}

// shuffle puts stops in order of priority, and among equals by weight at
// random as RFC 2782 has it.
func shuffle(stops []stop) []stop {
	slices.SortStableFunc(stops, func(a, b stop) int { return cmp.Compare(a.priority, b.priority) })
	for from := 0; from < len(stops); {
		to := from
		for to < len(stops) && stops[to].priority == stops[from].priority {
			to++
		}
		for ; from < to; from++ {
			i := from + draw(stops[from:to])
			stops[from], stops[i] = stops[i], stops[from]
		}
	}
	return stops
}

// draw picks one by weight; those of weight zero have a very small chance.
func draw(stops []stop) int {
	const scale = 1000
	total := 0
	for _, s := range stops {
		total += s.weight*scale + 1
	}
	n := rand.IntN(total)
	for i, s := range stops {
		if n -= s.weight*scale + 1; n < 0 {
			return i
		}
	}
	return len(stops) - 1
}

// internet lists the candidates of a domain's MX set: encrypted when offered,
// nobody verified, for anything else would not be delivered (RFC 7435).
func (r *Registry) internet(ctx context.Context, domain, hello string, local netip.Addr) ([]Candidate, error) {
	stops, err := r.mxStops(ctx, domain, cmp.Or(r.c.MXPort, smtpPort))
	if fault.Is(err, fault.Missing) {
		return nil, fault.Wrap(fault.Never, "", err)
	}
	if err != nil {
		return nil, err
	}
	return r.spread(stops, local, func(s stop) Candidate {
		config := peerTLS(peer{rule: TLSOpportunistic, name: s.host})
		return Candidate{
			Rule:   TLSOpportunistic,
			Target: smtp.Target{Hello: hello, TLS: smtp.TLSOpportunistic, Config: config},
		}
	})
}

// mxStops are the exchangers of a domain with their addresses, without those
// that would lead back to us.
func (r *Registry) mxStops(ctx context.Context, domain string, port int) ([]stop, error) {
	hosts, err := r.exchangers(ctx, domain)
	if err != nil {
		return nil, err
	}
	stops := make([]stop, 0, len(hosts))
	for _, h := range hosts[:min(len(hosts), maxTriedHosts)] {
		stops = append(stops, stop{host: h.Host, port: port, priority: int(h.Preference)})
	}
	if stops, err = r.resolve(ctx, stops); err != nil {
		return nil, err
	}
	return r.dropLoop(domain, stops)
}

// dropLoop drops ourselves and everything that comes after us (RFC 5321 5.1):
// such a host would only hand the message back. A domain of our own tenants
// may lead to us: it comes in like anybody's and leaves by its connection.
func (r *Registry) dropLoop(domain string, stops []stop) ([]stop, error) {
	if _, ours := r.c.Tenants.Domain(domain); ours || r.c.IsLocal == nil {
		return stops, nil
	}
	limit := -1
	for _, s := range stops {
		if slices.ContainsFunc(s.addrs, r.c.IsLocal) && (limit < 0 || s.priority < limit) {
			limit = s.priority
		}
	}
	if limit < 0 {
		return stops, nil
	}
	stops = slices.DeleteFunc(stops, func(s stop) bool { return s.priority >= limit })
	if len(stops) == 0 {
		return nil, fault.New(fault.Never, "", "the MX of "+domain+" is this gateway, which has no such domain").
			WithHint("Add the domain to its tenant, or correct its MX record.")
	}
	return stops, nil
}

// resolve looks up every host. Hosts without an address are left out; the
// error is theirs when none is left.
func (r *Registry) resolve(ctx context.Context, stops []stop) ([]stop, error) {
	var failed, gone error
	good := make([]stop, 0, len(stops))
	for _, s := range stops {
		addrs, err := r.addresses(ctx, s.host)
		switch {
		case fault.Is(err, fault.Missing):
			gone = cmp.Or(gone, err)
		case err != nil:
			failed = cmp.Or(failed, err)
		default:
			s.addrs = addrs[:min(len(addrs), maxAddresses)]
			good = append(good, s)
		}
	}
	switch {
	case len(good) > 0:
		return good, nil
	case failed != nil:
		return nil, failed
	case gone != nil:
		return nil, gone
	}
	return nil, fault.New(fault.Missing, "", "no host is named")
}

// addresses are those of a host name, an IP address, or localhost.
func (r *Registry) addresses(ctx context.Context, host string) ([]netip.Addr, error) {
	if ip, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{ip}, nil
	}
	if strings.EqualFold(host, "localhost") {
		return []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()}, nil
	}
	all, err := r.c.Resolver.Addrs(ctx, host)
	if err != nil {
		return nil, err
	}
	usable := slices.DeleteFunc(slices.Clone(all), func(ip netip.Addr) bool { return ip.IsUnspecified() || ip.IsMulticast() })
	if len(usable) == 0 {
		return nil, fault.New(fault.Missing, "dns.Addrs", host+" has no address that can be used")
	}
	return usable, nil
}

// spread makes a candidate of each address that the source address can reach.
func (r *Registry) spread(stops []stop, local netip.Addr, make func(stop) Candidate) ([]Candidate, error) {
	var list []Candidate
	for _, s := range stops {
		c := make(s)
		c.Host, c.Target.Local, c.Target.Timeouts = s.host, local, r.c.Timeouts
		for _, ip := range s.addrs {
			if local.IsValid() && local.Unmap().Is4() != ip.Unmap().Is4() {
				continue
			}
			c.Target.Address = net.JoinHostPort(ip.Unmap().String(), strconv.Itoa(s.port))
			list = append(list, c)
		}
	}
	if len(list) == 0 {
		return nil, fault.New(fault.Later, "", "no host has an address that the source address "+local.String()+" can reach").
			WithHint("Give the egress pool a source address of the other IP version too.")
	}
	return list, nil
}

// mode is how the wire uses TLS by a rule.
func mode(rule string) smtp.TLSMode {
	switch rule {
	case TLSNone:
		return smtp.TLSNone
	case TLSOpportunistic:
		return smtp.TLSOpportunistic
	default:
		return smtp.TLSRequired
	}
}
