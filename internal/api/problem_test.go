package api_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/sallyport-mail/sallyport/internal/api"
	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/tenant"
)

// TestBadRequests sends what is wrong and reads a problem document each time.
func TestBadRequests(t *testing.T) {
	r := newRig(t)
	r.tenant("acme")
	for _, c := range []struct {
		name, method, path string
		body               any
		status             int
		says               string // in the document
	}{
		{"unknown path", "GET", "/v1/nothing", nil, 404, "/v1/nothing"},
		{"root", "GET", "/", nil, 404, "openapi"},
		{"below a route", "GET", "/v1/tenants/acme/nothing", nil, 404, "nothing"},
		{"unclean path", "GET", "/v1//tenants", nil, 404, ""},
		{"dots", "GET", "/v1/../v1/tenants", nil, 404, ""},
		{"trailing slash", "GET", "/v1/tenants/", nil, 404, ""},
		{"method", "DELETE", "/v1/tenants", nil, 405, "GET or POST"},
		{"no JSON", "POST", "/v1/tenants", "name: acme", 400, "body"},
		{"half a body", "POST", "/v1/tenants", `{"name":"x"`, 400, "body"},
		{"no body", "POST", "/v1/tenants", nil, 400, "body"},
		{"an array", "POST", "/v1/tenants", `[]`, 400, "body"},
		{"wrong type", "POST", "/v1/tenants", `{"name":7,"region":"us"}`, 400, "body.name"},
		{"unknown field", "POST", "/v1/tenants", `{"name":"x","region":"us","colour":"red"}`, 400, "body.colour"},
		{"missing field", "POST", "/v1/tenants", `{"name":"x"}`, 400, "region"},
		{"two mistakes", "POST", "/v1/tenants", `{"name":7,"colour":"red"}`, 400, "body.colour"},
		{"bad name", "POST", "/v1/tenants", `{"name":"A B","region":"us"}`, 400, "A B"},
		{"bad region", "POST", "/v1/tenants", `{"name":"x","region":"mars"}`, 400, "mars"},
		{"taken name", "POST", "/v1/tenants", `{"name":"acme","region":"us"}`, 409, "acme"},
		{"unknown query", "GET", "/v1/tenants?colour=red", nil, 400, "query.colour"},
		{"limit of words", "GET", "/v1/tenants?limit=many", nil, 400, "query.limit"},
		{"limit too high", "GET", "/v1/tenants?limit=1001", nil, 400, "query.limit"},
		{"limit of none", "GET", "/v1/tenants?limit=0", nil, 400, "query.limit"},
		{"unknown tenant", "GET", "/v1/tenants/nobody", nil, 404, "nobody"},
		{"unknown domain", "GET", "/v1/tenants/acme/domains/x.test", nil, 404, "x.test"},
		{"unknown message", "GET", "/v1/messages/01ARZ3NDEKTSV4RRFFQ69G5FAV", nil, 404, ""},
		{"bad address", "POST", "/v1/tenants/acme/directory", `{"address":"no at"}`, 400, ""},
		{"bad addresses", "POST", "/v1/tenants/acme/directory/import", `{"addresses":["a@acme.test","no at"]}`, 400, "body.addresses[1]"},
		{"bad since", "GET", "/v1/messages?since=yesterday", nil, 400, "yesterday"},
		{"bad state", "GET", "/v1/messages?state=lost", nil, 400, "query.state"},
		{"bad item state", "GET", "/v1/queue?state=held,lost", nil, 400, "lost"},
		{"nothing selected", "POST", "/v1/queue/drop", `{}`, 400, "all"},
		{"only a reason", "POST", "/v1/queue/drop", `{"reason":"spring cleaning"}`, 400, "all"},
		{"reroute to nowhere", "POST", "/v1/queue/reroute", `{"tenant":"acme"}`, 400, "connection"},
		{"reroute to what is not", "POST", "/v1/queue/reroute", `{"tenant":"acme","connection":"x"}`, 404, "x"},
		{"stop of nobody", "POST", "/v1/stops", `{"scope":"tenant","value":"nobody"}`, 404, "nobody"},
		{"stop without value", "POST", "/v1/stops", `{"scope":"domain"}`, 400, "value"},
		{"stop of all with value", "POST", "/v1/stops", `{"scope":"outbound","value":"x"}`, 400, "value"},
		{"unknown scope", "POST", "/v1/stops", `{"scope":"world"}`, 400, "body.scope"},
		{"admin of all", "POST", "/v1/tokens", `{"role":"admin"}`, 400, "tenant"},
		{"unknown token", "POST", "/v1/tokens/01ARZ3NDEKTSV4RRFFQ69G5FAV/revoke", nil, 404, ""},
		{"settings of words", "PATCH", "/v1/tenants/acme", `{"expiry_hours":"long"}`, 400, "body.expiry_hours"},
		{"settings out of range", "PATCH", "/v1/tenants/acme", `{"expiry_hours":-1}`, 400, "expiry_hours"},
		{"too large", "POST", "/v1/tenants", `{"name":"` + strings.Repeat("x", 1<<20) + `"}`, 413, ""},
		{"not here", "POST", "/v1/verify", nil, 400, "verification"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := r.call(c.method, c.path, r.operator, c.body)
			if a.status != c.status {
				t.Fatalf("%d %s, want %d", a.status, a.body, c.status)
			}
			a.problem(t)
			if !strings.Contains(string(a.body), c.says) {
				t.Errorf("%s does not say %q", a.body, c.says)
			}
		})
	}
}

