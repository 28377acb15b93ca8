package connection

import (
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/mail"
	"github.com/sallyport-mail/sallyport/internal/tenant"
)

const (
	smtpPort           = 25
	lmtpPort           = 24
	defaultConcurrency = 20
	maxConcurrency     = 1000
	maxHosts           = 20
	maxClaims          = 1000 // of one kind, on one connection
)

// checker brings a connection into its stored form, and says what is wrong
// with it in the words of whoever wrote it.
type checker struct {
	op  string
	e   *entry
	err error
}

func invalid(op, text, hint string) error {
	return fault.New(fault.Invalid, op, text).WithHint(hint)
}

func (k *checker) refuse(text, hint string) {
	if k.err == nil {
		k.err = invalid(k.op, text, hint)
	}
}

// check returns the entry of a connection.
func check(op string, c Connection) (*entry, error) {
	k := &checker{op: op, e: &entry{Connection: c}}
	for _, step := range []func(){
		k.names, k.direction, k.hosts, k.microsoft, k.rule, k.issuer, k.pins, k.ca, k.auth, k.domains, k.networks, k.certificates, k.originators, k.purpose, k.concurrency,
	} {
		if step(); k.err != nil {
			return nil, k.err
		}
	}
	k.e.destination = Destination(c.Tenant, c.Name)
	k.e.found = new(atomic.Pointer[string])
	k.e.makeClaims()
	return k.e, nil
}

func (k *checker) names() {
	if err := tenant.CheckSlug(k.op, "connection", k.e.Name); err != nil {
		k.err = err
		return
	}
	switch k.e.Kind {
	case "":
		k.e.Kind = KindSMTP
	case KindSMTP, KindM365:
	default:
		k.refuse(fmt.Sprintf("kind %q is not supported by this version", k.e.Kind), "Give the kind smtp or m365.")
	}
}

func (k *checker) direction() {
	switch k.e.Direction {
	case "":
		k.e.Direction = DirectionInbound
	case DirectionInbound, DirectionOutbound, DirectionBoth:
	default:
		k.refuse(fmt.Sprintf("there is no direction %q", k.e.Direction), "Give inbound, outbound or both.")
	}
	switch k.e.State {
	case "":
		k.e.State = Enabled
	case Enabled, Disabled:
	default:
		k.refuse(fmt.Sprintf("there is no state %q", k.e.State), "Give enabled or disabled.")
	}
}

func (k *checker) hosts() {
	c := &k.e.Connection
	c.Hosts = slices.Clone(c.Hosts)
	if len(c.Hosts) == 0 && c.Host != "" {
		c.Hosts = []Host{{Host: c.Host, Port: c.Port}}
	}
	if len(c.Hosts) > maxHosts {
		k.refuse(fmt.Sprintf("the connection has %d hosts", len(c.Hosts)), fmt.Sprintf("Give at most %d.", maxHosts))
	}
	if c.MX && len(c.Hosts) > 1 {
		k.refuse("a connection by MX has several hosts", "Give one domain whose MX is to be used, or none.")
	}
	for i := range c.Hosts {
		k.host(&c.Hosts[i])
	}
	switch {
	case len(c.Hosts) > 0:
		c.Host, c.Port = c.Hosts[0].Host, c.Hosts[0].Port
	case c.MX:
		k.port(&c.Port)
	default:
		c.Host, c.Port = "", 0
	}
}

func (k *checker) host(h *Host) {
	name, err := hostName(h.Host)
	if err != nil {
		k.refuse(fmt.Sprintf("%q is not a host", h.Host), "Give a host name or an IP address.")
	}
	h.Host = name
	k.port(&h.Port)
	if h.Priority < 0 || h.Priority > 65535 || h.Weight < 0 || h.Weight > 65535 {
		k.refuse(fmt.Sprintf("priority %d or weight %d of host %s is out of range", h.Priority, h.Weight, h.Host), "Give values from 0 to 65535.")
	}
}

func (k *checker) port(port *int) {
	switch {
	case *port == 0 && k.e.LMTP:
		*port = lmtpPort
	case *port == 0:
		*port = smtpPort
	case *port < 1 || *port > 65535:
		k.refuse(fmt.Sprintf("port %d does not exist", *port), "Give a port from 1 to 65535.")
	}
}

