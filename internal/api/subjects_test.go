package api_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"net/url"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-mail/sallyport/internal/api"
	"github.com/sallyport-mail/sallyport/internal/edge"
	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/mailauth/dns"
	"github.com/sallyport-mail/sallyport/internal/queue"
	"github.com/sallyport-mail/sallyport/internal/tenant"
)

// TestIfAbsent adds each thing three times: new, identical with if_absent, and
// different with if_absent.
func TestIfAbsent(t *testing.T) {
	r := newRig(t)
	r.ok("POST", "/v1/tenants", r.operator, object{"name": "acme", "region": "us"})
	r.ok("POST", "/v1/tenants", r.operator, object{"name": "bolt", "region": "us"})
	box := object{"name": "box", "kind": "smtp", "hosts": []object{{"host": "127.0.0.1", "port": 2601, "weight": 1}}, "tls": "none"}
	other := object{"name": "box", "kind": "smtp", "hosts": []object{{"host": "127.0.0.1", "port": 2602, "weight": 1}}, "tls": "none"}
	for _, c := range []struct {
		name, path      string
		same, different object
	}{
		{"tenant", "/v1/tenants", object{"name": "new", "region": "us"}, object{"name": "new", "region": "uk"}},
		{"domain", "/v1/tenants/acme/domains", object{"name": "acme.test", "recipients": "list"}, object{"name": "acme.test", "recipients": "none"}},
		{"address", "/v1/tenants/acme/directory", object{"address": "Ann@acme.test"}, nil},
		{"connection", "/v1/tenants/acme/connections", box, other},
	} {
		t.Run(c.name, func(t *testing.T) {
			first := r.call("POST", c.path, r.operator, c.same)
			if first.status != 201 {
				t.Fatalf("new: %d %s", first.status, first.body)
			}
			if a := r.call("POST", c.path, r.operator, c.same); a.status != 409 {
				t.Errorf("again: %d %s", a.status, a.body)
			}
			c.same["if_absent"] = true
			if a := r.call("POST", c.path, r.operator, c.same); a.status != 200 || string(a.body) != string(first.body) {
				t.Errorf("identical: %d %s, first %s", a.status, a.body, first.body)
			}
			if c.different == nil {
				return
			}
			c.different["if_absent"] = true
			if a := r.call("POST", c.path, r.operator, c.different); a.status != 409 {
				t.Errorf("different: %d %s", a.status, a.body)
			}
		})
	}
	a := r.call("POST", "/v1/tenants/bolt/domains", r.operator, object{"name": "acme.test", "recipients": "list", "if_absent": true})
	if a.status != 409 || strings.Contains(strings.ReplaceAll(string(a.body), "acme.test", ""), "acme") {
		t.Errorf("another's domain: %d %s", a.status, a.body)
	}
}

func TestSettingsChangePartially(t *testing.T) {
	r := newRig(t)
	r.tenant("acme")
	r.ok("PATCH", "/v1/tenants/acme", r.operator, object{"max_size": 1000, "block": []string{"example.org"}, "expiry_hours": 24})
	var got tenant.Tenant
	r.ok("PATCH", "/v1/tenants/acme", r.operator, object{"expiry_hours": 48}).into(t, &got)
	if s := got.Settings; s.MaxSize != 1000 || s.ExpiryHours != 48 || len(s.Block) != 1 {
		t.Errorf("settings %+v", s)
	}
	r.ok("PATCH", "/v1/tenants/acme", r.operator, object{"block": []string{}, "max_size": 0}).into(t, &got)
	if s := got.Settings; s.MaxSize != 0 || len(s.Block) != 0 || s.ExpiryHours != 48 {
		t.Errorf("settings %+v", s)
	}
	admin := r.token(tenant.Admin, "acme")
	r.ok("PATCH", "/v1/tenants/acme", admin, object{"allow": []string{"example.net"}, "delay_notice_hours": 8})
	for _, limit := range []string{"max_size", "max_recipients", "messages_per_minute", "recipients_per_minute", "connections_max", "trace_days", "failed_days"} {
		if a := r.call("PATCH", "/v1/tenants/acme", admin, object{limit: 7}); a.status != 403 {
			t.Errorf("acme's admin sets %s: %d", limit, a.status)
		}
	}
	if a := r.call("PATCH", "/v1/tenants/acme", admin, object{"egress": "risk"}); a.status != 403 {
		t.Errorf("acme's admin sets the egress pool: %d", a.status)
	}
}

