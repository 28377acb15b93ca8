package keeper

import (
	"errors"
	"strings"
	"testing"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/keeper/act"
	"github.com/sallyport-mail/sallyport/internal/keeper/seal"
	"github.com/sallyport-mail/sallyport/internal/store"
)

func TestBindConnection(t *testing.T) {
	eachStore(t, func(t *testing.T, r *rig) {
		r.boundAll(t, "acme", "acme")
		other := aBinding()
		other.Port = 26
		if _, err := r.BindConnection(t.Context(), someone(), act.Bind{Context: of("acme", "binding"), Binding: other}); !fault.Is(err, fault.Conflict) || !strings.Contains(fault.HintOf(err), "order") {
			t.Errorf("another: %v", err)
		}
		if before, after := r.outcome(t, act.BindConnection); !strings.Contains(before.Subject, "mail.partner.example:26") || !strings.HasPrefix(after.Outcome, failed) {
			t.Errorf("%+v %+v", before, after)
		}
		if _, err := r.BindConnection(t.Context(), someone(), act.Bind{Context: act.Context{Tenant: "region:pool", Connection: "x"}, Binding: aBinding()}); !fault.Is(err, fault.Denied) {
			t.Errorf("the region's own: %v", err)
		}
	})
}

func TestCheckBinding(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*act.Binding)
		good   bool
	}{
		"as it is":             {func(b *act.Binding) {}, true},
		"an address":           {func(b *act.Binding) { b.Host = "192.0.2.1" }, true},
		"an IPv6 address":      {func(b *act.Binding) { b.Host = "2001:db8::1" }, true},
		"an authority's port":  {func(b *act.Binding) { b.Authority = "127.0.0.1:2611" }, true},
		"an app alone":         {func(b *act.Binding) { b.Host, b.Port = "", 0 }, true},
		"no partner":           {func(b *act.Binding) { *b = act.Binding{} }, false},
		"no port":              {func(b *act.Binding) { b.Port = 0 }, false},
		"no host":              {func(b *act.Binding) { b.Host = "" }, false},
		"a path as host":       {func(b *act.Binding) { b.Host = "a/b" }, false},
		"a scoped address":     {func(b *act.Binding) { b.Host = "fe80::1%eth0" }, false},
		"an upper-case hash":   {func(b *act.Binding) { b.CA = strings.ToUpper(b.CA) }, false},
		"a short pin":          {func(b *act.Binding) { b.Pin = "ab" }, false},
		"a wrong server name":  {func(b *act.Binding) { b.ServerName = "a b" }, false},
		"a path as authority":  {func(b *act.Binding) { b.Authority = "login.example/evil" }, false},
		"a port of words":      {func(b *act.Binding) { b.Authority = "login.example:https" }, false},
		"a tenant by name":     {func(b *act.Binding) { b.EntraTenant = "contoso.example" }, false},
		"a wrong app":          {func(b *act.Binding) { b.App = "x" }, false},
		"a wrong object":       {func(b *act.Binding) { b.AppObject = "11111111-2222-3333-4444-55555555555g" }, false},
		"ids and no authority": {func(b *act.Binding) { b.Authority = "" }, false},
	} {
		b := aBinding()
		c.change(&b)
		if err := checkBinding(b); (err == nil) != c.good || err != nil && (!fault.Is(err, fault.Invalid) || fault.HintOf(err) == "") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestReleaseConnection(t *testing.T) {
	eachStore(t, func(t *testing.T, r *rig) {
		r.boundAll(t, "acme", "other")
		bad := r.to(t, r.issued(t, "acme", ofClient, 0), act.Compromised)
		active := r.to(t, r.issued(t, "acme", ofClient, 2), act.Active)
		issued := r.issued(t, "acme", ofClient, 0)
		keep := r.to(t, r.issued(t, "other", ofClient, 0), act.Active)
		if err := r.shake(t, of("acme", ofClient), active.SHA256); err != nil {
			t.Fatal(err)
		}
		if _, err := r.ReleaseConnection(t.Context(), someone(), act.Plain{Context: of("acme", "binding")}); err != nil {
			t.Fatal(err)
		}
		if before, after := r.outcome(t, act.ReleaseConnection); before.Connection != "mailbox" || after.Outcome != carried {
			t.Errorf("%+v %+v", before, after)
		}
		for id, want := range map[string]act.IdentityState{bad.ID: act.Compromised, active.ID: act.Retired, issued.ID: act.Retired, keep.ID: act.Active} {
			if got := r.show(t, id).State; got != want {
				t.Errorf("%s is %s, not %s", id, got, want)
			}
		}
		if err := r.shake(t, of("acme", ofClient), active.SHA256); !fault.Is(err, fault.Denied) {
			t.Errorf("%v", err)
		}
		r.boundAll(t, "acme") // and it may be bound anew
	})
}

func TestRebind(t *testing.T) {
	eachStore(t, func(t *testing.T, r *rig) {
		to := aBinding()
		to.Host, to.App = "new.partner.example", anObject
		if err := r.rebind(t.Context(), "acme", "mailbox", to, nil); !fault.Is(err, fault.Missing) {
			t.Errorf("unbound: %v", err)
		}
		r.boundAll(t, "acme")
		one := r.to(t, r.issued(t, "acme", ofClient, 0), act.Active)
		old := r.to(t, r.issued(t, "acme", ofClient, 0), act.Retired)
		key := r.to(t, r.issued(t, "acme", app, 0), act.Active)
		if err := r.shake(t, of("acme", ofClient), one.SHA256); err != nil {
			t.Fatal(err)
		}
		stop := errors.New("no")
		if err := r.rebind(t.Context(), "acme", "mailbox", to, func(store.KeeperTx, seal.Binding, seal.Binding) error { return stop }); !errors.Is(err, stop) {
			t.Errorf("%v", err)
		}
		if err := r.shake(t, of("acme", ofClient), one.SHA256); err != nil {
			t.Errorf("after an order that failed: %v", err)
		}
		var from, now seal.Binding
		err := r.rebind(t.Context(), "acme", "mailbox", to, func(_ store.KeeperTx, a, b seal.Binding) error { from, now = a, b; return nil })
		if err != nil || from != seal.Binding(aBinding()) || now != seal.Binding(to) {
			t.Fatalf("%v: %+v %+v", err, from, now)
		}
		if err := r.shake(t, of("acme", ofClient), one.SHA256); err != nil {
			t.Error(err)
		}
		got, err := r.AssertClient(t.Context(), someone(), act.Assertion{Context: of("acme", app), LifeSeconds: 60})
		if err != nil {
			t.Fatal(err)
		}
		if claims := readJWT(t, got.Token, rsaOf(t, key), "PS256"); claims["iss"] != anObject {
			t.Errorf("%v", claims)
		}
		r.loadable(t)
		if row, err := r.row(t.Context(), selectByID, old.ID); err != nil || row.binding != bindingText(aBinding()) {
			t.Errorf("what is retired stays where it was shown: %+v %v", row, err)
		}
		if _, err := r.BindConnection(t.Context(), someone(), act.Bind{Context: of("acme", "binding"), Binding: to}); err != nil {
			t.Error(err)
		}
		if err := r.rebind(t.Context(), "acme", "mailbox", act.Binding{}, nil); !fault.Is(err, fault.Invalid) {
			t.Errorf("%v", err)
		}
	})
}

// loadable loads every row's key.
func (r *rig) loadable(t testing.TB) int {
	t.Helper()
	all, err := r.rows(t.Context(), selectPageOfAll, "", "", "", int64(0), "", 100_000)
	if err != nil {
		t.Fatal(err)
	}
	for _, one := range all {
		ended := one.state == act.Retired || one.state == act.Compromised
		if _, err := r.load(t.Context(), one); err != nil && (!ended || len(one.handle) > 0) {
			t.Errorf("%s %s of %s: %v", one.id, one.state, one.tenant, err)
		}
		if err := r.openMarker(t.Context(), &known{identity: *one}); err != nil && one.state != act.Retired && one.state != act.Compromised {
			t.Errorf("the marker of %s %s of %s: %v", one.id, one.state, one.tenant, err)
		}
	}
	return len(all)
}
