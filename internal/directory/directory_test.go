package directory_test

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sallyport-mail/sallyport/internal/connection"
	"github.com/sallyport-mail/sallyport/internal/directory"
	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/mail"
	"github.com/sallyport-mail/sallyport/internal/mailauth/dns"
	"github.com/sallyport-mail/sallyport/internal/store"
	"github.com/sallyport-mail/sallyport/internal/tenant"
	"github.com/sallyport-mail/sallyport/internal/testpeer"
	"github.com/sallyport-mail/sallyport/internal/testpeer/custodian"
)

// clock is a time that a test sets.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

// house is a directory with what it stands on: the tenants acme (acme.test by
// list, probe.test by probe, none.test) and globex (globex.test by list).
type house struct {
	*directory.Directory
	config directory.Config
	clock  *clock
	store  *store.Store
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func newHouse(t testing.TB, s *store.Store) *house {
	t.Helper()
	ctx, log := t.Context(), slog.New(slog.DiscardHandler)
	h := &house{store: s, clock: &clock{at: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)}}
	tenants, err := tenant.New(ctx, tenant.Config{DB: s.Control, Regions: []string{"us"}, Log: log, Now: h.clock.now})
	must(t, err)
	custody := custodian.Files(t, t.TempDir())
	connections, err := connection.New(ctx, connection.Config{
		DB: s.Control, Tenants: tenants, Resolver: dns.Fake{}, Signers: custody, Credentials: custody, Log: log, Now: h.clock.now,
	})
	must(t, err)
	t.Cleanup(func() { connections.Close(context.Background()) })
	h.config = directory.Config{DB: s.Control, Tenants: tenants, Connections: connections, Hello: "us.test", Log: log, Now: h.clock.now}
	for _, name := range []string{"acme", "globex"} {
		_, err := tenants.Add(ctx, "system", tenant.Tenant{Name: name, Region: "us"})
		must(t, err)
	}
	for _, d := range []tenant.Domain{
		{Name: "acme.test", Tenant: "acme", Recipients: "list"}, {Name: "probe.test", Tenant: "acme", Recipients: "probe"},
		{Name: "none.test", Tenant: "acme", Recipients: "none"}, {Name: "tags.test", Tenant: "acme", Recipients: "list", PlusTags: true},
		{Name: "globex.test", Tenant: "globex", Recipients: "list"},
	} {
		_, err := tenants.AddDomain(ctx, "system", d)
		must(t, err)
	}
	h.Directory = h.again(t)
	return h
}

func (h *house) again(t testing.TB) *directory.Directory {
	t.Helper()
	x, err := directory.New(t.Context(), h.config)
	must(t, err)
	t.Cleanup(x.Close)
	return x
}

func openSQLite(t testing.TB) *store.Store {
	return testpeer.OpenStore(t, store.Config{Dir: t.TempDir()})
}

func address(t testing.TB, s string) mail.Address {
	t.Helper()
	a, err := mail.ParseAddress(s)
	must(t, err)
	return a
}

// ask checks an address as the edge does.
func (h *house) ask(t testing.TB, x *directory.Directory, s string) (directory.Answer, string) {
	t.Helper()
	a := address(t, s)
	d, ok := h.config.Tenants.Domain(a.Domain)
	if !ok {
		t.Fatalf("no domain %s", a.Domain)
	}
	return x.Check(t.Context(), d, a)
}

func (h *house) want(t testing.TB, s string, want directory.Answer) {
	t.Helper()
	if got, text := h.ask(t, h.Directory, s); got != want {
		t.Errorf("%s: %v (%s), want %v", s, got, text, want)
	}
}