func TestRemoveTenant(t *testing.T) {
	r := newRig(t)
	r.tenant("acme")
	if a := r.call("DELETE", "/v1/tenants/acme", r.operator, nil); a.status != 409 {
		t.Errorf("with a domain: %d %s", a.status, a.body)
	}
	r.ok("DELETE", "/v1/tenants/acme/domains/acme.test", r.operator, nil)
	r.ok("DELETE", "/v1/tenants/acme", r.operator, nil)
	if a := r.call("GET", "/v1/tenants/acme", r.operator, nil); a.status != 404 {
		t.Errorf("after: %d", a.status)
	}
}

func TestPublishedDNS(t *testing.T) {
	r := newRig(t)
	r.tenant("acme")
	r.tenant("bolt")
	show := func(path string) map[string]api.Record {
		var d api.DomainWithDNS
		r.ok("GET", path, r.operator, nil).into(t, &d)
		by := map[string]api.Record{}
		for _, rec := range d.DNS {
			by[rec.Type] = rec
		}
		return by
	}
	got := show("/v1/tenants/acme/domains/acme.test")
	if mx := got["MX"]; !mx.OK || mx.Value != "10 mx.us.example.net" || len(mx.Found) != 1 || mx.Detail != nil {
		t.Errorf("MX %+v", mx)
	}
	if spf := got["TXT"]; !spf.OK || spf.Value != "v=spf1 include:_spf.example.net -all" {
		t.Errorf("SPF %+v", spf)
	}
	got = show("/v1/tenants/bolt/domains/BOLT.test.")
	if mx := got["MX"]; mx.OK || mx.Detail == nil || mx.Found == nil {
		t.Errorf("MX of bolt.test %+v", mx)
	}
	r.cfg.Resolver.(*dns.Fake).Fail["acme.test"] = true
	got = show("/v1/tenants/acme/domains/acme.test")
	if mx := got["MX"]; mx.OK || mx.Detail == nil || !strings.Contains(*mx.Detail, "could not be asked") {
		t.Errorf("MX when the DNS fails %+v", mx)
	}
	if a := r.call("GET", "/v1/tenants/acme/domains/bolt.test", r.operator, nil); a.status != 404 {
		t.Errorf("bolt's domain as acme's: %d", a.status)
	}
}

func TestClaimsAreTheOperators(t *testing.T) {
	r := newRig(t)
	r.tenant("acme")
	admin := r.token(tenant.Admin, "acme")
	ask := func(more object) object {
		o := object{"name": "out", "kind": "smtp", "direction": "outbound", "tls": "none"}
		for k, v := range more {
			o[k] = v
		}
		return o
	}
	for _, claim := range []object{
		{"networks": []string{"10.0.0.0/8"}}, {"client_cert_sha256": []string{strings.Repeat("ab", 32)}},
		{"platform": "exchange-online"}, {"originator": []string{"bolt.test"}, "platform": "exchange-online"},
	} {
		if a := r.call("POST", "/v1/tenants/acme/connections", admin, ask(claim)); a.status != 403 {
			t.Errorf("%v: %d %s", claim, a.status, a.body)
		}
	}
	r.ok("POST", "/v1/tenants/acme/connections", r.operator, ask(object{"networks": []string{"10.9.0.0/16"}}))
}

func TestConnectionFields(t *testing.T) {
	r := newRig(t)
	r.tenant("acme")
	body := object{"name": "out", "kind": "smtp", "direction": "outbound", "state": "disabled", "tenant": "bolt", "created_at": "2001-01-01T00:00:00Z",
		"health": object{"ok": true}, "networks": []string{"10.9.0.0/16"}}
	var got map[string]any
	r.ok("POST", "/v1/tenants/acme/connections", r.operator, body).into(t, &got)
	if got["tenant"] != "acme" || got["state"] != "enabled" || got["health"].(map[string]any)["ok"] != nil || strings.HasPrefix(got["created_at"].(string), "2001") {
		t.Errorf("what the gateway knows by itself was taken from the request: %v", got)
	}
	if v, there := got["host"]; !there || v != nil {
		t.Errorf("host %v, want null", v)
	}
	for _, f := range []string{"tenant", "name", "kind", "direction", "state", "host", "port", "tls", "health"} {
		if _, there := got[f]; !there {
			t.Errorf("the field %s is missing", f)
		}
	}
	if a := r.ok("POST", "/v1/tenants/acme/connections/out/disable", r.operator, object{}); !strings.Contains(string(a.body), `"disabled"`) {
		t.Errorf("%s", a.body)
	}
	if a := r.ok("POST", "/v1/tenants/acme/connections/out/enable", r.operator, nil); !strings.Contains(string(a.body), `"enabled"`) {
		t.Errorf("%s", a.body)
	}
}

