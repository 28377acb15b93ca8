package api_test

import (
	"bytes"
	"testing"

	"github.com/sallyport-mail/sallyport/internal/api"
	"github.com/sallyport-mail/sallyport/internal/queue"
	"github.com/sallyport-mail/sallyport/internal/tenant"
)

// ofATenant are the listings that name a tenant in their query.
func ofATenant() []string {
	return []string{"/v1/messages", "/v1/refusals", "/v1/queue", "/v1/held", "/v1/destinations", "/v1/identities"}
}

// A misspelt tenant is missing, in the words of every other route; one without
// mail is not.
func TestUnknownTenant(t *testing.T) {
	r := newRig(t)
	_, err := r.tenants.Add(t.Context(), "system", tenant.Tenant{Name: "quiet", Region: "us"})
	must(t, err)
	for _, token := range []string{r.operator, r.token(tenant.Read, "")} {
		want := r.call("GET", "/v1/tenants/nobody", token, nil)
		for _, path := range ofATenant() {
			if a := r.call("GET", path+"?tenant=nobody", token, nil); a.status != 404 || !bytes.Equal(a.body, want.body) {
				t.Errorf("%s: %d %s, want %s", path, a.status, a.body, want.body)
			}
			var page api.Page[any]
			if r.ok("GET", path+"?tenant=quiet", token, nil).into(t, &page); len(page.Items) > 0 {
				t.Errorf("%s of a tenant without mail: %v", path, page.Items)
			}
			r.ok("GET", path, token, nil)
		}
	}
	for _, verb := range []string{"retry", "hold", "release", "drop"} {
		a := r.call("POST", "/v1/queue/"+verb, r.operator, object{"tenant": "nobody"})
		if want := r.call("GET", "/v1/tenants/nobody", r.operator, nil); a.status != 404 || !bytes.Equal(a.body, want.body) {
			t.Errorf("%s: %d %s", verb, a.status, a.body)
		}
		r.ok("POST", "/v1/queue/"+verb, r.operator, object{"tenant": "quiet"})
	}
}

// Who is of one tenant is told the same of one that there is and of one that
// there is not.
func TestUnknownTenantTellsNothing(t *testing.T) {
	r := newRig(t)
	r.tenant("acme")
	r.tenant("bolt")
	r.put("bolt", queue.Held)
	for _, role := range []tenant.Role{tenant.Admin, tenant.Read} {
		token := r.token(role, "acme")
		for _, path := range ofATenant() {
			a, b := r.call("GET", path+"?tenant=bolt", token, nil), r.call("GET", path+"?tenant=lost", token, nil)
			if a.status != 404 || b.status != 404 || !bytes.Equal(bytes.ReplaceAll(a.body, []byte("bolt"), []byte("lost")), b.body) {
				t.Errorf("%s of %s: %d %s, of one that is not: %d %s", path, role, a.status, a.body, b.status, b.body)
			}
			r.ok("GET", path+"?tenant=acme", token, nil)
		}
	}
}

// Traces of a tenant that was removed are found by its name while they last.
func TestRemovedTenantsTraces(t *testing.T) {
	r := newRig(t)
	r.tenant("acme")
	message, _ := r.put("acme", queue.Held)
	r.ok("POST", "/v1/queue/drop", r.operator, object{"tenant": "acme"})
	r.ok("DELETE", "/v1/tenants/acme/domains/acme.test", r.operator, nil)
	r.ok("DELETE", "/v1/tenants/acme", r.operator, nil)
	var page api.Page[api.Message]
	if r.ok("GET", "/v1/messages?tenant=acme", r.operator, nil).into(t, &page); len(page.Items) != 1 || page.Items[0].ID != message {
		t.Errorf("%+v", page)
	}
	r.ok("GET", "/v1/messages?tenant=acme&after="+message, r.operator, nil)
	r.ok("GET", "/v1/messages/"+message+"/trace", r.operator, nil)
	if a := r.call("GET", "/v1/queue?tenant=acme", r.operator, nil); a.status != 404 {
		t.Errorf("its queue: %d %s", a.status, a.body)
	}
}
