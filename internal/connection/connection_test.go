package connection_test

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-mail/sallyport/internal/connection"
	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/keeper/client"
	"github.com/sallyport-mail/sallyport/internal/mailauth/dns"
	"github.com/sallyport-mail/sallyport/internal/store"
	"github.com/sallyport-mail/sallyport/internal/tenant"
	"github.com/sallyport-mail/sallyport/internal/testpeer"
	"github.com/sallyport-mail/sallyport/internal/testpeer/custodian"
)

// house is a registry with what it stands on.
type house struct {
	*connection.Registry
	config  connection.Config
	tenants *tenant.Registry
	store   *store.Store
	custody *client.Files
	dir     string
}

func fixedNow() time.Time { return time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC) }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// newHouse has the tenants acme (acme.test, acme.example) and globex
// (globex.test).
func newHouse(t testing.TB, s *store.Store, change func(*connection.Config)) *house {
	t.Helper()
	ctx := t.Context()
	h := &house{store: s, dir: t.TempDir()}
	var err error
	h.tenants, err = tenant.New(ctx, tenant.Config{DB: s.Control, Regions: []string{"us"}, Log: slog.New(slog.DiscardHandler), Now: fixedNow})
	must(t, err)
	h.custody = custodian.Files(t, h.dir)
	h.config = connection.Config{
		DB: s.Control, Tenants: h.tenants, Resolver: dns.Fake{}, Signers: h.custody, Credentials: h.custody,
		Hello: "mx.us.sallyport.test", Log: slog.New(slog.DiscardHandler), Now: fixedNow,
	}
	if change != nil {
		change(&h.config)
	}
	h.Registry = h.again(t)
	for name, domains := range map[string][]string{"acme": {"acme.test", "acme.example"}, "globex": {"globex.test"}} {
		_, err := h.tenants.Add(ctx, "system", tenant.Tenant{Name: name, Region: "us"})
		must(t, err)
		for _, d := range domains {
			_, err := h.tenants.AddDomain(ctx, "system", tenant.Domain{Name: d, Tenant: name})
			must(t, err)
		}
	}
	return h
}

