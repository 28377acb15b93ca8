package sim

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"maps"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/sallyport-mail/sallyport/internal/exchange/admin"
	"github.com/sallyport-mail/sallyport/internal/exchange/entra"
	"github.com/sallyport-mail/sallyport/internal/exchange/graph"
	"github.com/sallyport-mail/sallyport/internal/exchange/wire"
	"github.com/sallyport-mail/sallyport/internal/fault"
)

func b64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

const scope = "https://graph.microsoft.com/.default"

// register puts the certificate on the first tenant's application, by the
// administrator's hand.
func (r *rig) register(keys ...*appKey) {
	r.t.Helper()
	all := []map[string]any{} // empty and not null: null would leave the list alone
	for _, k := range keys {
		all = append(all, map[string]any{"type": "AsymmetricX509Cert", "usage": "Verify", "key": base64.StdEncoding.EncodeToString(k.cert.Raw)})
	}
	status, out, _ := r.call("PATCH", "/v1.0/applications(appId='"+r.one.AppID+"')", r.one.AdminToken, map[string]any{"keyCredentials": all})
	if status != http.StatusNoContent {
		r.t.Fatalf("PATCH: %d %v", status, out)
	}
}

// assertion is a good client assertion but for what change spoils.
func (r *rig) assertion(k *appKey, alg string, change func(header, body map[string]any)) string {
	print := sha256.Sum256(k.cert.Raw)
	header := map[string]any{"typ": "JWT", "x5t#S256": b64(print[:])}
	now := r.clock.Now()
	body := map[string]any{"aud": r.one.Graph + "/" + r.one.EntraTenant + "/oauth2/v2.0/token", "iss": r.one.AppID, "sub": r.one.AppID,
		"jti": uuid.NewString(), "nbf": now.Unix(), "exp": now.Add(10 * time.Minute).Unix()}
	if change != nil {
		change(header, body)
	}
	return k.jwt(r.t, alg, header, body)
}

func (r *rig) form(assertion string) url.Values {
	return url.Values{"client_id": {r.one.AppID}, "scope": {scope}, "grant_type": {"client_credentials"},
		"client_assertion_type": {"urn:ietf:params:oauth:client-assertion-type:jwt-bearer"}, "client_assertion": {assertion}}
}

func (r *rig) ask(tenant string, form url.Values) (int, map[string]any, http.Header) {
	return r.call("POST", "/"+tenant+"/oauth2/v2.0/token", "", form.Encode())
}