func TestSecretsAreNotEchoed(t *testing.T) {
	r := newRig(t)
	r.tenant("acme")
	a := r.call("PUT", "/v1/tenants/acme/connections/acme-mailbox/credential", r.operator, `{"secret":["hunter2"],"x":"hunter2"}`)
	if a.status != 400 || strings.Contains(string(a.body), "hunter2") {
		t.Errorf("%d %s", a.status, a.body)
	}
	a = r.call("PUT", "/v1/tenants/acme/connections/acme-mailbox/credential", r.operator, `{"secret":"hunter2`)
	if a.status != 400 || strings.Contains(string(a.body), "hunter2") {
		t.Errorf("%d %s", a.status, a.body)
	}
	if strings.Contains(r.log.String(), "hunter2") {
		t.Error("the log has it")
	}
}

// TestKinds walks every kind of fault through the one translation.
func TestKinds(t *testing.T) {
	var fails error
	r := newRig(t, func(c *api.Config) {
		c.Verify = func(context.Context) ([]api.Finding, error) { return nil, fails }
	})
	secret := errors.New("dial tcp 10.1.2.3:5432: password rejected")
	for _, c := range []struct {
		name    string
		err     error
		status  int
		says    string
		noted   bool // there is a log id, and the cause is not told
		retries bool
	}{
		{"invalid", fault.New(fault.Invalid, "x.Y", "too odd"), 400, "too odd", false, false},
		{"denied", fault.New(fault.Denied, "x.Y", "not you"), 403, "not you", false, false},
		{"missing", fault.New(fault.Missing, "x.Y", "nowhere"), 404, "nowhere", false, false},
		{"conflict", fault.New(fault.Conflict, "x.Y", "there"), 409, "there", false, false},
		{"later", fault.New(fault.Later, "x.Y", "busy"), 503, "busy", false, true},
		{"never", fault.New(fault.Never, "x.Y", "refused"), 422, "refused", false, false},
		{"internal", fault.Wrap(fault.Internal, "x.Y", secret), 500, "", true, false},
		{"unclassified", secret, 500, "", true, false},
		{"the store's", fault.Wrap(fault.Later, "x.Y", fault.Wrap(fault.Later, "store.Change", secret)), 503, "", true, true},
		{"wrapped", fmt.Errorf("more: %w", fault.New(fault.Missing, "x.Y", "nowhere").WithHint("Look elsewhere.")), 404, "Look elsewhere.", false, false},
		{"too late", context.DeadlineExceeded, 503, "too long", false, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			fails = c.err
			a := r.call("POST", "/v1/verify", r.operator, nil)
			p := a.problem(t)
			if a.status != c.status || !strings.Contains(string(a.body), c.says) {
				t.Errorf("%d %s, want %d and %q", a.status, a.body, c.status, c.says)
			}
			if (p.LogID != "") != c.noted || strings.Contains(string(a.body), "10.1.2.3") {
				t.Errorf("what is told: %s", a.body)
			}
			if c.noted && !strings.Contains(r.log.String(), p.LogID) {
				t.Errorf("the log lacks %s", p.LogID)
			}
			if (a.header.Get("Retry-After") != "") != c.retries {
				t.Errorf("Retry-After %q", a.header.Get("Retry-After"))
			}
		})
	}
}

func TestPanic(t *testing.T) {
	r := newRig(t, func(c *api.Config) {
		c.Verify = func(context.Context) ([]api.Finding, error) { panic("at the disco") }
	})
	for _, header := range [][]string{nil, {"Idempotency-Key", "k"}, {"Idempotency-Key", "k"}} {
		a := r.call("POST", "/v1/verify", r.operator, nil, header...)
		p := a.problem(t)
		if a.status != 500 || strings.Contains(string(a.body), "disco") || !strings.Contains(r.log.String(), p.LogID) {
			t.Errorf("%d %s", a.status, a.body)
		}
	}
}

func TestUnauthorized(t *testing.T) {
	r := newRig(t)
	expired := r.token(tenant.Read, "")
	must(t, r.tenants.RevokeToken(t.Context(), "system", strings.Split(expired, "_")[1]))
	for _, header := range []string{"", "Basic b3BlcmF0b3I6eA==", "Bearer", "Bearer ", "Bearer x", r.operator, "Bearer " + expired} {
		a := r.call("GET", "/v1/tenants", "", nil, "Authorization", header)
		if a.status != 401 || !strings.HasPrefix(a.header.Get("WWW-Authenticate"), "Bearer") {
			t.Errorf("%q: %d %s", header, a.status, a.body)
		}
		a.problem(t)
	}
	if a := r.call("GET", "/v1/tenants", "", nil, "Authorization", "bearer "+r.operator); a.status != 200 {
		t.Errorf("the scheme's case matters: %d (RFC 9110 11.1)", a.status)
	}
}

func TestHeaders(t *testing.T) {
	r := newRig(t)
	for _, path := range []string{"/v1/tenants", "/v1/nothing", "/healthz", "/openapi.json"} {
		a := r.call("GET", path, r.operator, nil)
		for _, h := range []string{"Cache-Control", "Content-Security-Policy", "X-Content-Type-Options", "X-Frame-Options", "Referrer-Policy"} {
			if a.header.Get(h) == "" {
				t.Errorf("%s lacks %s", path, h)
			}
		}
	}
	if a := r.call("PUT", "/v1/tenants", r.operator, nil); a.header.Get("Allow") != "GET, POST" {
		t.Errorf("Allow %q", a.header.Get("Allow"))
	}
	if a := r.call(http.MethodHead, "/v1/tenants", r.operator, nil); a.status != 200 || len(a.body) > 0 {
		t.Errorf("HEAD: %d %s", a.status, a.body)
	}
}
