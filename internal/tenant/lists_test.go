package tenant_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/mail"
	"github.com/sallyport-mail/sallyport/internal/store"
	"github.com/sallyport-mail/sallyport/internal/tenant"
)

func TestSenderLists(t *testing.T) {
	eachStore(t, func(t *testing.T, s *store.Store) {
		c := newClock()
		r := openRegistry(t, s, c)
		ctx := t.Context()
		addTenants(t, r, "acme", "globex")
		must(t, r.SetLists(ctx, "system", tenant.Lists{
			Block: []string{".bad.example", "203.0.113.0/24", "2001:db8:bad::/48"},
			Allow: []string{"good@bad.example", "partner.example"},
		}))
		_, err := r.Set(ctx, "system", "acme", tenant.Settings{
			Block: []string{"Nuisance@Shop.example", "partner.example", "198.51.100.7"},
			Allow: []string{"friend.bad.example", "shop.example", "198.51.100.0/24"},
		})
		must(t, err)
		for _, r := range []*tenant.Registry{r, openRegistry(t, s, c)} {
			for _, k := range []struct {
				tenant, ip, from string
				want             tenant.Verdict
			}{
				{"acme", "192.0.2.1", "x@other.example", tenant.Neutral},
				{"acme", "192.0.2.1", "", tenant.Neutral},
				{"", "192.0.2.1", "x@bad.example", tenant.Blocked},
				{"", "192.0.2.1", "x@a.b.bad.example", tenant.Blocked},
				{"", "192.0.2.1", "x@notbad.example", tenant.Neutral},
				{"", "192.0.2.1", "GOOD@bad.example", tenant.Allowed},
				{"", "203.0.113.9", "", tenant.Blocked},
				{"", "::ffff:203.0.113.9", "", tenant.Blocked},
				{"", "2001:db8:bad::1", "", tenant.Blocked},
				{"", "not an address", "x@y.example", tenant.Neutral},
				{"acme", "192.0.2.1", "x@friend.bad.example", tenant.Blocked},      // the operator's block wins
				{"acme", "192.0.2.1", "x@partner.example", tenant.Blocked},         // the tenant's own block too
				{"globex", "192.0.2.1", "x@partner.example", tenant.Allowed},       // another's list is not ours
				{"acme", "192.0.2.1", "nuisance@shop.example", tenant.Allowed},     // allow wins within a tenant's
				{"acme", "198.51.100.7", "x@y.example", tenant.Allowed},            // likewise for networks
				{"globex", "198.51.100.7", "x@y.example", tenant.Neutral},          //
				{"globex", "192.0.2.1", "nuisance@shop.example", tenant.Neutral},   //
				{"nobody", "192.0.2.1", "someone@bad.example.org", tenant.Neutral}, //
			} {
				if got, why := r.Sender(k.tenant, k.ip, k.from); got != k.want || (got == tenant.Neutral) != (why == "") {
					t.Errorf("%s, %s, %s: %v (%s), want %v", k.tenant, k.ip, k.from, got, why, k.want)
				}
			}
		}
		for _, bad := range []string{"", ".", "@", "a b", "a@b@", "10.0.0.0/33", "x..example"} {
			wantKind(t, r.SetLists(ctx, "system", tenant.Lists{Allow: []string{bad}}), fault.Invalid)
		}
		if len(r.Lists().Block) != 3 {
			t.Error("a refused list replaced the old one")
		}
	})
}

// naive says of one entry whether it matches, straight from its definition.
func naive(entry string, ip netip.Addr, from mail.Address) bool {
	if p, err := netip.ParsePrefix(entry); err == nil {
		return p.Contains(ip)
	}
	if a, err := netip.ParseAddr(entry); err == nil {
		return a == ip
	}
	if from.IsNull() {
		return false
	}
	if strings.Contains(entry, "@") {
		return strings.EqualFold(entry, from.String())
	}
	if below, ok := strings.CutPrefix(entry, "."); ok {
		return from.Domain == below || strings.HasSuffix(from.Domain, entry)
	}
	return from.Domain == entry
}

