package smtp

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// The PROXY protocol: a line (version 1) or a binary header (version 2) in
// which a load balancer says who is at the other end.
const (
	proxyTimeout = 5 * time.Second
	proxyV1Max   = 107     // with CR LF
	proxyV2Max   = 4 << 10 // of addresses and TLVs; more is nobody's honest header
	proxyV2Fixed = 16      // signature, command, family, length
	proxyV2Magic = "\r\n\r\n\x00\r\nQUIT\n"
)

// proxied is what a header says. Without known there is no address in it (v1
// UNKNOWN, v2 LOCAL) and the socket's own hold.
type proxied struct {
	known         bool
	client, local netip.AddrPort
}

// readProxy reads the header where one is expected. It is believed from the
// listener's own load balancers only, and from those it must come.
func (c *dialog) readProxy() bool {
	if !c.fromProxy() {
		return true
	}
	c.expect(proxyTimeout)
	for {
		p, n, err := parseProxy(c.in.data())
		if err != nil {
			return false
		}
		if n > 0 {
			c.in.skip(n)
			if p.known {
				c.Remote, c.Local = p.client, p.local
			}
			return true
		}
		if c.fill() != nil {
			return false
		}
	}
}

func (c *dialog) fromProxy() bool {
	for _, p := range c.rules.Proxy {
		if p.Contains(c.Remote.Addr()) {
			return true
		}
	}
	return false
}

// parseProxy reads a header from the front of b. n is its length, 0 while b
// does not hold all of it.
func parseProxy(b []byte) (p proxied, n int, err error) {
	switch {
	case hasPrefixOf(b, proxyV2Magic):
		return parseProxyV2(b)
	case hasPrefixOf(b, "PROXY "):
		return parseProxyV1(b)
	}
	return p, 0, errProxyHeader
}

// hasPrefixOf reports whether b begins with magic as far as b goes.
func hasPrefixOf(b []byte, magic string) bool {
	n := min(len(b), len(magic))
	return string(b[:n]) == magic[:n]
}

// parseProxyV1 reads "PROXY TCP4 client local port port" CR LF.
func parseProxyV1(b []byte) (p proxied, n int, err error) {
	end := bytes.Index(b[:min(len(b), proxyV1Max)], crlf)
	if end < 0 {
		if len(b) >= proxyV1Max {
			err = errProxyHeader
		}
		return p, 0, err
	}
	words := strings.Split(string(b[:end]), " ")
	if len(words) >= 2 && words[1] == "UNKNOWN" {
		return p, end + 2, nil
	}
	if len(words) != 6 || words[1] != "TCP4" && words[1] != "TCP6" {
		return p, 0, errProxyHeader
	}
	four := words[1] == "TCP4"
	var ok1, ok2 bool
	p.client, ok1 = proxyAddr(words[2], words[4], four)
	p.local, ok2 = proxyAddr(words[3], words[5], four)
	if !ok1 || !ok2 {
		return proxied{}, 0, errProxyHeader
	}
	p.known = true
	return p, end + 2, nil
}

func proxyAddr(addr, port string, four bool) (netip.AddrPort, bool) {
	a, err := netip.ParseAddr(addr)
	if err != nil || a.Is4() != four || a.Zone() != "" {
		return netip.AddrPort{}, false
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || !isDigits(port) || len(port) > 1 && port[0] == '0' {
		return netip.AddrPort{}, false
	}
	return netip.AddrPortFrom(a.Unmap(), uint16(n)), true
}

// parseProxyV2 reads the binary header. TLVs behind the addresses are skipped.
func parseProxyV2(b []byte) (p proxied, n int, err error) {
	if len(b) < proxyV2Fixed {
		return p, 0, nil
	}
	size := int(binary.BigEndian.Uint16(b[14:]))
	if b[12]>>4 != 2 || b[12]&15 > 1 || size > proxyV2Max {
		return p, 0, errProxyHeader
	}
	n = proxyV2Fixed + size
	if len(b) < n {
		return p, 0, nil
	}
	if b[12]&15 == 0 {
		return p, n, nil // LOCAL: the balancer's own health check
	}
	p, ok := proxyV2Addrs(b[13], b[proxyV2Fixed:n])
	if !ok {
		return proxied{}, 0, errProxyHeader
	}
	return p, n, nil
}

// proxyV2Addrs reads client, local and their ports. Families other than TCP
// over IPv4 and IPv6 have no address that we could use.
func proxyV2Addrs(family byte, b []byte) (p proxied, ok bool) {
	var width int
	switch family {
	case 0x11:
		width = 4
	case 0x21:
		width = 16
	default:
		return p, family == 0x00 || family>>4 == 3
	}
	if len(b) < 2*width+4 {
		return p, false
	}
	client, _ := netip.AddrFromSlice(b[:width])
	local, _ := netip.AddrFromSlice(b[width : 2*width])
	ports := b[2*width:]
	p.client = netip.AddrPortFrom(client.Unmap(), binary.BigEndian.Uint16(ports))
	p.local = netip.AddrPortFrom(local.Unmap(), binary.BigEndian.Uint16(ports[2:]))
	p.known = true
	return p, true
}