// TestTokenErrors walks the errors of the token endpoint.
func TestTokenErrors(t *testing.T) {
	r := startRig(t, Config{})
	good := newAppKey(t, r.clock.Now().Add(-time.Hour), 24*time.Hour)
	old := newAppKey(t, r.clock.Now().Add(-48*time.Hour), 24*time.Hour)
	stranger := newAppKey(t, r.clock.Now().Add(-time.Hour), 24*time.Hour)
	r.register(good, old)
	with := func(name, value string) func() url.Values {
		return func() url.Values {
			f := r.form(r.assertion(good, "PS256", nil))
			f.Set(name, value)
			return f
		}
	}
	spoiled := func(k *appKey, alg string, change func(h, b map[string]any)) func() url.Values {
		return func() url.Values { return r.form(r.assertion(k, alg, change)) }
	}
	for _, c := range []struct {
		name   string
		tenant string
		form   func() url.Values
		code   float64
		word   string
		status int
	}{
		{"good", "", spoiled(good, "PS256", nil), 0, "", 200},
		{"RS256", "", spoiled(good, "RS256", nil), 0, "", 200},
		{"padded thumbprint", "", spoiled(good, "PS256", func(h, _ map[string]any) {
			sum := sha256.Sum256(good.cert.Raw)
			h["x5t#S256"] = base64.StdEncoding.EncodeToString(sum[:])
		}), 0, "", 200},
		{"no such tenant", uuid.NewString(), spoiled(good, "PS256", nil), 90002, "invalid_request", 400},
		{"no such application", "", with("client_id", uuid.NewString()), 700016, "unauthorized_client", 400},
		{"no assertion", "", with("client_assertion", ""), 7000218, "invalid_client", 401},
		{"a secret", "", with("client_secret", "x"), 7000215, "invalid_client", 401},
		{"a bad scope", "", with("scope", "User.Read"), 70011, "invalid_scope", 400},
		{"two resources", "", with("scope", scope+" https://outlook.office365.com/.default"), 28002, "invalid_request", 400},
		{"a key that is not registered", "", spoiled(stranger, "PS256", nil), 700027, "invalid_client", 401},
		{"an expired certificate", "", spoiled(old, "PS256", nil), 700027, "invalid_client", 401},
		{"another key's signature", "", func() url.Values {
			sum := sha256.Sum256(good.cert.Raw)
			return r.form(r.assertion(stranger, "PS256", func(h, _ map[string]any) { h["x5t#S256"] = b64(sum[:]) }))
		}, 700027, "invalid_client", 401},
		{"expired", "", spoiled(good, "PS256", func(_, b map[string]any) { b["exp"] = r.clock.Now().Add(-time.Hour).Unix() }), 700024, "invalid_client", 401},
		{"not yet", "", spoiled(good, "PS256", func(_, b map[string]any) { b["nbf"] = r.clock.Now().Add(time.Hour).Unix() }), 700024, "invalid_client", 401},
		{"without exp", "", spoiled(good, "PS256", func(_, b map[string]any) { delete(b, "exp") }), 700024, "invalid_client", 401},
		{"another audience", "", spoiled(good, "PS256", func(_, b map[string]any) { b["aud"] = "https://elsewhere.test/token" }), 50012, "invalid_client", 401},
		{"another issuer", "", spoiled(good, "PS256", func(_, b map[string]any) { b["iss"] = "x" }), 50012, "invalid_client", 401},
		{"alg none", "", func() url.Values {
			parts := strings.Split(r.assertion(good, "PS256", nil), ".")
			sum := sha256.Sum256(good.cert.Raw)
			return r.form(b64([]byte(`{"alg":"none","x5t#S256":"`+b64(sum[:])+`"}`)) + "." + parts[1] + ".")
		}, 700027, "invalid_client", 401},
		{"no JWT", "", with("client_assertion", "a.b"), 50012, "invalid_client", 401},
	} {
		t.Run(c.name, func(t *testing.T) {
			tenant := r.one.EntraTenant
			if c.tenant != "" {
				tenant = c.tenant
			}
			status, out, h := r.ask(tenant, c.form())
			codes, _ := out["error_codes"].([]any)
			if status != c.status || c.code != 0 && (len(codes) != 1 || codes[0] != c.code || out["error"] != c.word) {
				t.Fatalf("%d %v", status, out)
			}
			if h.Get("x-ms-request-id") == "" || c.code == 0 && out["access_token"] == nil {
				t.Errorf("no request id, or no token: %v", out)
			}
		})
	}
	rows := r.SignIns(r.one.EntraTenant)
	if len(rows) != 17 || rows[0].ErrorCode != 0 || rows[0].UTI == "" || rows[0].KeyID == "" || rows[len(rows)-1].ErrorCode != 50012 {
		t.Errorf("%d rows in the sign-in log, 17 expected", len(rows)) // all but those of no tenant and no application
	}
}

