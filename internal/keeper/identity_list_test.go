package keeper

import (
	"strings"
	"testing"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/keeper/act"
)

func TestListIdentities(t *testing.T) {
	eachStore(t, func(t *testing.T, r *rig) {
		r.boundAll(t, "acme", "other", "third")
		want := map[string][]string{}
		for _, tenant := range []string{"acme", "other", "third"} {
			for range 3 {
				want[tenant] = append(want[tenant], r.issued(t, tenant, ofClient, 0).ID)
			}
		}
		read := func(c act.Context, limit int) (ids []string, pages int) {
			for after := ""; ; pages++ {
				got, err := r.ListIdentities(t.Context(), someone(), act.IdentityQuery{Context: c, After: after, Limit: limit})
				if err != nil {
					t.Fatal(err)
				}
				for _, i := range got.Identities {
					ids = append(ids, i.ID)
				}
				if after = got.Next; after == "" {
					return ids, pages + 1
				}
			}
		}
		region := act.Context{Region: "us", Purpose: "list", Trace: "t"}
		all, pages := read(region, 2)
		if len(all) != 10 || pages != 5 {
			t.Errorf("%d in %d pages", len(all), pages)
		}
		for tenant, ids := range want {
			c := region
			c.Tenant = tenant
			if got, _ := read(c, 2); strings.Join(got, " ") != strings.Join(ids, " ") {
				t.Errorf("%s: %v, not %v", tenant, got, ids)
			}
			c.Connection = "another"
			if got, _ := read(c, 0); len(got) != 0 {
				t.Errorf("%v", got)
			}
		}
		host := region
		host.Connection = "mx.us.gate.example"
		got, err := r.ListIdentities(t.Context(), someone(), act.IdentityQuery{Context: host})
		if err != nil || len(got.Identities) != 1 || got.Identities[0].Tenant != "" || got.Identities[0].Purpose != "smtp-server" || got.Identities[0].State != act.Active {
			t.Errorf("%+v %v", got, err)
		}
		c := region
		c.Tenant = "other"
		if got, err := r.ListIdentities(t.Context(), someone(), act.IdentityQuery{Context: c, Identity: want["acme"][0]}); err != nil || len(got.Identities) != 0 {
			t.Errorf("another tenant's: %+v %v", got, err)
		}
		for _, q := range []act.IdentityQuery{{Context: region, Limit: 201}, {Context: region, Limit: -1}, {Context: region, After: "none"}} {
			if _, err := r.ListIdentities(t.Context(), someone(), q); !fault.Is(err, fault.Invalid) {
				t.Errorf("%+v: %v", q, err)
			}
		}
	})
}

// A page is cut by its size too.
func TestLongPage(t *testing.T) {
	r := newRig(t)
	long := strings.Repeat("x", 40<<10)
	for i := range 15 {
		id := identity{id: string(rune('a' + i)), tenant: "acme", connection: "mailbox", purpose: ofClient, chain: long, sha256: string(rune('a' + i)), handle: []byte{1}, marker: []byte{1}}
		r.sql(t, insertIdentity, id.values()...)
	}
	got, err := r.list(t.Context(), act.IdentityQuery{Context: of("acme", "list")})
	if err != nil || len(got.Identities) != 10 || got.Next != "j" {
		t.Errorf("%d, next %q: %v", len(got.Identities), got.Next, err)
	}
}
