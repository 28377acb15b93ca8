package rfc2136

import (
	"context"
	"errors"
	"net"
	"strings"

	"github.com/miekg/dns"

	"github.com/sallyport-mail/sallyport/internal/fault"
)

const (
	maxChain   = 8 // CNAME records in a row
	resolvConf = "/etc/resolv.conf"
)

// locate finds where the record of a challenge goes: the name to which CNAME
// records lead, and its zone.
func (u *Updater) locate(ctx context.Context, fqdn string) (place, error) {
	if _, ok := dns.IsDomainName(fqdn); !ok {
		return place{}, fault.New(fault.Invalid, "rfc2136.Locate", "the name of the challenge is no domain name").WithHint("Use a shorter name.")
	}
	name, err := u.follow(ctx, dns.CanonicalName(fqdn))
	if err != nil {
		return place{}, err
	}
	zone, err := u.zone(ctx, name)
	return place{name, zone}, err
}

// follow is the name at the end of a chain of CNAME records.
func (u *Updater) follow(ctx context.Context, name string) (string, error) {
	first := name
	for range maxChain {
		r, err := u.ask(ctx, name, dns.TypeCNAME)
		if err != nil {
			return "", err
		}
		next := ""
		for _, rr := range r.Answer {
			if c, ok := rr.(*dns.CNAME); ok && dns.CanonicalName(c.Hdr.Name) == name {
				next = dns.CanonicalName(c.Target)
			}
		}
		if next == "" {
			return name, nil
		}
		name = next
	}
	return "", fault.New(fault.Denied, "rfc2136.Locate", "the CNAME records at "+strings.TrimSuffix(first, ".")+" do not come to an end").
		WithHint("Let it lead to the name of the challenge at once.")
}

// zone is the zone that a name is in: the one of the settings, else the one
// whose SOA record the server shows, which it does of a name without one too (RFC
// 2308 3). Below a zone cut it is not authoritative, and shows none.
func (u *Updater) zone(ctx context.Context, name string) (string, error) {
	const op = "rfc2136.Locate"
	shown := strings.TrimSuffix(name, ".")
	if u.c.Zone != "" {
		if dns.IsSubDomain(u.c.Zone, name) {
			return u.c.Zone, nil
		}
		return "", fault.New(fault.Denied, op, shown+" is not in the zone "+strings.TrimSuffix(u.c.Zone, ".")+" of the settings").
			WithHint("Let a CNAME record at " + shown + " lead into that zone, or name another zone.")
	}
	r, err := u.signed(ctx, new(dns.Msg).SetQuestion(name, dns.TypeSOA))
	if err != nil {
		return "", err
	}
	if apex := apexOf(r, name); apex != "" {
		return apex, nil
	}
	return "", fault.New(fault.Denied, op, "the DNS server "+u.c.Server+" is not authoritative for "+shown).
		WithHint("Name the primary server of its zone in server, or let a CNAME record at " + shown + " lead into a zone of this one.")
}

// apexOf is the zone of which an authoritative answer shows the SOA record.
func apexOf(r *dns.Msg, name string) string {
	if !authoritative(r) {
		return ""
	}
	for _, rr := range append(r.Answer, r.Ns...) {
		if s, ok := rr.(*dns.SOA); ok && dns.IsSubDomain(s.Hdr.Name, name) && s.Hdr.Name != "." {
			return dns.CanonicalName(s.Hdr.Name)
		}
	}
	return ""
}

func authoritative(r *dns.Msg) bool {
	return r.Authoritative && (r.Rcode == dns.RcodeSuccess || r.Rcode == dns.RcodeNameError)
}

// ask asks the server that takes updates, which knows of no cache, and where it
// is not authoritative the resolvers.
func (u *Updater) ask(ctx context.Context, name string, kind uint16) (*dns.Msg, error) {
	r, err := u.signed(ctx, new(dns.Msg).SetQuestion(name, kind))
	if err != nil || authoritative(r) {
		return r, err
	}
	for _, server := range u.resolvers() {
		m := new(dns.Msg).SetQuestion(name, kind)
		m.RecursionDesired = true
		r, err = exchange(ctx, server, m, nil)
		if err == nil && (r.Rcode == dns.RcodeSuccess || r.Rcode == dns.RcodeNameError) {
			return r, nil
		}
		if err == nil {
			err = errors.New("it says " + rcodeName(r.Rcode))
		}
		err = errors.New("the DNS resolver " + server + " could not be asked for " + strings.TrimSuffix(name, ".") + ": " + reason(err))
	}
	return nil, (&fault.Error{Kind: fault.Later, Op: "rfc2136.Ask", Err: err}).
		WithHint("Name a resolver that takes TCP from here in resolvers.")
}

// resolvers are those of the settings, else the system's at this moment.
func (u *Updater) resolvers() []string {
	if len(u.c.Resolvers) > 0 {
		return u.c.Resolvers
	}
	c, err := dns.ClientConfigFromFile(resolvConf)
	if err != nil || len(c.Servers) == 0 {
		return []string{net.JoinHostPort("127.0.0.1", port)} // as the C library does: resolv.conf(5)
	}
	var all []string
	for _, s := range c.Servers {
		all = append(all, net.JoinHostPort(s, c.Port))
	}
	return all
}