// TestTokenSwitches holds what is switched on at the token endpoint.
func TestTokenSwitches(t *testing.T) {
	r := startRig(t, Config{})
	k := newAppKey(t, r.clock.Now().Add(-time.Hour), 24*time.Hour)
	r.register(k)
	refused := func(what string, form url.Values, code float64) {
		t.Helper()
		if _, out, _ := r.ask(r.one.EntraTenant, form); out["error_codes"] == nil || out["error_codes"].([]any)[0] != code {
			t.Errorf("%s: %v", what, out)
		}
	}
	form := r.form(r.assertion(k, "PS256", nil))
	r.admin("PATCH", "Simulator", map[string]any{"StrictJTI": true})
	if status, out, _ := r.ask(r.one.EntraTenant, form); status != 200 {
		t.Fatal(out)
	}
	refused("a replay", form, 50012)
	r.admin("PATCH", "Simulator", map[string]any{"AllowedAddresses": []string{"192.0.2.0/24"}})
	refused("another address", r.form(r.assertion(k, "PS256", nil)), 53003)
	r.admin("PATCH", "Simulator", map[string]any{"TokenThrottle": true})
	refused("throttled", r.form(r.assertion(k, "PS256", nil)), 90055)
	r.admin("PATCH", "Simulator", map[string]any{"TokenThrottle": false})
	if status, out, _ := r.call("PATCH", "/v1.0/servicePrincipals(appId='"+r.one.AppID+"')", r.one.AdminToken, map[string]any{"accountEnabled": false}); status != 204 {
		t.Fatal(out)
	}
	refused("disabled", r.form(r.assertion(k, "PS256", nil)), 7000112)
}

// clients are the three clients of the first tenant, which sign with k.
func (r *rig) clients(k *appKey) (*entra.Client, *graph.Client, *admin.Client) {
	r.t.Helper()
	print := sha256.Sum256(k.cert.Raw)
	tokens, err := entra.New(entra.Config{Base: r.one.Graph, Tenant: r.one.EntraTenant, ClientID: r.one.AppID, HTTP: r.http,
		CorrelationID: func(context.Context) (string, error) { return "11111111-2222-4333-8444-555555555555", nil },
		Assert: func(_ context.Context, audience string, life time.Duration) (string, error) {
			now := r.clock.Now()
			return signJWT("PS256", map[string]any{"x5t#S256": b64(print[:])}, map[string]any{"aud": audience, "iss": r.one.AppID, "sub": r.one.AppID,
				"jti": uuid.NewString(), "nbf": now.Unix(), "exp": now.Add(life).Unix()}, k.key)
		}})
	if err != nil {
		r.t.Fatal(err)
	}
	g := graph.New(graph.Config{Base: r.one.Graph, HTTP: r.http, Now: r.clock.Now, Token: func(ctx context.Context) (string, error) {
		token, err := tokens.Token(ctx, scope)
		return token.Value, err
	}})
	a := admin.New(admin.Config{Base: r.one.Graph, Tenant: r.one.EntraTenant, HTTP: r.http, Now: r.clock.Now,
		Token: func(context.Context) (string, error) { return r.one.AdminToken, nil }})
	return tokens, g, a
}

// proof signs a proof of possession.
func (r *rig) proof(k *appKey, change func(map[string]any)) graph.Proof {
	return func(_ context.Context, objectID string) (string, error) {
		now := r.clock.Now()
		body := map[string]any{"aud": graph.ProofAudience, "iss": objectID, "nbf": now.Unix(), "exp": now.Add(10 * time.Minute).Unix()}
		if change != nil {
			change(body)
		}
		return signJWT("PS256", map[string]any{"typ": "JWT"}, body, k.key)
	}
}

