package api_test

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/sallyport-mail/sallyport/internal/queue"
)

// FuzzRequest sends an operator's requests of any shape: nothing panics, and
// what is refused is refused by a problem document.
func FuzzRequest(f *testing.F) {
	r := newRig(f)
	r.tenant("acme")
	r.put("acme", queue.Held)
	for _, seed := range [][3]string{
		{"GET", "/v1/tenants?limit=3", ""},
		{"POST", "/v1/tenants", `{"name":"x","region":"us","if_absent":true}`},
		{"PATCH", "/v1/tenants/acme", `{"block":["a@b.test"],"expiry_hours":3}`},
		{"POST", "/v1/tenants/acme/directory", `{"address":"\"a b\"@acme.test"}`},
		{"POST", "/v1/tenants/acme/directory/import", `{"addresses":["x@acme.test",null]}`},
		{"POST", "/v1/tenants/acme/connections", `{"name":"n","kind":"smtp","hosts":[{"host":"h","port":1}],"pins":["sha256:00"]}`},
		{"GET", "/v1/messages/%3Ca%2Fb@c%3E/trace", ""},
		{"GET", "/v1/messages?since=24h&from=@x&after=%00", ""},
		{"POST", "/v1/queue/hold", `{"tenant":"acme","older_than_s":0,"reason":"x"}`},
		{"POST", "/v1/stops", `{"scope":"sender","value":"a@b.test"}`},
		{"PUT", "/v1/lists", `{"block":["::/0"],"allow":[""]}`},
		{"DELETE", "/v1/tenants/acme/domains/%2e%2e", ""},
		{"POST", "/v1/tokens", `{"role":"read","expires_at":"9999-12-31T23:59:60Z"}`},
	} {
		f.Add(seed[0], seed[1], seed[2])
	}
	f.Fuzz(func(t *testing.T, method, target, body string) {
		u, err := url.ParseRequestURI(target)
		if err != nil || strings.HasSuffix(u.Path, "/test") || u.Path == "/v1/backup" {
			t.Skip() // no request, or one that works outside
		}
		req, err := http.NewRequest(method, "http://gateway.test"+u.RequestURI(), strings.NewReader(body))
		if err != nil {
			t.Skip()
		}
		req.Header.Set("Authorization", "Bearer "+r.operator)
		w := httptest.NewRecorder()
		r.handler.ServeHTTP(w, req)
		if w.Code == 500 {
			t.Fatalf("%s %s %q: %s\n%s", method, target, body, w.Body, r.log.String())
		}
		if w.Code >= 400 && w.Header().Get("Content-Type") != "application/problem+json" {
			t.Fatalf("%s %s %q: %d %q %s", method, target, body, w.Code, w.Header().Get("Content-Type"), w.Body)
		}
	})
}
