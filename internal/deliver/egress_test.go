package deliver

import (
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/sallyport-mail/sallyport/internal/connection"
	"github.com/sallyport-mail/sallyport/internal/mail"
	"github.com/sallyport-mail/sallyport/internal/mailauth/dns"
	"github.com/sallyport-mail/sallyport/internal/smtp"
	"github.com/sallyport-mail/sallyport/internal/tenant"
	"github.com/sallyport-mail/sallyport/internal/testpeer"
)

// fewTenants is a literal of tenant settings.
type fewTenants map[string]tenant.Settings

func (f fewTenants) Tenant(name string) (tenant.Tenant, bool) {
	s, ok := f[name]
	return tenant.Tenant{Name: name, Settings: s}, ok
}

func source(address, hello string) Source {
	return Source{Address: netip.MustParseAddr(address), Hello: hello}
}

func TestEgressDressesByTenantAndFamily(t *testing.T) {
	d := &Deliverer{
		tenants: fewTenants{"acme": {}, "risky": {Egress: "risk"}, "typo": {Egress: "no such"}},
		log:     slog.New(slog.DiscardHandler),
		egress: newEgress([]Pool{
			{Name: "default", Sources: []Source{source("192.0.2.1", "out1.test"), source("2001:db8::1", "out6.test")}},
			{Name: "risk", Sources: []Source{source("192.0.2.66", "risk.test")}},
		}),
	}
	for _, c := range []struct {
		tenant, address, network string
		ok                       bool
		local, hello             string
	}{
		{"acme", "198.51.100.1:25", "", true, "192.0.2.1", "out1.test"},
		{"acme", "[2001:db8::25]:25", "", true, "2001:db8::1", "out6.test"},
		{"risky", "198.51.100.1:25", "", true, "192.0.2.66", "risk.test"},
		{"risky", "[2001:db8::25]:25", "", false, "", ""},
		{"typo", "198.51.100.1:25", "", true, "192.0.2.1", "out1.test"},
		{"acme", "/run/lmtp", "unix", true, "", "host.test"},
	} {
		candidate := connection.Candidate{Host: "mx.test", Target: smtp.Target{Address: c.address, Network: c.network, Hello: "host.test"}}
		ok := d.poolOf(c.tenant).dress(&candidate, c.tenant)
		if ok != c.ok {
			t.Errorf("%s to %s: %v", c.tenant, c.address, ok)
			continue
		}
		local := ""
		if candidate.Target.Local.IsValid() {
			local = candidate.Target.Local.String()
		}
		if ok && (local != c.local || candidate.Target.Hello != c.hello) {
			t.Errorf("%s to %s: from %q as %q", c.tenant, c.address, local, candidate.Target.Hello)
		}
	}
}

func TestEgressKeepsToOneSource(t *testing.T) {
	p := newEgress([]Pool{{Name: "default", Sources: []Source{
		source("192.0.2.1", "a.test"), source("192.0.2.2", "b.test"), source("192.0.2.3", "c.test"),
	}}})["default"]
	used := map[netip.Addr]bool{}
	for _, name := range strings.Fields("a b c d e f g h i j k l m n") {
		first := connection.Candidate{Host: "mx.test", Target: smtp.Target{Address: "198.51.100.1:25"}}
		again := first
		p.dress(&first, name)
		p.dress(&again, name)
		if first.Target.Local != again.Target.Local {
			t.Errorf("tenant %s comes from %v and %v", name, first.Target.Local, again.Target.Local)
		}
		used[first.Target.Local] = true
	}
	if len(used) != 3 {
		t.Errorf("only %d of 3 sources are used", len(used))
	}
}