func TestCredentials(t *testing.T) {
	r := newRig(t)
	r.tenant("acme")
	const base = "/v1/tenants/acme/credentials"
	var made api.NewPassword
	r.ok("POST", base, r.operator, object{"user": "Scanner", "kind": "smtp-auth"}).into(t, &made)
	if _, err := r.tenants.VerifySubmitter(t.Context(), "scanner", made.Password); err != nil {
		t.Error(err)
	}
	var reset api.NewPassword
	r.ok("POST", base+"/SCANNER/reset", r.operator, nil).into(t, &reset)
	if reset.Password == made.Password || reset.User != "scanner" || reset.State != "active" {
		t.Errorf("reset %+v", reset)
	}
	if a := r.ok("POST", base+"/scanner/revoke", r.operator, nil); !strings.Contains(string(a.body), "revoked") {
		t.Errorf("%s", a.body)
	}
	if a := r.ok("GET", base, r.operator, nil); strings.Contains(string(a.body), reset.Password) || strings.Contains(string(a.body), "password") {
		t.Errorf("the listing shows a password: %s", a.body)
	}
	a := r.ok("PUT", "/v1/tenants/acme/connections/acme-mailbox/credential", r.operator, object{"user": "", "secret": "hunter2"})
	if strings.Contains(string(a.body), "hunter2") || !strings.Contains(string(a.body), "acme-relay") {
		t.Errorf("%s", a.body)
	}
	if a := r.call("POST", base, r.operator, object{"user": "x", "kind": "pop3"}); a.status != 400 {
		t.Errorf("unknown kind: %d", a.status)
	}
}

// Users and connections' passwords are in one listing, page by page, with the
// contract's fields: what is not known is null.
func TestCredentialList(t *testing.T) {
	r := newRig(t)
	r.tenant("acme")
	r.tenant("globex")
	const base = "/v1/tenants/acme/credentials"
	r.ok("POST", base, r.operator, object{"user": "scanner"})
	for _, name := range []string{"acme", "globex"} {
		r.ok("PUT", "/v1/tenants/"+name+"/connections/"+name+"-mailbox/credential", r.operator, object{"secret": "hunter2"})
	}
	var got []object
	for after := ""; ; {
		var page struct {
			Items []object
			Next  string
		}
		r.ok("GET", base+"?limit=1&after="+url.QueryEscape(after), r.operator, nil).into(t, &page)
		got = append(got, page.Items...)
		if after = page.Next; after == "" {
			break
		}
	}
	for _, c := range got {
		walkJSON(t, base, "", c)
		if c["set_at"] == nil {
			t.Errorf("set_at is null: %v", c)
		}
		delete(c, "set_at")
	}
	want := []object{
		{"tenant": "acme", "connection": "acme-mailbox", "user": "acme-relay", "state": "active", "last_used": nil, "last_opened": nil, "opened_count": nil},
		{"tenant": "acme", "connection": "smtp-auth", "user": "scanner", "state": "active", "last_used": nil, "last_opened": nil, "opened_count": 0.0},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("listed %v, not %v", got, want)
	}
}

func TestTokens(t *testing.T) {
	r := newRig(t)
	r.tenant("acme")
	admin := r.token(tenant.Admin, "acme")
	var made struct{ ID, Token, Role, Tenant string }
	r.ok("POST", "/v1/tokens", admin, object{"role": "read", "tenant": ""}).into(t, &made)
	if made.Tenant != "acme" || r.ok("GET", "/v1/tenants/acme", made.Token, nil).status != 200 {
		t.Errorf("made %+v", made)
	}
	if a := r.call("POST", "/v1/tokens", admin, object{"role": "operator"}); a.status != 403 {
		t.Errorf("an admin makes an operator: %d %s", a.status, a.body)
	}
	if a := r.ok("GET", "/v1/tokens", admin, nil); strings.Contains(string(a.body), made.Token) || strings.Contains(string(a.body), "operator") {
		t.Errorf("%s", a.body)
	}
	r.ok("POST", "/v1/tokens/"+made.ID+"/revoke", admin, object{})
	if a := r.call("GET", "/v1/tenants/acme", made.Token, nil); a.status != 401 {
		t.Errorf("a revoked token: %d", a.status)
	}
	past := time.Now().Add(-time.Hour)
	if a := r.call("POST", "/v1/tokens", admin, object{"role": "read", "expires_at": past}); a.status != 400 {
		t.Errorf("expired before it began: %d", a.status)
	}
}