// again is a registry that starts anew on the same database.
func (h *house) again(t testing.TB) *connection.Registry {
	t.Helper()
	r, err := connection.New(t.Context(), h.config)
	must(t, err)
	t.Cleanup(func() {
		if err := r.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return r
}

func (h *house) add(t testing.TB, c connection.Connection) connection.Connection {
	t.Helper()
	got, err := h.Add(t.Context(), "token:1", c)
	must(t, err)
	return got
}

func openSQLite(t testing.TB) *store.Store {
	return testpeer.OpenStore(t, store.Config{Dir: t.TempDir()})
}

// hostPort takes an address apart.
func hostPort(t testing.TB, addr string) (string, int) {
	t.Helper()
	host, port, err := net.SplitHostPort(addr)
	must(t, err)
	n, err := strconv.Atoi(port)
	must(t, err)
	return host, n
}

func TestAddAndLoad(t *testing.T) {
	testpeer.EachStore(t, func(t *testing.T, s *store.Store) {
		h := newHouse(t, s, nil)
		got := h.add(t, connection.Connection{Tenant: "acme", Name: "mailbox", Host: "Mail.Acme.Test.", Domains: []string{"ACME.test"}})
		h.add(t, connection.Connection{
			Tenant: "acme", Name: "onprem", Direction: "both", Hosts: []connection.Host{{Host: "192.0.2.1", Port: 2525, Priority: 5}, {Host: "[2001:db8::1]"}},
			TLS: "required", Pins: []string{"SHA256:" + strings.Repeat("AB", 32)}, Networks: []string{"192.0.2.77/28", "2001:db8::1"},
		})
		want := connection.Connection{
			Tenant: "acme", Name: "mailbox", Kind: "smtp", Direction: "inbound", State: "enabled", Host: "mail.acme.test", Port: 25,
			Hosts: []connection.Host{{Host: "mail.acme.test", Port: 25}}, TLS: "opportunistic", Auth: "none",
			Domains: []string{"acme.test"}, Networks: []string{}, ClientCert: []string{}, Originator: []string{}, Concurrency: 20, CreatedAt: fixedNow(),
		}
		if fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", want) {
			t.Errorf("added\n%+v, want\n%+v", got, want)
		}
		_, err := h.SetState(t.Context(), "token:1", "acme", "onprem", "disabled")
		must(t, err)
		again := h.again(t)
		if a, b := fmt.Sprintf("%+v", h.List("")), fmt.Sprintf("%+v", again.List("acme")); a != b {
			t.Errorf("in memory\n%s, loaded\n%s", a, b)
		}
		c, _ := again.Get("acme", "onprem")
		if c.State != "disabled" || c.Networks[0] != "192.0.2.64/28" || c.Hosts[1].Host != "2001:db8::1" || c.Hosts[1].Port != 25 {
			t.Errorf("onprem is %+v", c)
		}
	})
}

func TestRefusals(t *testing.T) {
	h := newHouse(t, openSQLite(t), nil)
	ok := connection.Connection{Tenant: "acme", Name: "a", Host: "mail.acme.test"}
	out := connection.Connection{Tenant: "acme", Name: "a", Direction: "outbound"}
	with := func(c connection.Connection, change func(*connection.Connection)) connection.Connection {
		change(&c)
		return c
	}
	type C = connection.Connection
	for what, k := range map[string]struct {
		c    connection.Connection
		kind fault.Kind
		says string
	}{
		"name":           {with(ok, func(c *C) { c.Name = "A b" }), fault.Invalid, "name of a connection"},
		"kind":           {with(ok, func(c *C) { c.Kind = "pop3" }), fault.Invalid, "not supported by this version"},
		"direction":      {with(ok, func(c *C) { c.Direction = "up" }), fault.Invalid, "direction"},
		"tenant":         {with(ok, func(c *C) { c.Tenant = "nobody" }), fault.Missing, "nobody"},
		"no host":        {with(ok, func(c *C) { c.Host = "" }), fault.Invalid, "no host"},
		"bad host":       {with(ok, func(c *C) { c.Host = "a b" }), fault.Invalid, "not a host"},
		"port":           {with(ok, func(c *C) { c.Port = 70000 }), fault.Invalid, "port 70000"},
		"rule":           {with(ok, func(c *C) { c.TLS = "strong" }), fault.Invalid, "TLS rule"},
		"pin form":       {with(ok, func(c *C) { c.TLS, c.Pins = "verified", []string{"abc"} }), fault.Invalid, "not a pin"},
		"pin of nothing": {with(ok, func(c *C) { c.Pins = []string{"sha256:" + strings.Repeat("ab", 32)} }), fault.Invalid, "pin is of no use"},
		"ca":             {with(ok, func(c *C) { c.TLS, c.CA = "verified", "hello" }), fault.Invalid, "PEM"},
		"server name":    {with(ok, func(c *C) { c.ServerName = "x.test" }), fault.Invalid, "server name"},
		"mechanism":      {with(ok, func(c *C) { c.Auth, c.User = "cram-md5", "u" }), fault.Invalid, "not supported by this version"},
		"scram, no user": {with(ok, func(c *C) { c.Auth = "scram" }), fault.Invalid, "user name"},
		"auth in clear":  {with(ok, func(c *C) { c.Auth, c.User = "plain", "u" }), fault.Invalid, "password"},
		"auth, no user":  {with(ok, func(c *C) { c.Auth, c.TLS = "plain", "verified" }), fault.Invalid, "user name"},
		"user, no auth":  {with(ok, func(c *C) { c.User = "u" }), fault.Invalid, "no AUTH"},
		"domain":         {with(ok, func(c *C) { c.Domains = []string{"a..b"} }), fault.Invalid, "domain name"},
		"another's":      {with(ok, func(c *C) { c.Domains = []string{"globex.test"} }), fault.Invalid, "not a domain of tenant acme"},
		"mx and hosts":   {with(ok, func(c *C) { c.MX, c.Hosts = true, []connection.Host{{Host: "a.test"}, {Host: "b.test"}} }), fault.Invalid, "several hosts"},
		"claims inbound": {with(ok, func(c *C) { c.Networks = []string{"192.0.2.0/24"} }), fault.Invalid, "outbound mail"},
		"says nothing":   {out, fault.Invalid, "neither"},
		"both, no claim": {with(ok, func(c *C) { c.Direction = "both" }), fault.Invalid, "outbound mail"},
		"outbound mx":    {with(out, func(c *C) { c.MX = true }), fault.Invalid, "MX"},
		"network":        {with(out, func(c *C) { c.Networks = []string{"192.0.2.0/33"} }), fault.Invalid, "not a network"},
		"everything":     {with(out, func(c *C) { c.Networks = []string{"0.0.0.0/0"} }), fault.Invalid, "too large"},
		"own overlap":    {with(out, func(c *C) { c.Networks = []string{"192.0.2.0/24", "192.0.2.1"} }), fault.Invalid, "overlap"},
		"fingerprint":    {with(out, func(c *C) { c.ClientCert = []string{"12"} }), fault.Invalid, "SHA-256"},
		"platform":       {with(out, func(c *C) { c.Platform, c.Originator = "yahoo", []string{"a.test"} }), fault.Invalid, "platform"},
		"platform alone": {with(out, func(c *C) { c.Platform = "google" }), fault.Invalid, "go together"},
		"originator":     {with(out, func(c *C) { c.Platform, c.Originator = "google", []string{"a b"} }), fault.Invalid, "originator"},
		"concurrency":    {with(ok, func(c *C) { c.Concurrency = -1 }), fault.Invalid, "concurrency"},
		"weight":         {with(ok, func(c *C) { c.Hosts = []connection.Host{{Host: "a.test", Weight: -1}} }), fault.Invalid, "out of range"},
	} {
		_, err := h.Add(t.Context(), "token:1", k.c)
		if !fault.Is(err, k.kind) || !strings.Contains(err.Error(), k.says) {
			t.Errorf("%s: %v (%v), want kind %v saying %q", what, err, fault.KindOf(err), k.kind, k.says)
		}
		if k.kind == fault.Invalid && fault.HintOf(err) == "" {
			t.Errorf("%s: no hint", what)
		}
	}
	if n := len(h.List("")); n != 0 {
		t.Errorf("refusals left %d connections", n)
	}
}

func TestOneInboundConnection(t *testing.T) {
	testpeer.EachStore(t, func(t *testing.T, s *store.Store) {
		h := newHouse(t, s, nil)
		ctx := t.Context()
		if _, err := h.Inbound("acme", "acme.test"); !fault.Is(err, fault.Later) {
			t.Errorf("without a connection: %v", err)
		}
		h.add(t, connection.Connection{Tenant: "acme", Name: "all", Host: "a.test"})
		for what, c := range map[string]connection.Connection{
			"second for all": {Tenant: "acme", Name: "second", Host: "b.test"},
			"same name":      {Tenant: "acme", Name: "all", Host: "b.test", Domains: []string{"acme.test"}},
		} {
			if _, err := h.Add(ctx, "system", c); !fault.Is(err, fault.Conflict) {
				t.Errorf("%s: %v", what, err)
			}
		}
		h.add(t, connection.Connection{Tenant: "acme", Name: "one", Host: "b.test", Domains: []string{"acme.test"}})
		if _, err := h.Add(ctx, "system", connection.Connection{Tenant: "acme", Name: "two", Host: "c.test", Domains: []string{"acme.example", "acme.test"}}); !fault.Is(err, fault.Conflict) {
			t.Errorf("a domain twice: %v", err)
		}
		for _, r := range []*connection.Registry{h.Registry, h.again(t)} {
			for domain, want := range map[string]string{"acme.test": "t:acme:one", "acme.example": "t:acme:all"} {
				got, err := r.Inbound("acme", domain)
				if err != nil || got.Destination != want || !got.UTF8 || got.MaxSize != 0 {
					t.Errorf("%s: %+v, %v, want %s", domain, got, err, want)
				}
			}
		}
		_, err := h.SetState(ctx, "system", "acme", "one", "disabled")
		must(t, err)
		if _, err := h.Inbound("acme", "acme.test"); !fault.Is(err, fault.Later) {
			t.Errorf("a disabled connection: %v", err)
		}
		must(t, h.Remove(ctx, "system", "acme", "one"))
		if got, err := h.Inbound("acme", "acme.test"); err != nil || got.Connection != "all" {
			t.Errorf("after removing: %+v, %v", got, err)
		}
		h.Offered("t:acme:all", 1000, false)
		if got, _ := h.Inbound("acme", "acme.test"); got.MaxSize != 1000 || got.UTF8 {
			t.Errorf("offers are not remembered: %+v", got)
		}
	})
}

func TestClaims(t *testing.T) {
	testpeer.EachStore(t, func(t *testing.T, s *store.Store) {
		h := newHouse(t, s, nil)
		ctx := t.Context()
		cert := strings.Repeat("ab", 32)
		h.add(t, connection.Connection{
			Tenant: "acme", Name: "out", Direction: "outbound", Networks: []string{"192.0.2.0/24"}, ClientCert: []string{strings.ToUpper(cert)},
			Platform: "exchange-online", Originator: []string{"Acme.OnMicrosoft.example"},
		})
		other := h.again(t) // does not know of what follows
		h.add(t, connection.Connection{Tenant: "acme", Name: "late", Direction: "outbound", ClientCert: []string{strings.Repeat("cd", 32)}})
		for what, c := range map[string]connection.Connection{
			"same network":   {Networks: []string{"192.0.2.0/24"}},
			"part of it":     {Networks: []string{"192.0.2.128/25"}},
			"more than it":   {Networks: []string{"192.0.0.0/16"}},
			"certificate":    {ClientCert: []string{cert}},
			"originator":     {Platform: "exchange-online", Originator: []string{"acme.onmicrosoft.example"}},
			"unknown to one": {ClientCert: []string{strings.Repeat("cd", 32)}},
		} {
			c.Tenant, c.Name, c.Direction = "globex", "out", "outbound"
			r := h.Registry
			if what == "unknown to one" {
				r = other
			}
			_, err := r.Add(ctx, "system", c)
			if !fault.Is(err, fault.Conflict) || !strings.Contains(err.Error(), "already in use") || strings.Contains(err.Error(), "tenant acme") {
				t.Errorf("%s: %v", what, err)
			}
		}
		for _, r := range []*connection.Registry{h.Registry, h.again(t)} {
			for ip, want := range map[string]bool{"192.0.2.200": true, "::ffff:192.0.2.1": true, "192.0.3.1": false, "2001:db8::1": false} {
				if tn, conn, ok := r.ByNetwork(netip.MustParseAddr(ip)); ok != want || ok && (tn != "acme" || conn != "out") {
					t.Errorf("%s: %s, %s, %v", ip, tn, conn, ok)
				}
			}
			if tn, _, _ := r.ByClientCert(cert); tn != "acme" {
				t.Errorf("the certificate is %q's", tn)
			}
			if tn, _, _ := r.ByOriginator("exchange-online", "ACME.onmicrosoft.example"); tn != "acme" {
				t.Errorf("the originator is %q's", tn)
			}
			for platform, org := range map[string]string{"google": "acme.onmicrosoft.example", "client-cert": cert, "network": "192.0.2.0/24", "": ""} {
				if tn, _, ok := r.ByOriginator(platform, org); ok {
					t.Errorf("%s %s is taken for %s", platform, org, tn)
				}
			}
		}
		_, err := h.SetState(ctx, "system", "acme", "out", "disabled")
		must(t, err)
		if _, _, ok := h.ByClientCert(cert); ok {
			t.Error("a disabled connection still proves")
		}
		_, err = h.Add(ctx, "system", connection.Connection{Tenant: "globex", Name: "out", Direction: "outbound", ClientCert: []string{cert}})
		if !fault.Is(err, fault.Conflict) {
			t.Errorf("a disabled connection's claim: %v", err)
		}
		must(t, h.Remove(ctx, "system", "acme", "out"))
		h.add(t, connection.Connection{Tenant: "globex", Name: "out", Direction: "outbound", ClientCert: []string{cert}, Networks: []string{"192.0.0.0/16"}})
		if tn, _, _ := h.ByNetwork(netip.MustParseAddr("192.0.2.200")); tn != "globex" {
			t.Errorf("the network is %q's", tn)
		}
	})
}

func TestTenantRemoval(t *testing.T) {
	testpeer.EachStore(t, func(t *testing.T, s *store.Store) {
		h := newHouse(t, s, nil)
		ctx := t.Context()
		h.add(t, connection.Connection{Tenant: "globex", Name: "in", Host: "127.0.0.1", Auth: "plain", User: "u"})
		h.add(t, connection.Connection{Tenant: "globex", Name: "out", Direction: "outbound", Networks: []string{"192.0.2.0/24"}})
		must(t, h.SetCredential(ctx, "system", "globex", "in", "", "secret"))
		must(t, h.tenants.RemoveDomain(ctx, "system", "globex", "globex.test"))
		must(t, h.tenants.Remove(ctx, "system", "globex", nil))
		_, err := h.tenants.Add(ctx, "system", tenant.Tenant{Name: "globex", Region: "us"})
		must(t, err)
		for _, r := range []*connection.Registry{h.Registry, h.again(t)} {
			if n := len(r.List("globex")); n != 0 {
				t.Errorf("the new tenant has %d of the old one's connections", n)
			}
		}
		if _, _, ok := h.ByNetwork(netip.MustParseAddr("192.0.2.1")); ok {
			t.Error("the network is still the old tenant's")
		}
		if _, err := h.custody.OpenCredential(ctx, client.Use{Tenant: "globex", Connection: "in"}); !fault.Is(err, fault.Missing) {
			t.Errorf("the old password: %v", err)
		}
		h.add(t, connection.Connection{Tenant: "acme", Name: "out", Direction: "outbound", Networks: []string{"192.0.2.0/24"}})
	})
}

// The passwords that are set are listed, of this tenant and of connections
// that there are.
func TestListedCredentials(t *testing.T) {
	testpeer.EachStore(t, func(t *testing.T, s *store.Store) {
		h := newHouse(t, s, nil)
		ctx := t.Context()
		for name, direction := range map[string]string{"in": "inbound", "out": "outbound"} {
			h.add(t, connection.Connection{Tenant: "acme", Name: name, Host: "127.0.0.1", Auth: "plain", User: "u-" + name, Direction: direction})
		}
		h.add(t, connection.Connection{Tenant: "globex", Name: "in", Host: "127.0.0.1", Auth: "plain", User: "other"})
		must(t, h.SetCredential(ctx, "system", "acme", "out", "", "secret"))
		must(t, h.SetCredential(ctx, "system", "acme", "in", "", "secret"))
		must(t, h.SetCredential(ctx, "system", "globex", "in", "", "secret"))
		must(t, h.custody.SetCredential(ctx, "acme", "gone", client.Credential{User: "u", Password: "p"}))
		all, err := h.Credentials(ctx, "acme")
		must(t, err)
		if len(all) != 2 || all[0].Connection != "in" || all[0].User != "u-in" || all[1].Connection != "out" || all[1].Tenant != "acme" || all[1].SetAt.IsZero() {
			t.Errorf("%+v", all)
		}
		must(t, h.Remove(ctx, "system", "acme", "in"))
		if all, err := h.Credentials(ctx, "acme"); err != nil || len(all) != 1 || all[0].Connection != "out" {
			t.Errorf("%+v, %v", all, err)
		}
	})
}

// Through another tenant's door no row of these tables is seen or changed.
func TestOtherTenantsDoor(t *testing.T) {
	const (
		readConnection    store.TenantSQL = `SELECT count(*) FROM connection WHERE tenant = $1 AND name = $2`
		readClaim         store.TenantSQL = `SELECT count(*) FROM claim WHERE tenant = $1 AND connection = $2`
		changeConnection  store.TenantSQL = `UPDATE connection SET state = 'disabled' WHERE tenant = $1 AND name = $2`
		changeClaim       store.TenantSQL = `UPDATE claim SET value = 'x' WHERE tenant = $1 AND connection = $2`
		destroyConnection store.TenantSQL = `DELETE FROM connection WHERE tenant = $1 AND name = $2`
		destroyClaim      store.TenantSQL = `DELETE FROM claim WHERE tenant = $1 AND connection = $2`
	)
	testpeer.EachStore(t, func(t *testing.T, s *store.Store) {
		h := newHouse(t, s, nil)
		ctx := t.Context()
		h.add(t, connection.Connection{Tenant: "acme", Name: "out", Direction: "outbound", Networks: []string{"192.0.2.0/24"}})
		must(t, s.Control.For("globex").Change(ctx, func(tx store.TenantTx) error {
			for _, q := range []store.TenantSQL{changeConnection, changeClaim, destroyConnection, destroyClaim} {
				if n, err := tx.Exec(q, "out"); n != 0 || err != nil {
					t.Errorf("%s: %d rows, %v", q, n, err)
				}
			}
			return nil
		}))
		for _, q := range []store.TenantSQL{readConnection, readClaim} {
			for door, want := range map[string]int{"acme": 1, "globex": 0} {
				var n int
				must(t, s.Control.For(door).QueryRow(ctx, q, "out").Scan(&n))
				if n != want {
					t.Errorf("%s sees %d rows by %s", door, n, q)
				}
			}
		}
		for what, err := range map[string]error{
			"remove": h.Remove(ctx, "system", "globex", "out"),
			"secret": h.SetCredential(ctx, "system", "globex", "out", "", "x"),
			"state":  second(h.SetState(ctx, "system", "globex", "out", "disabled")),
		} {
			if !fault.Is(err, fault.Missing) {
				t.Errorf("%s with the wrong hand: %v", what, err)
			}
		}
	})
}

func second[T any](_ T, err error) error { return err }

func TestHealth(t *testing.T) {
	testpeer.EachStore(t, func(t *testing.T, s *store.Store) {
		h := newHouse(t, s, nil)
		h.add(t, connection.Connection{Tenant: "acme", Name: "in", Host: "a.test"})
		bad, at, reason := false, fixedNow(), "connect: refused"
		h.NoteHealth("acme", "in", connection.Health{OK: &bad, CheckedAt: &at, Reason: &reason})
		h.NoteHealth("acme", "gone", connection.Health{OK: &bad})
		must(t, h.Close(t.Context()))
		for _, r := range []*connection.Registry{h.Registry, h.again(t)} {
			c, _ := r.Get("acme", "in")
			if c.Health.OK == nil || *c.Health.OK || c.Health.Reason == nil || *c.Health.Reason != reason || !c.Health.CheckedAt.Equal(at) {
				t.Errorf("health is %+v", c.Health)
			}
		}
		_, err := h.SetState(t.Context(), "system", "acme", "in", "disabled")
		must(t, err)
		if c, _ := h.Get("acme", "in"); c.Health.OK == nil {
			t.Error("a change of state loses the health")
		}
	})
}

func TestIdentical(t *testing.T) {
	h := newHouse(t, openSQLite(t), nil)
	asked := connection.Connection{Tenant: "acme", Name: "a", Host: "A.test"}
	got := h.add(t, asked)
	if !connection.Identical(asked, got) {
		t.Error("a connection is not identical with what was asked for")
	}
	asked.Port = 26
	if connection.Identical(asked, got) {
		t.Error("another port is identical")
	}
}

func BenchmarkLookUps(b *testing.B) {
	h := newHouse(b, openSQLite(b), nil)
	h.add(b, connection.Connection{Tenant: "acme", Name: "in", Host: "a.test"})
	for i := range 200 {
		c := connection.Connection{Tenant: "acme", Name: fmt.Sprint("n", i), Direction: "outbound", Networks: []string{fmt.Sprintf("10.%d.0.0/%d", i, 16+i%4)}}
		h.add(b, c)
	}
	b.Run("inbound", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := h.Inbound("acme", "acme.test"); err != nil {
				b.Fatal(err)
			}
		}
	})
	ip := netip.MustParseAddr("10.77.0.1")
	b.Run("network", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, _, ok := h.ByNetwork(ip); !ok {
				b.Fatal("not found")
			}
		}
	})
}