func TestSenderListsAgainstNaiveModel(t *testing.T) {
	r := openRegistry(t, openSQLite(t), newClock())
	domain := rapid.Custom(func(t *rapid.T) string {
		labels := rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "ab"}), 1, 4).Draw(t, "labels")
		return strings.Join(append(labels, "test"), ".")
	})
	address := rapid.Custom(func(t *rapid.T) string {
		return rapid.SampledFrom([]string{"x", "X", "y"}).Draw(t, "local") + "@" + domain.Draw(t, "domain")
	})
	ip := rapid.Custom(func(t *rapid.T) string {
		n := rapid.IntRange(0, 15).Draw(t, "n")
		return rapid.SampledFrom([]string{fmt.Sprintf("192.0.2.%d", n), fmt.Sprintf("2001:db8::%x", n)}).Draw(t, "ip")
	})
	network := rapid.Custom(func(t *rapid.T) string {
		p, err := netip.ParseAddr(ip.Draw(t, "of"))
		if err != nil {
			t.Fatal(err)
		}
		bits := p.BitLen() - rapid.IntRange(0, 5).Draw(t, "bits")
		return netip.PrefixFrom(p, bits).Masked().String()
	})
	below := rapid.Map(domain, func(d string) string { return "." + d })
	entries := rapid.SliceOfN(rapid.OneOf(domain, address, ip, network, below), 0, 4)
	rapid.Check(t, func(rt *rapid.T) {
		l := tenant.Lists{Block: entries.Draw(rt, "block"), Allow: entries.Draw(rt, "allow")}
		if err := r.SetLists(t.Context(), "system", l); err != nil {
			rt.Fatal(err)
		}
		client, from := ip.Draw(rt, "client"), rapid.OneOf(address, rapid.Just("")).Draw(rt, "from")
		addr, _ := mail.ParseAddress(from)
		want := tenant.Neutral
		for _, e := range l.Block {
			if naive(e, netip.MustParseAddr(client), addr) {
				want = tenant.Blocked
			}
		}
		for _, e := range l.Allow {
			if naive(e, netip.MustParseAddr(client), addr) {
				want = tenant.Allowed
			}
		}
		if got, why := r.Sender("", client, from); got != want {
			rt.Fatalf("%s %q: got %v (%s), want %v", client, from, got, why, want)
		}
	})
}

func TestNetworks(t *testing.T) {
	var n tenant.Networks[string]
	for _, s := range []string{"10.0.0.0/8", "10.1.0.0/16", "10.1.2.3", "::ffff:192.0.2.0/120", "2001:db8::/32", "0.0.0.0/0"} {
		p, ok := tenant.ParseNetwork(s)
		if !ok {
			t.Fatal(s)
		}
		n.Put(p, s)
	}
	for ip, want := range map[string]string{
		"10.2.0.1": "10.0.0.0/8", "10.1.9.9": "10.1.0.0/16", "10.1.2.3": "10.1.2.3", "::ffff:10.1.2.3": "10.1.2.3",
		"192.0.2.77": "::ffff:192.0.2.0/120", "2001:db8:1::1": "2001:db8::/32", "2001:db9::1": "", "8.8.8.8": "0.0.0.0/0",
	} {
		if got, ok := n.Find(netip.MustParseAddr(ip)); got != want || ok != (want != "") {
			t.Errorf("%s: %q, want %q", ip, got, want)
		}
	}
	if got := n.Overlaps(netip.MustParsePrefix("10.1.0.0/24")); len(got) != 3 {
		t.Errorf("10.1.0.0/24 overlaps with %v", got)
	}
	n.Delete(netip.MustParsePrefix("10.1.0.0/16"))
	if got, _ := n.Find(netip.MustParseAddr("10.1.9.9")); got != "10.0.0.0/8" {
		t.Errorf("after deleting: %q", got)
	}
	for _, s := range []string{"", "10.0.0.0/33", "x", "fe80::1%eth0", "::ffff:0:0/90"} {
		if _, ok := tenant.ParseNetwork(s); ok {
			t.Errorf("%q is taken for a network", s)
		}
	}
}

func FuzzParseNetwork(f *testing.F) {
	for _, s := range []string{"10.0.0.0/8", "::ffff:1.2.3.4/100", "2001:db8::1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, ok := tenant.ParseNetwork(s)
		if !ok {
			return
		}
		if again, ok := tenant.ParseNetwork(p.String()); !ok || again != p {
			t.Fatalf("%q gave %v, which gave %v", s, p, again)
		}
	})
}