// TestClientsRollAKey is a whole change of key by our clients, over MSAL: a
// token, addKey and removeKey by proof, and both logs as they tell of it.
func TestClientsRollAKey(t *testing.T) {
	r := startRig(t, Config{LogDelay: 5 * time.Minute})
	ctx := context.Background()
	first, second := newAppKey(t, r.clock.Now().Add(-time.Hour), 24*time.Hour), newAppKey(t, r.clock.Now().Add(-time.Hour), 24*time.Hour)
	r.register(first)
	tokens, g, _ := r.clients(first)
	token, err := tokens.Token(ctx, scope)
	if err != nil {
		t.Fatal(err)
	}
	app, err := g.Application(ctx, r.one.AppID)
	if err != nil || len(app.Keys) != 1 || string(app.Keys[0].Key) != string(first.cert.Raw) {
		t.Fatalf("application: %v %+v", err, app)
	}
	for name, bad := range map[string]graph.Proof{
		"another key":     r.proof(second, nil),
		"too long":        r.proof(first, func(b map[string]any) { b["exp"] = r.clock.Now().Add(time.Hour).Unix() }),
		"app id as iss":   r.proof(first, func(b map[string]any) { b["iss"] = r.one.AppID }),
		"another aud":     r.proof(first, func(b map[string]any) { b["aud"] = scope }),
		"base64 padding":  func(context.Context, string) (string, error) { return "e30=.e30=.e30=", nil },
		"not even a JWT":  func(context.Context, string) (string, error) { return "x", nil },
		"the day before ": r.proof(first, func(b map[string]any) { b["nbf"], b["exp"] = 1000, 1300 }),
	} {
		if _, err := g.AddKey(ctx, app.ID, second.cert.Raw, bad); err == nil {
			t.Errorf("a proof with %s was taken", name)
		}
	}
	added, err := g.AddKey(ctx, app.ID, second.cert.Raw, r.proof(first, nil))
	if err != nil {
		t.Fatal(err)
	}
	if err := g.RemoveKey(ctx, app.ID, app.Keys[0].KeyID, r.proof(second, nil)); err != nil {
		t.Fatal(err)
	}
	if err := g.RemoveKey(ctx, app.ID, app.Keys[0].KeyID, r.proof(second, nil)); !fault.Is(err, fault.Invalid) {
		t.Errorf("a key that is gone: %v", err)
	}
	again, _, _ := r.clients(first)
	_, err = again.Token(ctx, scope)
	var refused *entra.Refusal
	if !errors.As(err, &refused) || refused.Code != "AADSTS700027" || !fault.Is(err, fault.Denied) || fault.HintOf(err) == "" {
		t.Errorf("the old key: %v", err)
	}
	var rows []graph.SignIn
	collect := func(s graph.SignIn) error { rows = append(rows, s); return nil }
	if err := g.SignIns(ctx, graph.Query{}, collect); err != nil || len(rows) != 0 {
		t.Errorf("%v; %d rows before the log's delay was over", err, len(rows))
	}
	r.clock.step(5 * time.Minute)
	if err := g.SignIns(ctx, graph.Query{AppID: r.one.AppID, Page: 1}, collect); err != nil || len(rows) != 2 {
		t.Fatalf("%v; rows %+v", err, rows)
	}
	ok := rows[slices.IndexFunc(rows, func(s graph.SignIn) bool { return s.Status.ErrorCode == 0 })]
	if ok.UTI != token.UTI || ok.UTI == "" || ok.KeyID != app.Keys[0].KeyID || ok.CorrelationID != "11111111-2222-4333-8444-555555555555" {
		t.Errorf("the sign-in's row %+v, token %q", ok, token.UTI)
	}
	var audits []graph.Audit
	if err := g.DirectoryAudits(ctx, graph.Query{}, func(a graph.Audit) error { audits = append(audits, a); return nil }); err != nil {
		t.Fatal(err)
	}
	if len(audits) != 3 || audits[0].Activity != updateKeys || !slices.ContainsFunc(audits, func(a graph.Audit) bool {
		return a.InitiatedBy.App != nil && a.InitiatedBy.App.AppID == r.one.AppID && strings.Contains(a.Targets[0].Modified[0].New, added.KeyID)
	}) {
		t.Errorf("audits: %+v", audits)
	}
}

