package api_test

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/sallyport-mail/sallyport/internal/mail"
	"github.com/sallyport-mail/sallyport/internal/queue"
	"github.com/sallyport-mail/sallyport/internal/tenant"
)

type page struct {
	Items []map[string]any `json:"items"`
	Next  string           `json:"next"`
}

// all reads a listing page by page and returns the key of every item.
func (r *rig) all(t testing.TB, path, key string, limit int) (keys []string) {
	t.Helper()
	q := url.Values{"limit": {fmt.Sprint(limit)}}
	for {
		var p page
		a := send(t, r.url, "GET", path+"?"+q.Encode(), r.operator, nil)
		a.into(t, &p)
		if p.Items == nil || len(p.Items) > limit {
			t.Fatalf("%s: %s", path, a.body)
		}
		for _, item := range p.Items {
			keys = append(keys, item[key].(string))
		}
		if p.Next == "" {
			return keys
		}
		q.Set("after", p.Next)
	}
}

// TestPagesCoverAll reads listings of every sort, with pages of any size: each
// item comes exactly once.
func TestPagesCoverAll(t *testing.T) {
	r := newRig(t)
	r.tenant("acme")
	const n = 9
	ctx := t.Context()
	for i := range n - 1 {
		_, err := r.tenants.Add(ctx, "system", tenant.Tenant{Name: fmt.Sprintf("t-%d", i), Region: "us"})
		must(t, err)
		_, err = r.tenants.AddDomain(ctx, "system", tenant.Domain{Name: fmt.Sprintf("d%d.test", i), Tenant: "acme"})
		must(t, err)
		_, err = r.cfg.Directory.Add(ctx, "system", "acme", mail.Address{Local: fmt.Sprintf("User%d", i), Domain: "acme.test"})
		must(t, err)
		_, _, err = r.tenants.AddToken(ctx, "system", tenant.Token{Role: tenant.Read})
		must(t, err)
	}
	for range n {
		r.put("acme", queue.Held)
	}
	listings := []struct{ path, key string }{
		{"/v1/tenants", "name"}, {"/v1/tenants/acme/domains", "name"}, {"/v1/tenants/acme/directory", "address"},
		{"/v1/tokens", "id"}, {"/v1/messages", "id"}, {"/v1/queue", "id"}, {"/v1/held", "id"},
	}
	rapid.Check(t, func(rt *rapid.T) {
		l := rapid.SampledFrom(listings).Draw(rt, "listing")
		limit := rapid.IntRange(1, n+2).Draw(rt, "limit")
		keys := r.all(t, l.path, l.key, limit)
		slices.Sort(keys)
		if distinct := len(slices.Compact(slices.Clone(keys))); len(keys) != n || distinct != n {
			t.Fatalf("%s in pages of %d: %d items, %d different, want %d", l.path, limit, len(keys), distinct, n)
		}
	})
}

// TestShapes checks what all answers have in common: empty lists are [], times
// are in UTC, absent values are null.
func TestShapes(t *testing.T) {
	r := newRig(t)
	for _, path := range []string{"/v1/tenants", "/v1/messages", "/v1/queue", "/v1/held", "/v1/destinations", "/v1/stops", "/v1/refusals"} {
		if a := r.ok("GET", path, r.operator, nil); strings.TrimSpace(string(a.body)) != `{"items":[],"next":""}` {
			t.Errorf("%s: %s", path, a.body)
		}
	}
	r.tenant("acme")
	_, item := r.put("acme", queue.Held)
	for _, path := range []string{"/v1/tenants/acme", "/v1/tenants/acme/connections/acme-mailbox", "/v1/queue/" + item, "/v1/held/" + item, "/v1/tokens"} {
		a := r.ok("GET", path, r.operator, nil)
		var v any
		a.into(t, &v)
		walkJSON(t, path, "", v)
	}
	var tok struct{ Items []map[string]any }
	r.ok("GET", "/v1/tokens", r.operator, nil).into(t, &tok)
	if v, there := tok.Items[0]["tenant"]; !there || v != nil {
		t.Errorf("the tenant of an operator's token is %v", v)
	}
}

// lists are the fields that are lists in the contract.
func walkJSON(t *testing.T, path, field string, v any) {
	lists := []string{"block", "allow", "hosts", "pins", "domains", "networks", "client_cert_sha256", "originator", "recipients", "to", "reasons"}
	switch v := v.(type) {
	case map[string]any:
		for k, e := range v {
			walkJSON(t, path, k, e)
		}
	case []any:
		for _, e := range v {
			walkJSON(t, path, field, e)
		}
	case nil:
		if slices.Contains(lists, field) {
			t.Errorf("%s: the list %s is null", path, field)
		}
	case string:
		if strings.HasSuffix(field, "_at") {
			if at, err := time.Parse(time.RFC3339Nano, v); err != nil || !strings.HasSuffix(v, "Z") || at.Year() < 2020 {
				t.Errorf("%s: %s is %q", path, field, v)
			}
		}
	}
}
