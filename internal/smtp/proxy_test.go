package smtp

import (
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/sallyport-mail/sallyport/internal/mail"
)

const (
	v2TCP4  = proxyV2Magic + "\x21\x11\x00\x0c" + "\xc0\x00\x02\x01" + "\xc0\x00\x02\x02" + "\x03\xe8\x00\x19"
	v2TCP6  = proxyV2Magic + "\x21\x21\x00\x24" + "\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01" + "\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02" + "\x03\xe8\x00\x19"
	v2Local = proxyV2Magic + "\x20\x00\x00\x00"
)

func TestParseProxy(t *testing.T) {
	cases := []struct {
		name, in, client string // client "" for none, "bad" for an error
	}{
		{"v1 IPv4", "PROXY TCP4 192.0.2.1 192.0.2.2 1000 25\r\n", "192.0.2.1:1000"},
		{"v1 IPv6", "PROXY TCP6 2001:db8::1 2001:db8::2 1000 25\r\n", "[2001:db8::1]:1000"},
		{"v1 unknown", "PROXY UNKNOWN\r\n", ""},
		{"v1 unknown with addresses", "PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n", ""},
		{"v1 wrong family", "PROXY TCP4 2001:db8::1 2001:db8::2 1000 25\r\n", "bad"},
		{"v1 port too big", "PROXY TCP4 192.0.2.1 192.0.2.2 65536 25\r\n", "bad"},
		{"v1 port signed", "PROXY TCP4 192.0.2.1 192.0.2.2 +1 25\r\n", "bad"},
		{"v1 leading zero", "PROXY TCP4 192.0.2.1 192.0.2.2 01 25\r\n", "bad"},
		{"v1 two spaces", "PROXY TCP4  192.0.2.1 192.0.2.2 1 25\r\n", "bad"},
		{"v1 UDP", "PROXY UDP4 192.0.2.1 192.0.2.2 1 25\r\n", "bad"},
		{"v1 zone", "PROXY TCP6 fe80::1%eth0 fe80::2 1 25\r\n", "bad"},
		{"v1 bare LF", "PROXY TCP4 192.0.2.1 192.0.2.2 1 25\n" + strings.Repeat("x", proxyV1Max), "bad"},
		{"v1 too long", "PROXY TCP4 " + strings.Repeat("1", proxyV1Max), "bad"},
		{"none", "EHLO client.test\r\n", "bad"},
		{"lower case", "proxy TCP4 192.0.2.1 192.0.2.2 1 25\r\n", "bad"},
		{"v2 IPv4", v2TCP4, "192.0.2.1:1000"},
		{"v2 IPv6", v2TCP6, "[2001:db8::1]:1000"},
		{"v2 local", v2Local, ""},
		{"v2 TLV", strings.Replace(v2TCP4, "\x00\x0c", "\x00\x10", 1) + "\x04\x00\x01x", "192.0.2.1:1000"},
		{"v2 unix", proxyV2Magic + "\x21\x31\x00\x00", ""},
		{"v2 unspecified", proxyV2Magic + "\x21\x00\x00\x00", ""},
		{"v2 UDP", proxyV2Magic + "\x21\x12\x00\x0c" + strings.Repeat("\x00", 12), "bad"},
		{"v2 short addresses", proxyV2Magic + "\x21\x11\x00\x0b" + strings.Repeat("\x00", 11), "bad"},
		{"v2 version", proxyV2Magic + "\x31\x11\x00\x0c" + strings.Repeat("\x00", 12), "bad"},
		{"v2 command", proxyV2Magic + "\x22\x11\x00\x0c" + strings.Repeat("\x00", 12), "bad"},
		{"v2 too long", proxyV2Magic + "\x21\x11\xff\xff", "bad"},
	}
	for _, c := range cases {
		p, n, err := parseProxy([]byte(c.in + "EHLO x\r\n"))
		got := ""
		switch {
		case err != nil:
			got = "bad"
		case p.known:
			got = p.client.String()
		}
		if got != c.client || err == nil && n != len(c.in) {
			t.Errorf("%s: %q, %d bytes of %d, %v", c.name, got, n, len(c.in), err)
		}
		if c.client == "bad" {
			continue
		}
		for i := range len(c.in) {
			if _, n, err := parseProxy([]byte(c.in[:i])); n != 0 || err != nil {
				t.Errorf("%s: %d bytes of it: %d, %v", c.name, i, n, err)
			}
		}
	}
}

func FuzzProxy(f *testing.F) {
	for _, s := range []string{v2TCP4, v2TCP6, v2Local, "PROXY UNKNOWN\r\n", "PROXY TCP4 192.0.2.1 192.0.2.2 1000 25\r\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		p, n, err := parseProxy(in)
		if err != nil && (n != 0 || p.known) || n > len(in) || n == 0 && p.known {
			t.Fatalf("%+v %d %v", p, n, err)
		}
		if p.known && (!p.client.IsValid() || !p.local.IsValid() || p.client.Addr().Zone() != "") {
			t.Fatalf("%+v", p)
		}
		if n > 0 { // what stands behind does not matter
			q, m, err := parseProxy(append(in[:n:n], "PROXY"...))
			if q != p || m != n || err != nil {
				t.Fatalf("%+v %d %v, then %+v %d %v", p, n, err, q, m, err)
			}
		} else if err == nil && len(in) > proxyV2Fixed+proxyV2Max {
			t.Fatal("still waiting")
		}
	})
}

func TestProxyOnTheWire(t *testing.T) {
	seen := make(chan Conn, 1)
	b := &recorder{connect: func(c *Conn) *mail.Reply { seen <- *c; return nil }}
	proxies := []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}
	addr, _ := startServer(t, b, Listener{Proxy: proxies})
	dial := func() net.Conn {
		nc, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = nc.Close() })
		return nc
	}
	for _, header := range []string{v2TCP4, "PROXY TCP4 192.0.2.1 192.0.2.2 1000 25\r\n", v2Local} {
		nc := dial()
		k := newTalk(t, nc)
		for _, part := range []string{header[:9], header[9:]} {
			k.say(part)
		}
		k.hear("220")
		c := <-seen
		want := "192.0.2.1:1000"
		if header == v2Local {
			want = nc.LocalAddr().String()
		}
		if c.Remote.String() != want {
			t.Errorf("remote %v, want %s", c.Remote, want)
		}
	}
	bad := newTalk(t, dial())
	bad.say("EHLO client.test\r\n")
	if line, err := bad.r.ReadString('\n'); err == nil {
		t.Errorf("greeted without a header: %q", line)
	}
	// From anybody else a header is a command like any other, and a bad one.
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}
	nc, err := d.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	k := newTalk(t, nc)
	k.hear("220")
	if c := <-seen; c.Remote.Addr().String() != "127.0.0.2" {
		t.Errorf("remote %v", c.Remote)
	}
	k.say("PROXY TCP4 192.0.2.1 192.0.2.2 1000 25\r\n")
	k.hear("500")
}

// TestProxyIsWaitedForBriefly: a load balancer says its line at once.
func TestProxyIsWaitedForBriefly(t *testing.T) {
	for _, said := range []string{"P", "PROXY TCP4"} {
		synctest.Test(t, func(t *testing.T) {
			l := newPipeListener()
			s := &Server{Backend: discard{}}
			go func() { _ = s.Serve(l, Listener{Proxy: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}}) }()
			k := newTalk(t, l.dial())
			k.say(said)
			within(t, after(k.ended), proxyTimeout)
			if err := s.Shutdown(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}