// TestPoorAndRich: v1.0 has no token identifier, beta has, and lists
// applications only when asked for them.
func TestPoorAndRich(t *testing.T) {
	r := startRig(t, Config{})
	k := newAppKey(t, r.clock.Now().Add(-time.Hour), 24*time.Hour)
	r.register(k)
	_, out, h := r.ask(r.one.EntraTenant, r.form(r.assertion(k, "PS256", nil)))
	for _, c := range []struct {
		path string
		rows int
	}{
		{"/v1.0/auditLogs/signIns", 1},
		{"/beta/auditLogs/signIns", 0},
		{"/beta/auditLogs/signIns?$filter=" + url.QueryEscape("signInEventTypes/any(t:t eq 'servicePrincipal')"), 1},
		{"/v1.0/auditLogs/signIns?$filter=" + url.QueryEscape("status/errorCode ne 0"), 0},
	} {
		_, got, _ := r.call("GET", c.path, r.one.AdminToken, nil)
		rows, _ := got["value"].([]any)
		if len(rows) != c.rows {
			t.Fatalf("%s: %v", c.path, got)
		}
		if c.rows == 0 {
			continue
		}
		row := rows[0].(map[string]any)
		uti, rich := row["uniqueTokenIdentifier"]
		if rich != strings.HasPrefix(c.path, "/beta") {
			t.Errorf("%s: %v", c.path, slices.Collect(maps.Keys(row)))
		}
		claims, ok := r.readAccess(out["access_token"].(string))
		if rich && (!ok || uti != claims.UTI || row["id"] != h.Get("x-ms-request-id")) {
			t.Errorf("uti %v, token %+v, request %s", uti, claims, h.Get("x-ms-request-id"))
		}
		id, _ := uuid.Parse(h.Get("x-ms-request-id"))
		if claims.UTI != utiOf(id) || len(claims.UTI) != 22 {
			t.Errorf("uti %q of request %s", claims.UTI, id)
		}
	}
	status, got, _ := r.call("GET", "/v1.0/auditLogs/signIns?$filter="+url.QueryEscape("signInEventTypes/any(t:t eq 'servicePrincipal')"), r.one.AdminToken, nil)
	if status != 400 || !strings.Contains(got["error"].(map[string]any)["message"].(string), "signInEventTypes") {
		t.Errorf("v1.0 knows signInEventTypes: %d %v", status, got)
	}
}

// TestThief: a stolen key signs in from elsewhere, and the row shows it; a
// forged token has none.
func TestThief(t *testing.T) {
	r := startRig(t, Config{LogDelay: time.Minute})
	k := newAppKey(t, r.clock.Now().Add(-time.Hour), 24*time.Hour)
	r.register(k)
	th := r.Thief(netip.MustParseAddr("203.0.113.66"))
	token, err := th.SignIn(context.Background(), r.one.EntraTenant, r.one.AppID, k.cert, k.key)
	if err != nil {
		t.Fatal(err)
	}
	if status, out, _ := r.call("GET", "/v1.0/auditLogs/directoryAudits", token, nil); status != 200 {
		t.Errorf("the stolen token: %v", out)
	}
	rows := r.SignIns(r.one.EntraTenant)
	if len(rows) != 1 || rows[0].Address != "203.0.113.66" || rows[0].KeyID == "" {
		t.Errorf("rows: %+v", rows)
	}
	forged, err := th.MintToken(r.one.EntraTenant)
	if err != nil {
		t.Fatal(err)
	}
	if status, out, _ := r.call("GET", "/v1.0/auditLogs/directoryAudits", forged, nil); status != 200 || len(r.SignIns(r.one.EntraTenant)) != 1 {
		t.Errorf("the forged token: %v", out)
	}
	if err := th.HideLogs(r.one.EntraTenant, time.Hour); err != nil {
		t.Fatal(err)
	}
	r.clock.step(2 * time.Minute)
	if _, out, _ := r.call("GET", "/v1.0/auditLogs/signIns", r.one.AdminToken, nil); len(out["value"].([]any)) != 0 {
		t.Errorf("hidden rows are shown: %v", out)
	}
	r.register() // the customer's administrator takes the key off
	if _, err := th.SignIn(context.Background(), r.one.EntraTenant, r.one.AppID, k.cert, k.key); !fault.Is(err, fault.Denied) {
		t.Errorf("the key that was taken off: %v", err)
	}
}