func TestMessageByMessageID(t *testing.T) {
	r := newRig(t)
	r.tenant("acme")
	id, _ := r.put("acme", queue.Held)
	for _, name := range []string{id, "<" + id + "/x@acme.test>", id + "/x@acme.test"} {
		for _, tail := range []string{"", "/trace"} {
			var m struct {
				ID    string
				Steps []map[string]any
			}
			r.ok("GET", "/v1/messages/"+url.PathEscape(name)+tail, r.operator, nil).into(t, &m)
			if m.ID != id || (tail != "") != (m.Steps != nil) {
				t.Errorf("%s%s: %+v", name, tail, m)
			}
		}
	}
}

func TestHeldIsDecidedOnce(t *testing.T) {
	r := newRig(t)
	r.tenant("acme")
	_, held := r.put("acme", queue.Held)
	_, ready := r.put("acme", queue.Ready)
	var h api.Held
	r.ok("GET", "/v1/held/"+held, r.operator, nil).into(t, &h)
	if h.Verdict != "held" || len(h.Reasons) != 1 || h.From != "bob@example.org" || len(h.To) != 1 || h.HeldAt == nil {
		t.Errorf("%+v", h)
	}
	if a := r.call("POST", "/v1/held/"+ready+"/drop", r.operator, object{}); a.status != 404 {
		t.Errorf("one that is not held: %d %s", a.status, a.body)
	}
	r.ok("POST", "/v1/held/"+held+"/release", r.operator, object{})
	if a := r.call("POST", "/v1/held/"+held+"/release", r.operator, object{}); a.status != 404 {
		t.Errorf("again: %d %s", a.status, a.body)
	}
}

func TestStatusAndMetrics(t *testing.T) {
	ends := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	r := newRig(t, func(c *api.Config) {
		c.Edge = func() edge.Stats { return edge.Stats{Sessions: 3, Refused: 4} }
		c.Regions = func() []api.RegionStats { return []api.RegionStats{{Region: "us", Delivered: 5}} }
		c.Certificates = func() []api.Certificate { return []api.Certificate{{Host: "mx.us.example.net", NotAfter: ends}} }
	})
	r.tenant("acme")
	var st api.Status
	r.ok("GET", "/v1/status", r.operator, nil).into(t, &st)
	if st.Version != "test" || st.Tenants != 1 || st.Edge.Sessions != 3 || st.Regions[0].Delivered != 5 || st.Store.Commits == 0 || !st.Certificates[0].NotAfter.Equal(ends) {
		t.Errorf("%+v", st)
	}
	if a := r.call("GET", "/metrics", "", nil); a.status != 401 {
		t.Errorf("metrics without a token: %d", a.status)
	}
	text := string(r.ok("GET", "/metrics", r.operator, nil).body)
	for _, line := range []string{
		`sallyport_queue_items{state="held"} 0`, "sallyport_queue_oldest_ready_seconds 0", "sallyport_accepted_total 0", "sallyport_delivered_total 0",
		"sallyport_deferred_total 0", "sallyport_failed_total 0", "sallyport_smtp_sessions 3", "sallyport_smtp_refused_total 4",
		"sallyport_store_commit_group_size ", "sallyport_store_wal_bytes ", "sallyport_store_free_bytes ", "sallyport_store_changes_waiting ",
		`sallyport_certificate_not_after_seconds{host="mx.us.example.net"} 1.893553445e+09`, `sallyport_region_delivered_total{region="us"} 5`,
		"sallyport_tenants 1", "go_goroutines ",
	} {
		if !strings.Contains(text, "\n"+line) {
			t.Errorf("metrics lack %s", line)
		}
	}
}

func TestOpenMetrics(t *testing.T) {
	r := newRig(t, func(c *api.Config) { c.OpenMetrics = true })
	r.ok("GET", "/metrics", "", nil)
}