func TestList(t *testing.T) {
	testpeer.EachStore(t, func(t *testing.T, s *store.Store) {
		h := newHouse(t, s)
		ctx := t.Context()
		h.want(t, "b@acme.test", directory.Unknown)
		_, err := h.Add(ctx, "token:1", "acme", address(t, "B@acme.test"))
		must(t, err)
		h.want(t, "b@acme.test", directory.Known) // at once, although "no" was remembered
		h.want(t, "B@ACME.TEST", directory.Known)
		h.want(t, `"b"@acme.test`, directory.Known)
		h.want(t, "b+tag@acme.test", directory.Unknown)
		h.want(t, "PostMaster@acme.test", directory.Known)
		h.want(t, "ABUSE@acme.test", directory.Known)
		h.want(t, "anybody@none.test", directory.Known)
		_, err = h.Add(ctx, "token:1", "acme", address(t, "c@tags.test"))
		must(t, err)
		h.want(t, "c+x+y@tags.test", directory.Known)
		h.want(t, "+x@tags.test", directory.Unknown)

		_, err = h.Add(ctx, "token:1", "acme", address(t, "b@acme.test"))
		if !fault.Is(err, fault.Conflict) {
			t.Errorf("twice: %v", err)
		}
		for _, s := range []string{"x@globex.test", "x@nowhere.test"} {
			if _, err := h.Add(ctx, "token:1", "acme", address(t, s)); !fault.Is(err, fault.Invalid) {
				t.Errorf("%s: %v", s, err)
			}
		}
		must(t, h.Remove(ctx, "token:1", "acme", address(t, "b@ACME.test")))
		h.want(t, "b@acme.test", directory.Unknown)
		if err := h.Remove(ctx, "token:1", "acme", address(t, "b@acme.test")); !fault.Is(err, fault.Missing) {
			t.Errorf("removing twice: %v", err)
		}
	})
}

func TestImportAndPages(t *testing.T) {
	testpeer.EachStore(t, func(t *testing.T, s *store.Store) {
		h := newHouse(t, s)
		ctx := t.Context()
		var all []mail.Address
		for i := range 1234 {
			all = append(all, address(t, fmt.Sprintf("User%04d@acme.test", i)))
		}
		n, err := h.Import(ctx, "token:1", "acme", append(all, all[5]))
		if err != nil || n != len(all) {
			t.Fatalf("%d new, %v", n, err)
		}
		if n, err := h.Import(ctx, "token:1", "acme", all); err != nil || n != 0 {
			t.Errorf("again: %d new, %v", n, err)
		}
		if _, err := h.Import(ctx, "token:1", "acme", []mail.Address{address(t, "x@globex.test")}); !fault.Is(err, fault.Invalid) {
			t.Errorf("another's domain: %v", err)
		}
		var seen []string
		for after := ""; ; {
			page, err := h.List(ctx, "acme", after, 500)
			must(t, err)
			for _, e := range page {
				seen = append(seen, e.Address)
				after = e.Address
			}
			if len(page) < 500 {
				break
			}
		}
		if len(seen) != len(all) || seen[0] != "User0000@acme.test" || seen[1233] != "User1233@acme.test" {
			t.Errorf("%d addresses by pages, %d added", len(seen), len(all))
		}
		h.want(t, "user0777@acme.test", directory.Known)
	})
}

func TestDomainMoves(t *testing.T) {
	testpeer.EachStore(t, func(t *testing.T, s *store.Store) {
		h := newHouse(t, s)
		ctx := t.Context()
		_, err := h.Add(ctx, "system", "acme", address(t, "b@acme.test"))
		must(t, err)
		h.want(t, "b@acme.test", directory.Known)
		must(t, h.config.Tenants.RemoveDomain(ctx, "system", "acme", "acme.test"))
		for _, owner := range []string{"globex", "acme"} {
			_, err = h.config.Tenants.AddDomain(ctx, "system", tenant.Domain{Name: "acme.test", Tenant: owner, Recipients: "list"})
			must(t, err)
			h.want(t, "b@acme.test", directory.Unknown)
			must(t, h.config.Tenants.RemoveDomain(ctx, "system", owner, "acme.test"))
		}
	})
}

