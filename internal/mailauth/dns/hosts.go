package dns

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/sallyport-mail/sallyport/internal/fault"
)

// ErrNullMX is in the chain of the error about a domain that says that it takes
// no mail (RFC 7505). Unlike a domain that does not exist it is answered with
// a code of its own.
var ErrNullMX = errors.New("it has a null MX (RFC 7505)")

// Hosts returns the hosts that take a domain's mail, in the order in which
// they are to be tried: by preference, and at random among equals (RFC 5321
// 5.1). A domain without MX is its own host when it has an address. A null MX
// gives ErrNullMX, of kind never; a domain that has neither gives kind missing.
func Hosts(ctx context.Context, r Resolver, domain string) ([]MX, error) {
	all, err := r.MX(ctx, domain)
	if fault.Is(err, fault.Missing) {
		return implicitMX(ctx, r, domain)
	}
	if err != nil {
		return nil, err
	}
	hosts := slices.DeleteFunc(slices.Clone(all), func(m MX) bool { return m.Host == "." || m.Host == "" })
	if len(hosts) == 0 {
		return nil, &fault.Error{Kind: fault.Never, Op: "dns.Hosts", Err: fmt.Errorf("%s takes no mail: %w", domain, ErrNullMX),
			Hint: "Write to another address; this domain says that it never receives mail."}
	}
	rand.Shuffle(len(hosts), func(i, j int) { hosts[i], hosts[j] = hosts[j], hosts[i] })
	slices.SortStableFunc(hosts, func(a, b MX) int { return cmp.Compare(a.Preference, b.Preference) })
	return hosts, nil
}

// implicitMX is the host that a domain without MX records is (RFC 5321 5.1).
func implicitMX(ctx context.Context, r Resolver, domain string) ([]MX, error) {
	if _, err := r.Addrs(ctx, domain); err != nil {
		if fault.Is(err, fault.Missing) {
			return nil, fault.New(fault.Missing, "dns.Hosts", domain+" has neither an MX record nor an address").
				WithHint("Check the domain for mistakes.")
		}
		return nil, err
	}
	return []MX{{Host: plainName(domain), TTL: minTTL}}, nil
}

// readHosts reads a hosts file (hosts(5)); what it can't read is not there.
func readHosts(path string) map[string][]netip.Addr {
	f, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer f.Close()
	known := make(map[string][]netip.Addr)
	for lines := bufio.NewScanner(f); lines.Scan(); {
		line, _, _ := strings.Cut(lines.Text(), "#")
		words := strings.Fields(line)
		if len(words) < 2 {
			continue
		}
		ip, err := netip.ParseAddr(words[0])
		if err != nil {
			continue
		}
		for _, name := range words[1:] {
			name = plainName(name)
			known[name] = append(known[name], ip)
		}
	}
	return known
}