// hostName takes host names and IP addresses, these in brackets or bare.
func hostName(s string) (string, error) {
	bare := strings.TrimSuffix(strings.TrimPrefix(s, "["), "]")
	if ip, err := netip.ParseAddr(bare); err == nil && ip.Zone() == "" {
		return ip.Unmap().String(), nil
	}
	return mail.ParseDomain(s)
}

func (k *checker) rule() {
	c := &k.e.Connection
	switch c.TLS {
	case "":
		c.TLS = TLSOpportunistic
	case TLSNone, TLSOpportunistic, TLSRequired, TLSVerified, TLSMutual:
	default:
		k.refuse(fmt.Sprintf("there is no TLS rule %q", c.TLS), "Give none, opportunistic, required, verified or mutual.")
	}
	if c.ServerName == "" {
		return
	}
	name, err := hostName(c.ServerName)
	if err != nil {
		k.refuse(fmt.Sprintf("%q is not a server name", c.ServerName), "Give the name that the server's certificate has.")
	}
	if c.TLS == TLSNone || c.TLS == TLSOpportunistic || c.TLS == TLSRequired {
		k.refuse("a server name is of no use with the TLS rule "+c.TLS, "Give --tls verified or mutual with it.")
	}
	c.ServerName = name
}

func (k *checker) pins() {
	c := &k.e.Connection
	c.Pins = slices.Clone(c.Pins)
	if len(c.Pins) > 0 && (c.TLS == TLSNone || c.TLS == TLSOpportunistic) {
		k.refuse("a pin is of no use with the TLS rule "+c.TLS, "Give --tls required, verified or mutual with it.")
	}
	for i, pin := range c.Pins {
		sum, ok := strings.CutPrefix(strings.ToLower(pin), "sha256:")
		if sum, ok = fingerprint(sum, ok); !ok {
			k.refuse(fmt.Sprintf("%q is not a pin", pin), "Give sha256: and the 64 hex digits of the certificate's SHA-256.")
		}
		c.Pins[i] = "sha256:" + sum
	}
}

// fingerprint reads a SHA-256 in hex, with or without colons.
func fingerprint(s string, ok bool) (string, bool) {
	s = strings.ReplaceAll(strings.ToLower(s), ":", "")
	raw, err := hex.DecodeString(s)
	return s, ok && err == nil && len(raw) == 32
}

func (k *checker) ca() {
	if k.e.CA == "" {
		return
	}
	k.e.ca = x509.NewCertPool()
	if !k.e.ca.AppendCertsFromPEM([]byte(k.e.CA)) {
		k.refuse("the CA is not a certificate in PEM form", "Give a file that begins with -----BEGIN CERTIFICATE-----.")
	}
	if k.e.TLS != TLSVerified && k.e.TLS != TLSMutual {
		k.refuse("a CA is of no use with the TLS rule "+k.e.TLS, "Give --tls verified or mutual with it.")
	}
}

func (k *checker) auth() {
	c := &k.e.Connection
	switch c.Auth {
	case "", AuthNone:
		c.Auth = AuthNone
		if c.User != "" {
			k.refuse("a user is given and no AUTH", "Give --auth plain with it.")
		}
		return
	case AuthPlain, AuthLogin, AuthSCRAM:
	default:
		k.refuse(fmt.Sprintf("AUTH %q is not supported by this version", c.Auth), "Give none, plain, login or scram.")
	}
	if c.User == "" || strings.ContainsAny(c.User, "\x00\r\n") || len(c.User) > 256 {
		k.refuse("AUTH needs a user name", "Give it with --user.")
	}
	// SCRAM shows nobody the password; the rules that let mail go in clear let
	// it go there too.
	if c.Auth != AuthSCRAM && (c.TLS == TLSNone || c.TLS == TLSOpportunistic) && !allLoopback(c.Hosts) {
		k.refuse("AUTH with the TLS rule "+c.TLS+" could show the password to others", "Give --tls verified, mutual or required, or --auth scram.")
	}
}

func allLoopback(hosts []Host) bool {
	for _, h := range hosts {
		ip, err := netip.ParseAddr(h.Host)
		if h.Host != "localhost" && (err != nil || !ip.IsLoopback()) {
			return false
		}
	}
	return len(hosts) > 0
}

func (k *checker) domains() {
	c := &k.e.Connection
	domains := make([]string, 0, len(c.Domains))
	for _, d := range c.Domains {
		name, err := mail.ParseDomain(d)
		if err != nil {
			k.refuse(fmt.Sprintf("%q is not a domain name", d), "Give a name such as example.com.")
		}
		domains = append(domains, name)
	}
	c.Domains = sortedSet(domains)
}

