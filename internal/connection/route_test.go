package connection_test

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/sallyport-mail/sallyport/internal/connection"
	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/mailauth/dns"
	"github.com/sallyport-mail/sallyport/internal/smtp"
)

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

// world is a DNS with one domain of each kind.
func world() dns.Fake {
	long := make([]dns.MX, 20)
	for i := range long {
		long[i] = dns.MX{Host: fmt.Sprintf("mx%02d.a-rather-long-name.example", i), Preference: 10}
	}
	return dns.Fake{
		MXs: map[string][]dns.MX{
			"two.example":    {{Host: "B.mx.example", Preference: 20}, {Host: "a.mx.example", Preference: 10}},
			"null.example":   {{Host: "."}},
			"long.example":   long,
			"deaf.example":   {{Host: "nowhere.example", Preference: 10}},
			"loop.example":   {{Host: "a.mx.example", Preference: 5}, {Host: "us.example", Preference: 10}, {Host: "b.mx.example", Preference: 20}},
			"ours.example":   {{Host: "us.example", Preference: 10}},
			"globex.test":    {{Host: "us.example", Preference: 10}},
			"broken.example": {{Host: "fails.example", Preference: 10}},
			"odd.example":    {{Host: "zero.example", Preference: 10}, {Host: "a.mx.example", Preference: 20}},
		},
		Hosts: map[string][]netip.Addr{
			"a.mx.example": {addr("2001:db8::a"), addr("192.0.2.10")},
			"b.mx.example": {addr("192.0.2.20")},
			"host.example": {addr("192.0.2.30")},
			"us.example":   {addr("192.0.2.99")},
			"zero.example": {addr("0.0.0.0")},
		},
		Fail: map[string]bool{"slow.example": true, "fails.example": true},
	}
}

func withWorld(c *connection.Config) {
	c.Resolver = world()
	c.IsLocal = func(ip netip.Addr) bool { return ip == addr("192.0.2.99") }
}

