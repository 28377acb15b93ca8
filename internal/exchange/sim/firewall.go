package sim

import (
	"net/netip"
	"strings"

	"github.com/sallyport-mail/sallyport/internal/mail"
)

// Prefixes of the fields that Exchange keeps to itself (facts 1.5).
const (
	organization  = "X-MS-Exchange-Organization-"
	crossPremises = "X-MS-Exchange-CrossPremises-"
)

// stamp is what the header firewall leaves of a message's X-MS-Exchange
// fields, and what it adds. A sender's own Organization fields are taken away
// from whoever sends them; CrossPremises fields become Organization fields
// where the hop came through an OnPremises connector with
// CloudServicesMailEnabled, and are removed everywhere else.
func (v *visit) stamp(p place, header []byte) []string {
	var out []string
	trusted := p.internal && p.connector != nil && p.connector.CloudServicesMailEnabled
	promoted := map[string]bool{}
	if trusted {
		for _, span := range mail.FindFields(header, crossPremises+"*") {
			for _, f := range fieldsIn(header[span.From:span.To]) {
				out = append(out, organization+f.name[len(crossPremises):]+": "+f.value)
				promoted[strings.ToLower(f.name[len(crossPremises):])] = true
			}
		}
	}
	as := "Anonymous"
	if trusted || p.internal && p.connector != nil && p.connector.TreatMessagesAsInternal {
		as = "Internal"
	}
	for _, f := range []namedField{{"AuthAs", as}, {"AuthSource", frontName}} {
		if !promoted[strings.ToLower(f.name)] {
			out = append(out, organization+f.name+": "+f.value)
		}
	}
	return append(out, v.skipList(p, header)...)
}

// namedField is one header field, unfolded.
type namedField struct{ name, value string }

// fieldsIn reads fields that stand together, each a name with that prefix.
func fieldsIn(header []byte) []namedField {
	var out []namedField
	for _, line := range strings.Split(strings.TrimRight(string(header), "\r\n"), "\n") {
		line = strings.TrimRight(line, "\r")
		if len(out) > 0 && line != "" && (line[0] == ' ' || line[0] == '\t') {
			out[len(out)-1].value += " " + strings.TrimSpace(line)
			continue
		}
		name, value, ok := strings.Cut(line, ":")
		name = strings.TrimSpace(name)
		if ok && len(name) > len(crossPremises) && strings.EqualFold(name[:len(crossPremises)], crossPremises) {
			out = append(out, namedField{name, strings.TrimSpace(value)})
		}
	}
	return out
}

// skipList stamps who really sent a message, where the connector it came
// through has Enhanced Filtering (facts 1.6).
func (v *visit) skipList(p place, header []byte) []string {
	c := p.connector
	if c == nil || !c.EFSkipLastIP && len(c.EFSkipIPs) == 0 || !v.allFiltered(c) {
		return nil
	}
	found, ok := c.originalSender(v.hop.ip, receivedFrom(header))
	if !ok {
		return nil
	}
	return []string{
		"X-MS-Exchange-ExternalOriginalInternetSender: ip=[" + found.String() + "]",
		"X-MS-Exchange-SkipListedInternetSender: ip=[" + v.hop.ip.String() + "]",
	}
}

// allFiltered reports whether all recipients are in EFUsers; empty is all.
func (v *visit) allFiltered(c *InboundConnector) bool {
	if len(c.EFUsers) == 0 {
		return true
	}
	for _, p := range v.to {
		in := false
		for _, u := range c.EFUsers {
			in = in || strings.EqualFold(u, p.to.Key())
		}
		if !in {
			return false
		}
	}
	return true
}

// originalSender walks back over the hops. EFSkipLastIP skips the connecting
// address alone, EFSkipIPs those listed; private addresses are skipped anyway.
func (c *InboundConnector) originalSender(connecting netip.Addr, received []netip.Addr) (netip.Addr, bool) {
	for i, ip := range append([]netip.Addr{connecting}, received...) {
		if ip.IsPrivate() || ip.IsLoopback() || i == 0 && c.EFSkipLastIP || c.skips(ip) {
			continue
		}
		return ip, true
	}
	return netip.Addr{}, false
}

func (c *InboundConnector) skips(ip netip.Addr) bool {
	for _, s := range c.EFSkipIPs {
		if p, ok := prefix(s); ok && p.Contains(ip) {
			return true
		}
	}
	return false
}

// receivedFrom are the addresses that Received fields name in brackets, the
// newest hop first: the first one of each field.
func receivedFrom(header []byte) []netip.Addr {
	var out []netip.Addr
	for _, value := range mail.Values(header, "Received") {
		_, rest, ok := strings.Cut(value, "[")
		text, _, closed := strings.Cut(rest, "]")
		if !ok || !closed {
			continue
		}
		if ip, err := netip.ParseAddr(strings.TrimPrefix(text, "IPv6:")); err == nil {
			out = append(out, ip.Unmap())
		}
	}
	return out
}