func sortedSet(list []string) []string {
	slices.Sort(list)
	return slices.Compact(list)
}

func (k *checker) count(what string, n int) {
	if n > maxClaims {
		k.refuse(fmt.Sprintf("the connection has %d %s", n, what), fmt.Sprintf("Give at most %d.", maxClaims))
	}
}

func (k *checker) networks() {
	c := &k.e.Connection
	k.count("networks", len(c.Networks))
	var nets []netip.Prefix
	for _, n := range c.Networks {
		p, ok := tenant.ParseNetwork(n)
		if !ok {
			k.refuse(fmt.Sprintf("%q is not a network", n), "Give an IP address or a network in CIDR form, such as 192.0.2.0/24.")
			return
		}
		if shortest := 8; p.Bits() < shortest || p.Addr().Is6() && p.Bits() < 2*shortest {
			k.refuse("network "+p.String()+" is too large to be one tenant's", "Give networks of /8 (IPv4), /16 (IPv6) or smaller.")
		}
		for _, q := range nets {
			if p.Overlaps(q) {
				k.refuse(fmt.Sprintf("networks %s and %s overlap", q, p), "Leave one of them out.")
			}
		}
		nets = append(nets, p)
	}
	c.Networks = make([]string, 0, len(nets))
	for _, p := range nets {
		c.Networks = append(c.Networks, p.String())
	}
	k.e.networks = nets
}

func (k *checker) certificates() {
	c := &k.e.Connection
	k.count("client certificates", len(c.ClientCert))
	sums := make([]string, 0, len(c.ClientCert))
	for _, s := range c.ClientCert {
		sum, ok := fingerprint(strings.TrimPrefix(strings.ToLower(s), "sha256:"), true)
		if !ok {
			k.refuse(fmt.Sprintf("%q is not a certificate's SHA-256", s), "Give its 64 hex digits.")
		}
		sums = append(sums, sum)
	}
	c.ClientCert = sortedSet(sums)
}

func (k *checker) originators() {
	c := &k.e.Connection
	switch c.Platform {
	case "", PlatformExchangeOnline, PlatformGoogle:
	default:
		k.refuse(fmt.Sprintf("there is no platform %q", c.Platform), "Give exchange-online or google.")
	}
	if (c.Platform == "") != (len(c.Originator) == 0) {
		k.refuse("a platform and its originators go together", "Give both --platform and --originator, or neither.")
	}
	k.count("originators", len(c.Originator))
	orgs := make([]string, 0, len(c.Originator))
	for _, o := range c.Originator {
		org, err := mail.ParseDomain(o)
		if err != nil {
			k.refuse(fmt.Sprintf("%q is not an originator", o), "Give the organisation's domain as the platform names it.")
		}
		orgs = append(orgs, org)
	}
	c.Originator = sortedSet(orgs)
}

// purpose sees that the connection is good for what its direction says.
func (k *checker) purpose() {
	c := &k.e.Connection
	claims := len(c.Networks) + len(c.ClientCert) + len(c.Originator)
	switch {
	case c.Direction == DirectionInbound && claims > 0:
		k.refuse("networks, client certificates and originators are for outbound mail", "Give --direction outbound or both with them.")
	case c.Direction != DirectionOutbound && len(c.Hosts) == 0 && !c.MX:
		k.refuse("the connection has no host", "Give --host, or --mx.")
	case c.Direction == DirectionOutbound && c.MX:
		k.refuse("outbound mail goes to the MX of its domain anyway", "Leave --mx out.")
	case c.Direction == DirectionOutbound && len(c.Hosts) == 0 && claims == 0:
		k.refuse("the connection says neither where mail goes nor whose it is", "Give --host, --network, --client-cert-sha256, or --platform with --originator.")
	case c.Direction == DirectionBoth && claims == 0:
		k.refuse("nothing says whose outbound mail it is", "Give --network, --client-cert-sha256, or --platform with --originator, or the direction inbound.")
	}
}

func (k *checker) concurrency() {
	c := &k.e.Connection
	if c.Concurrency == 0 {
		c.Concurrency = defaultConcurrency
	}
	if c.Concurrency < 1 || c.Concurrency > maxConcurrency {
		k.refuse(fmt.Sprintf("concurrency is %d", c.Concurrency), fmt.Sprintf("Give a value from 1 to %d.", maxConcurrency))
	}
}