// TestTenantsAreApart: a tenant's token reaches nothing of another's, and
// nobody's nothing.
func TestTenantsAreApart(t *testing.T) {
	r := startRig(t, Config{})
	other := r.List()[1]
	for path, want := range map[string]int{
		"/adminapi/" + other.EntraTenant + "/InboundConnector":      http.StatusForbidden,
		"/v1.0/applications(appId='" + other.AppID + "')":           http.StatusNotFound,
		"/v1.0/servicePrincipals(appId='" + other.AppID + "')":      http.StatusNotFound,
		"/adminapi/" + r.one.EntraTenant + "/InboundConnector/none": http.StatusNotFound,
	} {
		if status, out, _ := r.call("GET", path, r.one.AdminToken, nil); status != want {
			t.Errorf("%s: %d %v", path, status, out)
		}
		if status, _, _ := r.call("GET", path, "guess", nil); status != http.StatusUnauthorized {
			t.Errorf("%s with a token of nobody's: %d", path, status)
		}
	}
	status, out, _ := r.call("POST", "/adminapi/"+r.one.EntraTenant+"/AcceptedDomain", r.one.AdminToken, map[string]any{"DomainName": other.Domain})
	if status != http.StatusConflict {
		t.Errorf("another tenant's domain: %d %v", status, out)
	}
}

// TestUnknown: what is not modelled is refused, named and counted.
func TestUnknown(t *testing.T) {
	r := startRig(t, Config{})
	for _, path := range []string{"/v1.0/wanted-unknown", "/wanted-unknown", "/adminapi/" + r.one.EntraTenant + "/wanted-unknown",
		"/v1.0/applications(appId='" + r.one.AppID + "')/wanted-unknown"} {
		status, out, _ := r.call("GET", path, r.one.AdminToken, nil)
		if status != http.StatusNotImplemented || !strings.Contains(out["error"].(map[string]any)["message"].(string), path) {
			t.Errorf("%s: %d %v", path, status, out)
		}
	}
	if got := r.Unknown(); len(got) != 4 {
		t.Errorf("counted: %v", got)
	}
}

// TestConnectorClient: our client of connectors, and its errors in the
// service's words.
func TestConnectorClient(t *testing.T) {
	r := startRig(t, Config{})
	ctx := context.Background()
	_, _, a := r.clients(newAppKey(t, r.clock.Now(), time.Hour))
	name := "e7.gw.example"
	if _, err := a.SetInbound(ctx, r.one.ConnectorName, admin.InboundChange{TlsSenderCertificateName: &name}); err != nil {
		t.Fatal(err)
	}
	got, err := a.Inbound(ctx, r.one.ConnectorName)
	if err != nil || got.TlsSenderCertificateName != name || !got.RestrictDomainsToCertificate {
		t.Errorf("%v %+v", err, got)
	}
	two := "a.example,b.example"
	if _, err := a.SetInbound(ctx, r.one.ConnectorName, admin.InboundChange{TlsSenderCertificateName: &two}); !fault.Is(err, fault.Invalid) ||
		!strings.Contains(err.Error(), "must be one domain") {
		t.Errorf("two names at once: %v", err)
	}
	out, kind, no := "to gateway", "Partner", false
	hosts, settings := []string{"mx.us.gw.example"}, "CertificateValidation"
	if _, err := a.NewOutbound(ctx, admin.OutboundChange{Name: &out, ConnectorType: &kind, SmartHosts: &hosts, UseMXRecord: &no, TlsSettings: &settings}); err != nil {
		t.Fatal(err)
	}
	if all, err := a.Outbounds(ctx); err != nil || len(all) != 1 || all[0].SmartHosts[0] != hosts[0] {
		t.Errorf("%v %+v", err, all)
	}
	if err := a.RemoveOutbound(ctx, out); err != nil {
		t.Error(err)
	}
	if err := a.RemoveInbound(ctx, "none"); !fault.Is(err, fault.Missing) || wire.AsRefusal(err) == nil {
		t.Errorf("one that is not there: %v", err)
	}
}