func TestHealth(t *testing.T) {
	var broken error
	r := newRig(t, func(c *api.Config) { c.Ready = func(context.Context) error { return broken } })
	r.ok("GET", "/healthz", "", nil)
	r.ok("GET", "/readyz", "", nil)
	broken = errors.New("disk I/O error on /dev/sda")
	r.ok("GET", "/healthz", "", nil)
	a := r.call("GET", "/readyz", "", nil)
	if a.status != 503 || strings.Contains(string(a.body), "sda") || a.header.Get("Retry-After") == "" {
		t.Errorf("%d %s", a.status, a.body)
	}
}

func TestDoctor(t *testing.T) {
	r := newRig(t, func(c *api.Config) {
		c.Checks = []api.Check{
			{Name: "disk", Run: func(context.Context) (bool, string, string) { return true, "10 GiB free", "" }},
			{Name: "broken", Run: func(context.Context) (bool, string, string) { panic("oh") }},
			{Name: "dns", Run: func(context.Context) (bool, string, string) { return false, "no answer", "Set a server." }},
		}
	})
	got := strings.TrimSpace(string(r.ok("GET", "/v1/doctor", r.operator, nil).body))
	const want = `[{"name":"disk","ok":true,"detail":"10 GiB free","fix":null},` +
		`{"name":"broken","ok":false,"detail":"the check itself failed","fix":"Report this: the log has the details."},` +
		`{"name":"dns","ok":false,"detail":"no answer","fix":"Set a server."}]`
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestBackup(t *testing.T) {
	r := newRig(t)
	r.tenant("acme")
	a := r.ok("POST", "/v1/backup", r.operator, nil)
	files := 0
	for tr := tar.NewReader(bytes.NewReader(a.body)); ; files++ {
		if _, err := tr.Next(); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if files == 0 || a.header.Get("Content-Type") != "application/x-tar" {
		t.Errorf("%d files, %v", files, a.header)
	}
	r.scratchIsEmpty()
}

// scratchIsEmpty waits a moment: a file goes after the last byte of its answer.
func (r *rig) scratchIsEmpty() {
	r.t.Helper()
	left, err := os.ReadDir(r.cfg.Scratch)
	for end := time.Now().Add(2 * time.Second); err == nil && len(left) > 0 && time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		left, err = os.ReadDir(r.cfg.Scratch)
	}
	must(r.t, err)
	if len(left) > 0 {
		r.t.Errorf("%d files are left behind", len(left))
	}
}

func TestBackupThatFails(t *testing.T) {
	r := newRig(t, func(c *api.Config) {
		c.Backup = func(_ context.Context, file string) error {
			must(t, os.WriteFile(file, []byte("half"), 0o600))
			return fault.New(fault.Later, "x.Backup", "the disk is full")
		}
	})
	a := r.call("POST", "/v1/backup", r.operator, nil)
	if a.status != 503 || a.problem(t).Detail != "the disk is full" {
		t.Errorf("%d %s", a.status, a.body)
	}
	r.scratchIsEmpty()
}

func TestVerify(t *testing.T) {
	var found []api.Finding
	r := newRig(t, func(c *api.Config) { c.Verify = func(context.Context) ([]api.Finding, error) { return found, nil } })
	if got := strings.TrimSpace(string(r.ok("POST", "/v1/verify", r.operator, object{}).body)); got != `{"ok":true,"problems":[]}` {
		t.Error(got)
	}
	found = []api.Finding{{Where: "bodies/x", What: "its checksum is wrong"}}
	if got := strings.TrimSpace(string(r.ok("POST", "/v1/verify", r.operator, object{}).body)); got != `{"ok":false,"problems":[{"where":"bodies/x","what":"its checksum is wrong"}]}` {
		t.Error(got)
	}
}

func TestLists(t *testing.T) {
	r := newRig(t)
	if got := strings.TrimSpace(string(r.ok("GET", "/v1/lists", r.operator, nil).body)); got != `{"block":[],"allow":[]}` {
		t.Error(got)
	}
	r.ok("PUT", "/v1/lists", r.operator, object{"block": []string{"203.0.113.0/24"}, "allow": nil})
	if got := strings.TrimSpace(string(r.ok("GET", "/v1/lists", r.operator, nil).body)); got != `{"block":["203.0.113.0/24"],"allow":[]}` {
		t.Error(got)
	}
}

func TestStopsOfATenant(t *testing.T) {
	r := newRig(t)
	r.tenant("acme")
	admin := r.token(tenant.Admin, "acme")
	for _, scope := range []object{{"scope": "outbound"}, {"scope": "domain", "value": "x.test"}, {"scope": "sender", "value": "a@acme.test"}} {
		if a := r.call("POST", "/v1/stops", admin, scope); a.status != 403 {
			t.Errorf("%v: %d", scope, a.status)
		}
	}
	r.ok("POST", "/v1/stops", admin, object{"scope": "tenant", "value": "acme", "reason": "drill"})
	r.ok("POST", "/v1/stops", r.operator, object{"scope": "domain", "value": "x.test"})
	if a := r.ok("GET", "/v1/stops", admin, nil); strings.Contains(string(a.body), "x.test") || !strings.Contains(string(a.body), "drill") {
		t.Errorf("%s", a.body)
	}
	r.ok("POST", "/v1/stops/lift", admin, object{"scope": "tenant", "value": "acme"})
	r.ok("POST", "/v1/stops", r.operator, object{"scope": "tenant", "value": "acme", "reason": "abuse"})
	for _, path := range []string{"/v1/stops", "/v1/stops/lift"} {
		if a := r.call("POST", path, admin, object{"scope": "tenant", "value": "acme"}); a.status != 403 {
			t.Errorf("the operator's switch, by acme's admin: %s %d %s", path, a.status, a.body)
		}
	}
	if st := r.queue.Stops(); len(st) != 2 {
		t.Errorf("stops %+v", st)
	}
	r.ok("POST", "/v1/stops/lift", r.operator, object{"scope": "tenant", "value": "acme"})
}

// The token of a customer's administrator is not shown, a tenant's admin
// reaches Microsoft's own addresses alone, and what is absent is null.
func TestIdentityRoutes(t *testing.T) {
	r := newRig(t)
	r.tenant("acme")
	admin := r.token(tenant.Admin, "acme")
	ask := func(more object) object {
		o := object{"name": "cloud", "kind": "m365", "direction": "outbound", "networks": []string{}, "host": "127.0.0.1", "port": 1,
			"entra_tenant": "0d2f6d5f-9c5a-4b8e-8a51-0e8d4c1c2b11", "print_setup": true}
		for k, v := range more {
			o[k] = v
		}
		return o
	}
	for _, more := range []object{{"graph": "https://127.0.0.1:1"}, {"login": "https://login.evil.test"}} {
		if a := r.call("POST", "/v1/tenants/acme/connections", admin, ask(more)); a.status != 403 {
			t.Errorf("%v: %d %s", more, a.status, a.body)
		}
	}
	a := r.ok("POST", "/v1/tenants/acme/connections", admin, ask(nil))
	if !strings.Contains(string(a.body), "New-InboundConnector") {
		t.Errorf("%s", a.body)
	}
	if a := r.call("POST", "/v1/tenants/acme/connections/cloud/setup", admin, object{"admin_token": "hunter2", "print_setup": true}); strings.Contains(string(a.body), "hunter2") || r.keeper.Secrets() != 0 {
		t.Errorf("a token that was only to be reviewed with is kept or shown: %s", a.body)
	}
	var list struct{ Items []map[string]any }
	r.ok("GET", "/v1/identities?tenant=acme", admin, nil).into(t, &list)
	if len(list.Items) != 1 {
		t.Fatalf("%v", list.Items)
	}
	for _, f := range []string{"id", "tenant", "connection", "purpose", "epoch", "name", "state", "not_before", "not_after", "sha256", "decoy"} {
		if _, there := list.Items[0][f]; !there {
			t.Errorf("the field %s is missing", f)
		}
	}
	if list.Items[0]["decoy"] != false {
		t.Errorf("decoy %v", list.Items[0]["decoy"])
	}
	var p map[string]any
	r.ok("POST", "/v1/tenants/acme/connections/cloud/replace", admin, nil).into(t, &p)
	for _, f := range []string{"ok", "from", "to", "steps", "refused", "delayed_max_ms"} {
		if _, there := p[f]; !there {
			t.Errorf("the field %s is missing", f)
		}
	}
	if p["to"] != nil || p["refused"] != nil || p["waiting"] != nil || p["ok"] != false {
		t.Errorf("what is absent is not null: %v", p)
	}
	r.ok("POST", "/v1/tenants/acme/connections/cloud/replace/undo", admin, nil)
}
