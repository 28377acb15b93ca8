package rfc2136

import (
	"context"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"

	"github.com/sallyport-mail/sallyport/internal/fault"
)

const (
	usualTTL    = 60 * time.Second
	mostTTL     = 24 * time.Hour
	usualSpread = 60 * time.Second
	mostSpread  = time.Hour
	port        = "53"
	tries       = 3 // of a removal
)

// Config is what an updater is made from. Addresses are host:port; without a
// port it is 53.
type Config struct {
	Server string // which takes the zone's updates
	Zone   string // that the records are in; "": the server is asked
	Key    Key
	TTL    time.Duration // of the records; 0 means 60 s
	// Resolvers are asked for what the server is not authoritative for: none
	// means those of /etc/resolv.conf.
	Resolvers []string
	// Check are the servers that have to show a record before a CA may look:
	// none means those that the zone names in NS records, on port 53.
	Check       []string
	Propagation time.Duration // how long to wait for them; 0 means 60 s
	Now         func() time.Time
}

// Updater publishes records and takes them away. It is safe for concurrent use.
type Updater struct {
	c    Config
	port string // of the servers in NS records

	mu     sync.Mutex
	places map[record]place // where what this process has sent may be
}

// record is one value, at the name by which the CA asks for it.
type record struct{ fqdn, value string }

// place is where a record is in truth.
type place struct{ name, zone string }

// New checks the settings; it asks no server yet.
func New(c Config) (*Updater, error) {
	const op = "rfc2136.New"
	var err error
	if c.Server, err = address(c.Server); err != nil {
		return nil, err
	}
	for _, list := range []*[]string{&c.Resolvers, &c.Check} {
		if *list, err = addresses(*list); err != nil {
			return nil, err
		}
	}
	if _, ok := dns.IsDomainName(c.Zone); c.Zone != "" && !ok {
		return nil, fault.New(fault.Invalid, op, "the zone is no domain name").WithHint("Name the zone that holds the challenges, or leave it out.")
	}
	if c.Zone != "" {
		c.Zone = dns.CanonicalName(c.Zone)
	}
	if len(c.Key.secret) == 0 {
		return nil, fault.New(fault.Invalid, op, "there is no key for DNS UPDATE").WithHint("Make one with tsig-keygen, and let the server know it.")
	}
	if c.TTL, err = within(op, "the TTL", c.TTL, usualTTL, mostTTL); err != nil {
		return nil, err
	}
	if c.Propagation, err = within(op, "the time of propagation", c.Propagation, usualSpread, mostSpread); err != nil {
		return nil, err
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return &Updater{c: c, port: port, places: map[record]place{}}, nil
}

func within(op, what string, d, usual, most time.Duration) (time.Duration, error) {
	if d == 0 {
		return usual, nil
	}
	if d < time.Second || d > most {
		return 0, fault.New(fault.Invalid, op, what+" is not between 1 s and "+most.String()).WithHint("Leave it out for the usual.")
	}
	return d, nil
}

func addresses(all []string) ([]string, error) {
	out := make([]string, 0, len(all))
	for _, one := range all {
		a, err := address(one)
		if err != nil {
			return nil, err
		}
		out = append(out, a)
	}
	return out, nil
}

// address completes a host with the port of DNS.
func address(text string) (string, error) {
	host, p, err := net.SplitHostPort(text)
	if err != nil {
		host, p = strings.TrimSuffix(strings.TrimPrefix(text, "["), "]"), port
	}
	_, name := dns.IsDomainName(host)
	_, bad := net.LookupPort("tcp", p)
	if host == "" || p == "" || bad != nil || net.ParseIP(host) == nil && (!name || strings.ContainsAny(host, ":[]/ ")) {
		return "", fault.New(fault.Invalid, "rfc2136.New", "a DNS server is not given by host and port").WithHint("Name it as in ns1.example.net:53 or [2001:db8::1]:53.")
	}
	return net.JoinHostPort(host, p), nil
}

// Publish adds a TXT record, at the name that a CNAME record leads to where
// there is one, and returns when every server that has to shows it. What of it
// came about when it fails is for Withdraw to end.
//
// Errors: denied when the server refuses for good, in the words of who runs it;
// later when a server is away, slow or answers nonsense, and when one does not
// show the record in time.
func (u *Updater) Publish(ctx context.Context, fqdn, value string) error {
	p, err := u.locate(ctx, fqdn)
	if err != nil {
		return err
	}
	waiting, err := u.holders(ctx, p.zone)
	if err != nil {
		return err
	}
	r := record{fqdn, value}
	u.mu.Lock()
	u.places[r] = p
	u.mu.Unlock()
	if err := u.update(ctx, p, value, true); err != nil {
		if !fault.Is(err, fault.Later) {
			u.forget(r) // it said no: there is nothing to take away
		}
		return err
	}
	return u.spread(ctx, p, value, waiting)
}

// Withdraw removes a record that Publish has sent, and no other; without such a
// one it does nothing. A server that is away is asked again until ctx ends, at
// most three times.
func (u *Updater) Withdraw(ctx context.Context, fqdn, value string) (err error) {
	r := record{fqdn, value}
	u.mu.Lock()
	p, sent := u.places[r]
	u.mu.Unlock()
	if !sent {
		return nil
	}
	defer u.forget(r)
	for n := range tries {
		if err = u.update(ctx, p, value, false); !fault.Is(err, fault.Later) || n == tries-1 {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(time.Second):
		}
	}
	return err
}

func (u *Updater) forget(r record) {
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.places, r)
}

// update adds or removes the one value (RFC 2136 2.5.1, 2.5.4).
func (u *Updater) update(ctx context.Context, p place, value string, add bool) error {
	txt := &dns.TXT{Hdr: dns.RR_Header{Name: p.name, Rrtype: dns.TypeTXT, Class: dns.ClassINET, Ttl: uint32(u.c.TTL.Seconds())}, Txt: []string{value}}
	m := new(dns.Msg).SetUpdate(p.zone)
	if add {
		m.Insert([]dns.RR{txt})
	} else {
		m.Remove([]dns.RR{txt})
	}
	answer, err := u.signed(ctx, m)
	if err != nil {
		return err
	}
	if answer.Rcode != dns.RcodeSuccess {
		return u.refusal(answer.Rcode, p)
	}
	return nil
}