// TestThrottling: Retry-After is waited for, and the log's limit is the
// documented one.
func TestThrottling(t *testing.T) {
	r := startRig(t, Config{})
	k := newAppKey(t, r.clock.Now().Add(-time.Hour), 24*time.Hour)
	r.register(k)
	_, g, _ := r.clients(k)
	r.admin("PATCH", "Simulator", map[string]any{"GraphThrottle": 2, "RetryAfter": "10ms"})
	if _, err := g.Application(context.Background(), r.one.AppID); err != nil {
		t.Errorf("after two refusals: %v", err)
	}
	r.admin("PATCH", "Simulator", map[string]any{"GraphThrottle": 4})
	if _, err := g.Application(context.Background(), r.one.AppID); !fault.Is(err, fault.Later) {
		t.Errorf("after four refusals: %v", err)
	}
	token := ""
	if _, out, _ := r.ask(r.one.EntraTenant, r.form(r.assertion(k, "PS256", nil))); out["access_token"] != nil {
		token = out["access_token"].(string)
	}
	for n := range 6 {
		status, _, h := r.call("GET", "/beta/auditLogs/signIns", token, nil)
		if throttled := status == 429; throttled != (n == 5) || throttled && h.Get("Retry-After") != "10" {
			t.Errorf("read %d of the log: %d", n+1, status)
		}
	}
	r.clock.step(10 * time.Second)
	if status, _, _ := r.call("GET", "/beta/auditLogs/signIns", token, nil); status != 200 {
		t.Errorf("ten seconds later: %d", status)
	}
}

// TestRestart: tenants, connectors, keys, arrivals and logs are there again,
// and the list can be read without a simulator.
func TestRestart(t *testing.T) {
	dir := t.TempDir()
	r := startRig(t, Config{Dir: dir})
	k := newAppKey(t, r.clock.Now().Add(-time.Hour), 24*time.Hour)
	r.register(k)
	r.name("e1.gw.example")
	want(t, r.deliver(r.ca.Issue(t, nil, "e1.gw.example"), "a@x.test", "user@"+r.one.Domain, message), "", "")
	if status, out, _ := r.ask(r.one.EntraTenant, r.form(r.assertion(k, "PS256", nil))); status != 200 {
		t.Fatal(out)
	}
	before := r.List()
	listed, err := ListDir(dir)
	if err != nil || !slices.Equal(listed, before) {
		t.Errorf("%v: %+v, expected %+v", err, listed, before)
	}
	r.stop()
	again, err := Open(Config{Dir: dir, Tenants: 3, Now: r.clock.Now})
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close(context.Background())
	all := again.List()
	if len(all) != 3 || all[0].EntraTenant != before[0].EntraTenant || all[0].AdminToken != before[0].AdminToken || string(again.CA()) != string(r.CA()) {
		t.Errorf("after a restart: %+v", all)
	}
	one := again.tenants[r.one.EntraTenant]
	if one.Inbound[0].Shown.TlsSenderCertificateName != "e1.gw.example" || len(one.Apps[0].Keys) != 1 {
		t.Errorf("connector %+v, keys %d", one.Inbound[0].Shown, len(one.Apps[0].Keys))
	}
	if len(again.Arrivals(r.one.EntraTenant)) != 1 || len(again.SignIns(r.one.EntraTenant)) != 1 || len(again.audits[r.one.EntraTenant]) != 1 {
		t.Errorf("arrivals %v, sign-ins %v", again.Arrivals(r.one.EntraTenant), again.SignIns(r.one.EntraTenant))
	}
	if _, err := ListDir(t.TempDir()); !fault.Is(err, fault.Missing) {
		t.Errorf("a folder without a simulator: %v", err)
	}
}