// Through another tenant's door no row of these tables is seen or changed.
func TestOtherTenantsDoor(t *testing.T) {
	const (
		readRecipient    store.TenantSQL = `SELECT count(*) FROM recipient WHERE tenant = $1 AND key = $2`
		readProbe        store.TenantSQL = `SELECT count(*) FROM probe WHERE tenant = $1 AND key = $2`
		changeRecipient  store.TenantSQL = `UPDATE recipient SET address = 'x' WHERE tenant = $1 AND key = $2`
		changeProbe      store.TenantSQL = `UPDATE probe SET at = 0 WHERE tenant = $1 AND key = $2`
		destroyRecipient store.TenantSQL = `DELETE FROM recipient WHERE tenant = $1 AND key = $2`
		destroyProbe     store.TenantSQL = `DELETE FROM probe WHERE tenant = $1 AND key = $2`
	)
	testpeer.EachStore(t, func(t *testing.T, s *store.Store) {
		h := newHouse(t, s)
		ctx := t.Context()
		h.serve(t, testpeer.SinkRules{})
		_, err := h.Add(ctx, "system", "acme", address(t, "b@acme.test"))
		must(t, err)
		h.want(t, "b@probe.test", directory.Known)
		keys := map[store.TenantSQL]string{readRecipient: "b@acme.test", readProbe: "b@probe.test"}
		must(t, s.Control.For("globex").Change(ctx, func(tx store.TenantTx) error {
			for _, q := range []store.TenantSQL{changeRecipient, destroyRecipient, changeProbe, destroyProbe} {
				for _, key := range keys {
					if n, err := tx.Exec(q, key); n != 0 || err != nil {
						t.Errorf("%s: %d rows, %v", q, n, err)
					}
				}
			}
			return nil
		}))
		for q, key := range keys {
			for door, want := range map[string]int{"acme": 1, "globex": 0} {
				var n int
				must(t, s.Control.For(door).QueryRow(ctx, q, key).Scan(&n))
				if n != want {
					t.Errorf("%s sees %d rows by %s", door, n, q)
				}
			}
		}
		if list, err := h.List(ctx, "globex", "", 10); err != nil || len(list) != 0 {
			t.Errorf("globex lists %v, %v", list, err)
		}
		if err := h.Remove(ctx, "system", "globex", address(t, "b@acme.test")); !fault.Is(err, fault.Missing) {
			t.Errorf("globex removes: %v", err)
		}
	})
}

// serve starts acme's mail server and connects it.
func (h *house) serve(t testing.TB, rules testpeer.SinkRules) *testpeer.Sink {
	t.Helper()
	s := testpeer.StartSink(t, rules)
	h.connect(t, s.Addr)
	return s
}

func (h *house) connect(t testing.TB, addr string) {
	t.Helper()
	host, port, err := net.SplitHostPort(addr)
	must(t, err)
	n, err := strconv.Atoi(port)
	must(t, err)
	if _, ok := h.config.Connections.Get("acme", "in"); ok {
		must(t, h.config.Connections.Remove(t.Context(), "system", "acme", "in"))
	}
	_, err = h.config.Connections.Add(t.Context(), "system", connection.Connection{Tenant: "acme", Name: "in", Host: host, Port: n, TLS: "none"})
	must(t, err)
}

// isStranger recognises the address that nobody has.
func isStranger(to mail.Recipient) bool { return strings.HasPrefix(to.Local, "sallyport-") }

// TestMain looks for goroutines that outlive their directory; the database
// server that the suite shares is waited for by one of the test's own.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("os/exec.(*Cmd).Wait"))
}

func BenchmarkCheck(b *testing.B) {
	h := newHouse(b, openSQLite(b))
	var all []mail.Address
	for i := range 300_000 {
		all = append(all, mail.Address{Local: fmt.Sprintf("user%d", i), Domain: "acme.test"})
	}
	_, err := h.Import(b.Context(), "system", "acme", all)
	must(b, err)
	d, _ := h.config.Tenants.Domain("acme.test")
	b.Run("again", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if a, _ := h.Check(b.Context(), d, all[7]); a != directory.Known {
				b.Fatal(a)
			}
		}
	})
	b.Run("first", func(b *testing.B) {
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			if a, _ := h.Check(b.Context(), d, all[i*7919%len(all)]); a != directory.Known {
				b.Fatal(a)
			}
		}
	})
}
