package tenant_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/store"
	"github.com/sallyport-mail/sallyport/internal/tenant"
)

// clock is a time that a test sets.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func newClock() *clock { return &clock{at: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)} }

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

func openRegistry(t testing.TB, s *store.Store, c *clock) *tenant.Registry {
	t.Helper()
	r, err := tenant.New(context.Background(), tenant.Config{
		DB: s.Control, Regions: []string{"us", "de"}, Log: slog.New(slog.DiscardHandler), Now: c.now,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return r
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantKind(t testing.TB, err error, kind fault.Kind) {
	t.Helper()
	if !fault.Is(err, kind) {
		t.Errorf("got %v (%v), want kind %v", err, fault.KindOf(err), kind)
	}
}

func addTenants(t testing.TB, r *tenant.Registry, names ...string) {
	t.Helper()
	for _, n := range names {
		_, err := r.Add(t.Context(), "system", tenant.Tenant{Name: n, Region: "us"})
		must(t, err)
	}
}

func TestTenants(t *testing.T) {
	eachStore(t, func(t *testing.T, s *store.Store) {
		c := newClock()
		r := openRegistry(t, s, c)
		ctx := t.Context()
		addTenants(t, r, "globex", "acme", "initech")
		settings := tenant.Settings{TraceDays: 7, Block: []string{".spam.example"}, DelayNoticeHours: -1}
		_, err := r.Set(ctx, "token:x", "acme", settings)
		must(t, err)
		_, err = r.AddDomain(ctx, "system", tenant.Domain{Name: "Acme.TEST.", Tenant: "acme"})
		must(t, err)
		_, err = r.AddDomain(ctx, "system", tenant.Domain{Name: "bücher.example", Tenant: "acme", Recipients: "list", PlusTags: true})
		must(t, err)

		again := openRegistry(t, s, c)
		for name, r := range map[string]*tenant.Registry{"at once": r, "after a restart": again} {
			if got := names(r.Tenants("", 2)); got != "acme globex" {
				t.Errorf("%s: first page: %q", name, got)
			}
			if got := names(r.Tenants("globex", 2)); got != "initech" {
				t.Errorf("%s: second page: %q", name, got)
			}
			acme, ok := r.Tenant("acme")
			if !ok || acme.Settings.TraceDays != 7 || acme.Region != "us" || !acme.CreatedAt.Equal(c.now()) {
				t.Errorf("%s: acme is %+v", name, acme)
			}
			if d, ok := r.Domain("acme.test"); !ok || d.Tenant != "acme" || d.Recipients != "none" || d.PlusTags {
				t.Errorf("%s: acme.test is %+v", name, d)
			}
			if d, ok := r.Domain("xn--bcher-kva.example"); !ok || d.Recipients != "list" || !d.PlusTags {
				t.Errorf("%s: the international domain is %+v", name, d)
			}
			if _, ok := r.Domain("sub.acme.test"); ok {
				t.Errorf("%s: a subdomain was found that nobody added", name)
			}
			if v, _ := r.Sender("acme", "192.0.2.1", "x@mail.spam.example"); v != tenant.Blocked {
				t.Errorf("%s: the tenant's block list is not effective", name)
			}
			if a, b := r.Count(); a != 3 || b != 2 {
				t.Errorf("%s: count %d, %d", name, a, b)
			}
		}
	})
}

func names(list []tenant.Tenant) string {
	var b []string
	for _, t := range list {
		b = append(b, t.Name)
	}
	return strings.Join(b, " ")
}

func TestRefusals(t *testing.T) {
	eachStore(t, func(t *testing.T, s *store.Store) {
		r := openRegistry(t, s, newClock())
		ctx := t.Context()
		addTenants(t, r, "acme", "globex")
		_, err := r.AddDomain(ctx, "system", tenant.Domain{Name: "acme.test", Tenant: "acme"})
		must(t, err)
		add := func(name, region string, s tenant.Settings) error {
			_, err := r.Add(ctx, "system", tenant.Tenant{Name: name, Region: region, Settings: s})
			return err
		}
		domain := func(tn, name, mode string) error {
			_, err := r.AddDomain(ctx, "system", tenant.Domain{Name: name, Tenant: tn, Recipients: mode})
			return err
		}
		for _, c := range []struct {
			what string
			err  error
			kind fault.Kind
			says string
		}{
			{"no name", add("", "us", tenant.Settings{}), fault.Invalid, "name of a tenant"},
			{"upper case", add("Acme", "us", tenant.Settings{}), fault.Invalid, "name of a tenant"},
			{"path", add("../x", "us", tenant.Settings{}), fault.Invalid, "name of a tenant"},
			{"41 letters", add(strings.Repeat("a", 41), "us", tenant.Settings{}), fault.Invalid, "name of a tenant"},
			{"region", add("x", "mars", tenant.Settings{}), fault.Invalid, `region "mars"`},
			{"twice", add("acme", "us", tenant.Settings{}), fault.Conflict, "exists already"},
			{"days", add("x", "us", tenant.Settings{TraceDays: -1}), fault.Invalid, "trace_days"},
			{"list", add("x", "us", tenant.Settings{Block: []string{"@"}}), fault.Invalid, "block list"},
			{"egress", add("x", "us", tenant.Settings{Egress: "a b"}), fault.Invalid, "egress pool"},
			{"unknown tenant", domain("nobody", "x.test", ""), fault.Missing, "nobody"},
			{"bad domain", domain("acme", "a..b", ""), fault.Invalid, "not a domain"},
			{"bad mode", domain("acme", "b.test", "guess"), fault.Invalid, "recipients"},
			{"own domain", domain("acme", "ACME.test", ""), fault.Conflict, "already in use"},
			{"another's domain", domain("globex", "acme.test", ""), fault.Conflict, "already in use"},
			{"another's removal", r.RemoveDomain(ctx, "system", "globex", "acme.test"), fault.Missing, "does not exist"},
			{"with domains", r.Remove(ctx, "system", "acme", nil), fault.Conflict, "domains"},
			{"unknown", r.Remove(ctx, "system", "nobody", nil), fault.Missing, "nobody"},
		} {
			if !fault.Is(c.err, c.kind) || !strings.Contains(fmt.Sprint(c.err), c.says) {
				t.Errorf("%s: got %v (%v), want kind %v saying %q", c.what, c.err, fault.KindOf(c.err), c.kind, c.says)
			}
			if strings.Contains(c.what, "another") && strings.Contains(fmt.Sprint(c.err)+fault.HintOf(c.err), "tenant acme") {
				t.Errorf("%s: %v names the other tenant", c.what, c.err)
			}
		}
		if a, b := r.Count(); a != 2 || b != 1 {
			t.Errorf("refusals left something behind: %d tenants, %d domains", a, b)
		}
	})
}

// A unique index refuses what another process has taken meanwhile.
func TestDatabaseRefusesASecondOwner(t *testing.T) {
	eachStore(t, func(t *testing.T, s *store.Store) {
		c := newClock()
		first := openRegistry(t, s, c)
		addTenants(t, first, "acme", "globex")
		second := openRegistry(t, s, c)
		_, err := first.AddDomain(t.Context(), "system", tenant.Domain{Name: "acme.test", Tenant: "acme"})
		must(t, err)
		_, err = second.AddDomain(t.Context(), "system", tenant.Domain{Name: "acme.test", Tenant: "globex"})
		wantKind(t, err, fault.Conflict)
		_, err = second.Add(t.Context(), "system", tenant.Tenant{Name: "globex", Region: "us"})
		wantKind(t, err, fault.Conflict)
		_, _, err = first.AddSubmitter(t.Context(), "system", "acme", "app")
		must(t, err)
		_, _, err = second.AddSubmitter(t.Context(), "system", "globex", "app")
		wantKind(t, err, fault.Conflict)
	})
}

func TestRemove(t *testing.T) {
	eachStore(t, func(t *testing.T, s *store.Store) {
		c := newClock()
		r := openRegistry(t, s, c)
		ctx := t.Context()
		var done []string
		r.OnRemove(tenant.Hook{Done: func(tn, d string) { done = append(done, tn+"/"+d) }})
		r.OnRemove(tenant.Hook{Domain: func(tx store.TenantTx, d string) error {
			if d == "kept.test" {
				return fault.New(fault.Later, "", "not now")
			}
			return nil
		}})
		addTenants(t, r, "acme")
		for _, d := range []string{"acme.test", "kept.test"} {
			_, err := r.AddDomain(ctx, "system", tenant.Domain{Name: d, Tenant: "acme"})
			must(t, err)
		}
		_, secret, err := r.AddToken(ctx, "system", tenant.Token{Role: tenant.Admin, Tenant: "acme"})
		must(t, err)
		_, _, err = r.AddSubmitter(ctx, "system", "acme", "app")
		must(t, err)

		wantKind(t, r.RemoveDomain(ctx, "system", "acme", "kept.test"), fault.Later)
		if _, ok := r.Domain("kept.test"); !ok {
			t.Error("a domain is gone although a hook refused")
		}
		must(t, r.RemoveDomain(ctx, "system", "acme", "ACME.test"))
		if _, ok := r.Domain("acme.test"); ok {
			t.Error("the domain is still there")
		}
		wantKind(t, r.Remove(ctx, "system", "acme", nil), fault.Conflict)

		r2 := openRegistry(t, s, c) // without the hook that refuses
		must(t, r2.RemoveDomain(ctx, "system", "acme", "kept.test"))
		busy := func(string) error { return fault.New(fault.Conflict, "", "mail is queued") }
		wantKind(t, r2.Remove(ctx, "system", "acme", busy), fault.Conflict)
		must(t, r2.Remove(ctx, "system", "acme", func(string) error { return nil }))
		_, err = r2.Authenticate(secret)
		wantKind(t, err, fault.Denied)
		if _, ok := r2.Tenant("acme"); ok {
			t.Error("the tenant is still there")
		}
		if region, ok := r2.RegionOf("acme"); !ok || region != "us" {
			t.Errorf("the region of the tenant that went is %q", region)
		}
		if _, ok := r2.RegionOf("nobody"); ok {
			t.Error("nobody has a region")
		}
		addTenants(t, r2, "acme")
		if n := len(r2.Submitters("acme")); n != 0 {
			t.Errorf("the new tenant of that name has %d of the old one's users", n)
		}
		if len(openRegistry(t, s, c).Submitters("")) != 0 {
			t.Error("users outlive their tenant in the database")
		}
		if want := "acme/acme.test"; strings.Join(done, " ") != want {
			t.Errorf("hooks were told %q, want %q", done, want)
		}
	})
}

func TestSetDomain(t *testing.T) {
	eachStore(t, func(t *testing.T, s *store.Store) {
		c := newClock()
		r := openRegistry(t, s, c)
		addTenants(t, r, "acme", "globex")
		_, err := r.AddDomain(t.Context(), "system", tenant.Domain{Name: "acme.test", Tenant: "acme"})
		must(t, err)
		_, err = r.SetDomain(t.Context(), "system", tenant.Domain{Name: "acme.test", Tenant: "globex", Recipients: "none"})
		wantKind(t, err, fault.Missing)
		_, err = r.SetDomain(t.Context(), "system", tenant.Domain{Name: "acme.test", Tenant: "acme", Recipients: "none", PlusTags: true})
		must(t, err)
		for _, r := range []*tenant.Registry{r, openRegistry(t, s, c)} {
			if d, _ := r.Domain("acme.test"); d.Recipients != "none" || !d.PlusTags || !d.CreatedAt.Equal(c.now()) {
				t.Errorf("the domain is %+v", d)
			}
		}
	})
}

// Each change leaves an audit event; each refusal none.
func TestAudit(t *testing.T) {
	s := openSQLite(t)
	r := openRegistry(t, s, newClock())
	ctx := t.Context()
	addTenants(t, r, "acme")
	_, err := r.Set(ctx, "token:1", "acme", tenant.Settings{})
	must(t, err)
	_, err = r.AddDomain(ctx, "token:1", tenant.Domain{Name: "acme.test", Tenant: "acme"})
	must(t, err)
	_, err = r.AddDomain(ctx, "token:1", tenant.Domain{Name: "acme.test", Tenant: "acme"})
	wantKind(t, err, fault.Conflict)
	must(t, r.RemoveDomain(ctx, "token:1", "acme", "acme.test"))
	tok, _, err := r.AddToken(ctx, "token:1", tenant.Token{Role: tenant.Read})
	must(t, err)
	must(t, r.RevokeToken(ctx, "token:1", tok.ID))
	_, _, err = r.AddSubmitter(ctx, "token:1", "acme", "app")
	must(t, err)
	_, err = r.ResetSubmitter(ctx, "token:1", "acme", "app")
	must(t, err)
	must(t, r.RevokeSubmitter(ctx, "token:1", "acme", "app"))
	must(t, r.SetLists(ctx, "token:1", tenant.Lists{Block: []string{"192.0.2.0/24"}}))
	must(t, r.Remove(ctx, "token:1", "acme", nil))
	want := "tenant.add tenant.set domain.add domain.remove token.add token.revoke " +
		"credential.add credential.reset credential.revoke lists.set tenant.remove"
	if got := strings.Join(acts(t, s), " "); got != want {
		t.Errorf("events\n got %s\nwant %s", got, want)
	}
}

// acts are the acts in the outbox, without those of operators' reads.
func acts(t *testing.T, s *store.Store) []string {
	t.Helper()
	const q store.OperatorSQL = `SELECT act FROM outbox WHERE purpose = '' ORDER BY seq`
	rows, err := s.Control.Operator("test").Query(t.Context(), q)
	must(t, err)
	defer rows.Close()
	var list []string
	for rows.Next() {
		var act string
		must(t, rows.Scan(&act))
		list = append(list, act)
	}
	must(t, rows.Err())
	return list
}

// Changes from many sides leave memory and database alike.
func TestConcurrentChanges(t *testing.T) {
	eachStore(t, func(t *testing.T, s *store.Store) {
		c := newClock()
		r := openRegistry(t, s, c)
		addTenants(t, r, "acme")
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Go(func() {
				for n := range 5 {
					_, err := r.Set(t.Context(), "system", "acme", tenant.Settings{TraceDays: 1 + i*10 + n})
					if err != nil {
						t.Error(err)
					}
					name := fmt.Sprintf("d%d.test", n)
					_, err = r.AddDomain(t.Context(), "system", tenant.Domain{Name: name, Tenant: "acme"})
					if err != nil && !fault.Is(err, fault.Conflict) {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		here, _ := r.Tenant("acme")
		there, _ := openRegistry(t, s, c).Tenant("acme")
		if here.Settings.TraceDays != there.Settings.TraceDays {
			t.Errorf("memory has %d, the database %d", here.Settings.TraceDays, there.Settings.TraceDays)
		}
		if n := len(r.Domains("acme")); n != 5 {
			t.Errorf("%d domains, want 5", n)
		}
	})
}

func TestErrorsHaveSentences(t *testing.T) {
	r := openRegistry(t, openSQLite(t), newClock())
	_, err := r.Add(t.Context(), "system", tenant.Tenant{Name: "x", Region: "mars"})
	var e *fault.Error
	if !errors.As(err, &e) || e.Hint != "Give one of the regions us, de." {
		t.Errorf("hint %q", fault.HintOf(err))
	}
}
