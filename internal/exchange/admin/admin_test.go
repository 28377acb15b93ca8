package admin

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
)

// TestRequests: each verb is one request, and a change names only what it
// changes.
func TestRequests(t *testing.T) {
	var got string
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		got = r.Method + " " + r.URL.EscapedPath() + " " + string(body)
		io.WriteString(w, `{"Name":"a b","value":[{"Name":"a b"}]}`)
	}))
	defer s.Close()
	c := New(Config{Base: s.URL, Tenant: "t", HTTP: s.Client(), Now: time.Now, Token: func(context.Context) (string, error) { return "x", nil }})
	ctx := context.Background()
	name, off := "e2.gw.example", false
	for want, act := range map[string]func() error{
		"GET /adminapi/t/InboundConnector ":                          func() error { _, err := c.Inbounds(ctx); return err },
		"GET /adminapi/t/InboundConnector/a%20b ":                    func() error { _, err := c.Inbound(ctx, "a b"); return err },
		"DELETE /adminapi/t/InboundConnector/a%20b ":                 func() error { return c.RemoveInbound(ctx, "a b") },
		"DELETE /adminapi/t/OutboundConnector/a ":                    func() error { return c.RemoveOutbound(ctx, "a") },
		`POST /adminapi/t/InboundConnector {"Name":"e2.gw.example"}`: func() error { _, err := c.NewInbound(ctx, InboundChange{Name: &name}); return err },
		`PATCH /adminapi/t/InboundConnector/a {"Enabled":false,"TlsSenderCertificateName":"e2.gw.example"}`: func() error {
			_, err := c.SetInbound(ctx, "a", InboundChange{TlsSenderCertificateName: &name, Enabled: &off})
			return err
		},
		`PATCH /adminapi/t/OutboundConnector/a {"TlsDomain":"e2.gw.example"}`: func() error {
			_, err := c.SetOutbound(ctx, "a", OutboundChange{TlsDomain: &name})
			return err
		},
		`POST /adminapi/t/AcceptedDomain {"DomainName":"x.test"}`: func() error { return c.AddAcceptedDomain(ctx, "x.test") },
	} {
		if err := act(); err != nil || got != want {
			t.Errorf("%v: %s\nexpected %s", err, got, want)
		}
	}
	s.Close()
	if _, err := c.Inbounds(ctx); !fault.Is(err, fault.Later) || fault.HintOf(err) == "" {
		t.Errorf("nobody there: %v", err)
	}
}
