package api

import (
	"context"
	"net/http"
	"testing"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/tenant"
)

// TestAllows is the whole matrix of needs and principals.
func TestAllows(t *testing.T) {
	operator := tenant.Principal{Role: tenant.Operator}
	admin := tenant.Principal{Role: tenant.Admin, Tenant: "acme"}
	reader := tenant.Principal{Role: tenant.Read, Tenant: "acme"}
	watcher := tenant.Principal{Role: tenant.Read}
	homeless := tenant.Principal{Role: tenant.Admin}
	captive := tenant.Principal{Role: tenant.Operator, Tenant: "acme"}
	nobody := tenant.Principal{}
	for _, c := range []struct {
		p     tenant.Principal
		needs map[need]bool
	}{
		{operator, map[need]bool{needReader: true, needAdmin: true, needWatcher: true, needOperator: true}},
		{admin, map[need]bool{needReader: true, needAdmin: true}},
		{reader, map[need]bool{needReader: true}},
		{watcher, map[need]bool{needReader: true, needWatcher: true}},
		{homeless, nil},
		{captive, map[need]bool{needReader: true, needAdmin: true}},
		{nobody, nil},
	} {
		for n := needReader; n <= needOperator; n++ {
			if n.allows(c.p) != c.needs[n] {
				t.Errorf("need %d for %+v: %v", n, c.p, !c.needs[n])
			}
		}
	}
	if (needOperator + 1).allows(operator) {
		t.Error("an unknown need allows")
	}
}

func TestScope(t *testing.T) {
	for _, c := range []struct {
		p               tenant.Principal
		requested, want string
		kind            fault.Kind // when want is "!"
	}{
		{tenant.Principal{Role: tenant.Operator}, "", "", 0},
		{tenant.Principal{Role: tenant.Operator}, "acme", "acme", 0},
		{tenant.Principal{Role: tenant.Read}, "", "", 0},
		{tenant.Principal{Role: tenant.Admin, Tenant: "acme"}, "", "acme", 0},
		{tenant.Principal{Role: tenant.Admin, Tenant: "acme"}, "acme", "acme", 0},
		{tenant.Principal{Role: tenant.Admin, Tenant: "acme"}, "bolt", "!", fault.Missing},
		{tenant.Principal{Role: tenant.Operator, Tenant: "acme"}, "bolt", "!", fault.Missing},
		{tenant.Principal{Role: tenant.Admin}, "", "!", fault.Denied},
		{tenant.Principal{}, "", "!", fault.Denied},
		{tenant.Principal{}, "acme", "!", fault.Denied},
	} {
		got, err := scope(withCaller(context.Background(), c.p), c.requested)
		if c.want == "!" {
			if !fault.Is(err, c.kind) || got != "" {
				t.Errorf("%+v asks for %q: %q, %v", c.p, c.requested, got, err)
			}
		} else if got != c.want || err != nil {
			t.Errorf("%+v asks for %q: %q, %v", c.p, c.requested, got, err)
		}
	}
	if _, err := scope(context.Background(), ""); !fault.Is(err, fault.Denied) {
		t.Errorf("without a caller: %v", err)
	}
}

// TestEachKindHasItsStatus keeps the client able to tell kinds apart.
func TestEachKindHasItsStatus(t *testing.T) {
	seen := map[int]fault.Kind{}
	for k := fault.Internal; k <= fault.Never; k++ {
		if other, taken := seen[statusOf(k)]; taken {
			t.Errorf("%s and %s are both %d", k, other, statusOf(k))
		}
		seen[statusOf(k)] = k
		if http.StatusText(statusOf(k)) == "" || kindName(statusOf(k)) != k.String() {
			t.Errorf("%s: %d %q", k, statusOf(k), kindName(statusOf(k)))
		}
	}
}

// TestUnlistedRouteCannotBeRegistered shows the panic that keeps a route from
// being forgotten in the table.
func TestUnlistedRouteCannotBeRegistered(t *testing.T) {
	s := &server{needs: map[string]need{}}
	defer func() {
		if recover() == nil {
			t.Error("a route without a row was registered")
		}
	}()
	s.register(http.NewServeMux())
}