func TestOutbound(t *testing.T) {
	h := newHouse(t, openSQLite(t), withWorld)
	for domain, want := range map[string]string{
		"two.example":        "mx:a.mx.example,b.mx.example",
		"host.example":       "mx:host.example",
		"slow.example":       "domain:slow.example",
		"[192.0.2.1]":        "mx:192.0.2.1",
		"[IPv6:2001:db8::1]": "mx:2001:db8::1",
	} {
		got, err := h.Outbound(t.Context(), "acme", domain)
		if err != nil || got.Destination != want || got.Connection != "" {
			t.Errorf("%s: %+v, %v, want %s", domain, got, err, want)
		}
	}
	for domain, null := range map[string]bool{"null.example": true, "missing.example": false} {
		_, err := h.Outbound(t.Context(), "acme", domain)
		if !fault.Is(err, fault.Never) || connection.IsNullMX(err) != null {
			t.Errorf("%s: %v", domain, err)
		}
		_, err = h.Candidates(t.Context(), "acme", "domain:"+domain, domain, "h", netip.Addr{})
		if !fault.Is(err, fault.Never) || connection.IsNullMX(err) != null {
			t.Errorf("candidates of %s: %v", domain, err)
		}
	}
	got, err := h.Outbound(t.Context(), "acme", "long.example")
	must(t, err)
	if len(got.Destination) > 200 || !strings.HasPrefix(got.Destination, "mx:mx00.a-rather-long-name.example#") {
		t.Errorf("long key %q", got.Destination)
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if got, err := h.Outbound(over, "acme", "two.example"); err != nil || got.Destination != "domain:two.example" {
		t.Errorf("out of time: %+v, %v", got, err)
	}
	h.add(t, connection.Connection{Tenant: "acme", Name: "smart", Direction: "outbound", Host: "smart.example"})
	if got, err := h.Outbound(t.Context(), "acme", "null.example"); err != nil || got.Destination != "t:acme:smart" || got.Connection != "smart" {
		t.Errorf("smart host: %+v, %v", got, err)
	}
	if got, _ := h.Outbound(t.Context(), "globex", "two.example"); got.Connection != "" {
		t.Errorf("another's smart host is used: %+v", got)
	}
	_, err = h.SetState(t.Context(), "system", "acme", "smart", "disabled")
	must(t, err)
	if _, err := h.Outbound(t.Context(), "acme", "two.example"); !fault.Is(err, fault.Later) {
		t.Errorf("mail goes around a disabled smart host: %v", err)
	}
}

// A connection in both directions takes mail in; it is no smart host, or mail
// would go in circles.
func TestBothIsNoSmartHost(t *testing.T) {
	h := newHouse(t, openSQLite(t), withWorld)
	h.add(t, connection.Connection{Tenant: "acme", Name: "ex", Direction: "both", Host: "host.example", Networks: []string{"192.0.2.30"}})
	in, err := h.Inbound("acme", "acme.test")
	must(t, err)
	out, err := h.Outbound(t.Context(), "acme", "two.example")
	must(t, err)
	if in.Connection != "ex" || out.Connection != "" {
		t.Errorf("in by %q, out by %q", in.Connection, out.Connection)
	}
}

func describe(list []connection.Candidate) string {
	var words []string
	for _, c := range list {
		words = append(words, c.Host+"="+c.Target.Address)
	}
	return strings.Join(words, " ")
}

func TestInternetCandidates(t *testing.T) {
	h := newHouse(t, openSQLite(t), withWorld)
	ctx := t.Context()
	for _, k := range []struct {
		domain, local, want string
		kind                fault.Kind
	}{
		{domain: "two.example", want: "a.mx.example=[2001:db8::a]:25 a.mx.example=192.0.2.10:25 B.mx.example=192.0.2.20:25"},
		{domain: "two.example", local: "198.51.100.1", want: "a.mx.example=192.0.2.10:25 B.mx.example=192.0.2.20:25"},
		{domain: "two.example", local: "2001:db8::1", want: "a.mx.example=[2001:db8::a]:25"},
		{domain: "host.example", local: "2001:db8::1", kind: fault.Later},
		{domain: "[192.0.2.1]", want: "192.0.2.1=192.0.2.1:25"},
		{domain: "loop.example", want: "a.mx.example=[2001:db8::a]:25 a.mx.example=192.0.2.10:25"},
		{domain: "odd.example", want: "a.mx.example=[2001:db8::a]:25 a.mx.example=192.0.2.10:25"},
		{domain: "globex.test", want: "us.example=192.0.2.99:25"}, // one of our tenants': no loop
		{domain: "ours.example", kind: fault.Never},
		{domain: "null.example", kind: fault.Never},
		{domain: "missing.example", kind: fault.Never},
		{domain: "deaf.example", kind: fault.Never},
		{domain: "slow.example", kind: fault.Later},
		{domain: "broken.example", kind: fault.Later},
	} {
		var local netip.Addr
		if k.local != "" {
			local = addr(k.local)
		}
		got, err := h.Candidates(ctx, "acme", "domain:"+k.domain, k.domain, "out.test", local)
		if describe(got) != k.want || err == nil != (k.kind == 0) || err != nil && fault.KindOf(err) != k.kind {
			t.Errorf("%s from %q:\n got %s, %v (%v)\nwant %s, %v", k.domain, k.local, describe(got), err, fault.KindOf(err), k.want, k.kind)
		}
		for _, c := range got {
			if c.Rule != "opportunistic" || c.Target.TLS != smtp.TLSOpportunistic || c.Target.Hello != "out.test" || c.Target.Local != local || c.Tenant+c.Connection != "" {
				t.Errorf("%s: candidate %+v", k.domain, c)
			}
		}
	}
}

func TestOwnCandidates(t *testing.T) {
	h := newHouse(t, openSQLite(t), withWorld)
	ctx := t.Context()
	h.add(t, connection.Connection{Tenant: "acme", Name: "in", Concurrency: 3, Hosts: []connection.Host{
		{Host: "host.example", Port: 26, Priority: 20}, {Host: "a.mx.example", Priority: 10}, {Host: "missing.example", Priority: 5}, {Host: "localhost", Port: 27, Priority: 30},
	}})
	got, err := h.Candidates(ctx, "acme", "t:acme:in", "acme.test", "h", netip.Addr{})
	must(t, err)
	want := "a.mx.example=[2001:db8::a]:25 a.mx.example=192.0.2.10:25 host.example=192.0.2.30:26 localhost=127.0.0.1:27 localhost=[::1]:27"
	if describe(got) != want {
		t.Errorf("got %s, want %s", describe(got), want)
	}
	if got[0].Tenant != "acme" || got[0].Connection != "in" {
		t.Errorf("candidate %+v", got[0])
	}
	if _, err := h.Candidates(ctx, "globex", "t:acme:in", "acme.test", "h", netip.Addr{}); !fault.Is(err, fault.Internal) {
		t.Errorf("another tenant's connection: %v", err)
	}
	for what, destination := range map[string]string{"removed": "t:acme:gone"} {
		if _, err := h.Candidates(ctx, "acme", destination, "acme.test", "h", netip.Addr{}); !fault.Is(err, fault.Later) {
			t.Errorf("%s: %v", what, err)
		}
	}
	h.add(t, connection.Connection{Tenant: "globex", Name: "in", Host: "missing.example"})
	if _, err := h.Candidates(ctx, "globex", "t:globex:in", "globex.test", "h", netip.Addr{}); !fault.Is(err, fault.Later) {
		t.Errorf("a host that does not exist must not fail mail for good: %v", err)
	}
	must(t, h.Remove(ctx, "system", "globex", "in"))
	h.add(t, connection.Connection{Tenant: "globex", Name: "in", MX: true, Host: "null.example"})
	if _, err := h.Candidates(ctx, "globex", "t:globex:in", "globex.test", "h", netip.Addr{}); !fault.Is(err, fault.Later) || connection.IsNullMX(err) {
		t.Errorf("a null MX in a tenant's own connection must not fail mail for good: %v", err)
	}
	must(t, h.Remove(ctx, "system", "globex", "in"))
	h.add(t, connection.Connection{Tenant: "globex", Name: "in", MX: true, Host: "two.example", Port: 2525})
	got, err = h.Candidates(ctx, "globex", "t:globex:in", "globex.test", "h", netip.Addr{})
	if describe(got) != "a.mx.example=[2001:db8::a]:2525 a.mx.example=192.0.2.10:2525 B.mx.example=192.0.2.20:2525" {
		t.Errorf("by MX: %s, %v", describe(got), err)
	}
}

func TestWeights(t *testing.T) {
	h := newHouse(t, openSQLite(t), withWorld)
	h.add(t, connection.Connection{Tenant: "acme", Name: "in", Hosts: []connection.Host{
		{Host: "192.0.2.1", Weight: 30}, {Host: "192.0.2.2", Weight: 10}, {Host: "192.0.2.3", Weight: 0},
	}})
	first := map[string]int{}
	const n = 4000
	for range n {
		got, err := h.Candidates(t.Context(), "acme", "t:acme:in", "acme.test", "h", netip.Addr{})
		must(t, err)
		if len(got) != 3 {
			t.Fatal(describe(got))
		}
		first[got[0].Host]++
	}
	if a := first["192.0.2.1"]; a < n*70/100 || a > n*80/100 {
		t.Errorf("the host with three quarters of the weight came first %d times in %d", a, n)
	}
	if c := first["192.0.2.3"]; c > n/100 {
		t.Errorf("the host without weight came first %d times", c)
	}
}