// A test of a connection comes from where its mail will come from.
func TestProofComesFromThePool(t *testing.T) {
	sink := testpeer.StartSink(t, testpeer.SinkRules{})
	h := newHouse(t, Pool{Name: "default", Sources: []Source{source("127.0.0.2", "out2.test")}},
		Pool{Name: "risk", Sources: []Source{source("127.0.0.3", "")}}, Pool{Name: "other", Sources: []Source{source("::1", "out6.test")}})
	for name, k := range map[string]struct{ pool, from, hello string }{
		"acme": {"", "127.0.0.2", "out2.test"}, "risky": {"risk", "127.0.0.3", "gw.test"},
	} {
		h.connect(t, name, sink.Addr, connection.Connection{TLS: connection.TLSNone})
		_, err := h.tenants.Set(t.Context(), "system", name, tenant.Settings{Egress: k.pool})
		must(t, err)
		r, err := h.conns.Test(t.Context(), name, "mailbox", mail.Address{})
		must(t, err)
		if s := r.Steps[1]; !r.OK || s.Name != "connect" || !strings.Contains(s.Detail, "from "+k.from+" as "+k.hello) {
			t.Errorf("%s: %+v", name, r)
		}
		h.settled(t, name, h.put(t, name, "delivered", 100, "x"), "delivered")
		all := sink.Messages()
		for _, m := range all[len(all)-2:] {
			if host, _, _ := net.SplitHostPort(m.Remote); host != k.from || m.Hello != k.hello {
				t.Errorf("%s: %.60q came from %s as %s", name, m.Data, m.Remote, m.Hello)
			}
		}
	}
	h.connect(t, "six", sink.Addr, connection.Connection{TLS: connection.TLSNone})
	_, err := h.tenants.Set(t.Context(), "system", "six", tenant.Settings{Egress: "other"})
	must(t, err)
	r, err := h.conns.Test(t.Context(), "six", "mailbox", mail.Address{})
	must(t, err)
	if s := r.Steps[0]; len(r.Steps) != 1 || s.OK || !strings.Contains(s.Detail, "egress pool other") || !strings.Contains(s.Fix, "Add a source address") {
		t.Errorf("a pool of another family: %+v", r)
	}
}

func TestCheckPools(t *testing.T) {
	addr := netip.MustParseAddr
	r := dns.Fake{
		PTRs: map[netip.Addr][]string{
			addr("192.0.2.1"): {"good.test."}, addr("192.0.2.3"): {"other.test"}, addr("192.0.2.4"): {"liar.test"},
			addr("192.0.2.6"): {"good.test"},
		},
		Hosts: map[string][]netip.Addr{
			"good.test": {addr("192.0.2.1")}, "noptr.test": {addr("192.0.2.2")},
			"differs.test": {addr("192.0.2.3")}, "other.test": {addr("192.0.2.3")},
			"lied.test": {addr("192.0.2.4")}, "liar.test": {addr("203.0.113.1")},
		},
		Fail: map[string]bool{"slow.test": true},
	}
	d := &Deliverer{egress: newEgress([]Pool{{Name: "p", Sources: []Source{
		source("192.0.2.1", "good.test"), source("192.0.2.2", "noptr.test"), source("192.0.2.3", "differs.test"),
		source("192.0.2.4", "lied.test"), source("192.0.2.5", ""), source("192.0.2.6", "good.test"),
		source("192.0.2.7", "slow.test"), source("192.0.2.8", "nowhere.test"),
	}}})}
	got := d.CheckPools(t.Context(), r)
	want := []string{
		"192.0.2.2: it has no PTR record", "192.0.2.3: its PTR record says other.test, the EHLO name is differs.test",
		"192.0.2.4: its PTR record says liar.test, which does not lead back", "192.0.2.5: no EHLO name",
		"192.0.2.6: the EHLO name good.test leads to 192.0.2.1", "192.0.2.7: the EHLO name slow.test could not be looked up",
		"192.0.2.8: the EHLO name nowhere.test has no address record",
	}
	if len(got) != len(want) {
		t.Fatalf("%d findings: %q", len(got), got)
	}
	for i := range want {
		if !strings.HasPrefix(got[i], "egress pool p, "+want[i]) {
			t.Errorf("finding %q, want %q", got[i], want[i])
		}
	}
}
