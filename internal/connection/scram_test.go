package connection_test

import (
	"crypto/tls"
	"strings"
	"testing"

	"github.com/sallyport-mail/sallyport/internal/connection"
	"github.com/sallyport-mail/sallyport/internal/mail"
	"github.com/sallyport-mail/sallyport/internal/testpeer"
)

func TestProofOfSCRAM(t *testing.T) {
	w := newTLSWorld(t)
	secure := &tls.Config{Certificates: []tls.Certificate{w.good.TLS}}
	const all = "PLAIN LOGIN SCRAM-SHA-256"
	cut := func(n int) func(string) string { return func(m string) string { return m[n:] } }
	for what, k := range map[string]struct {
		server      testpeer.SCRAM
		rule        string
		want        string
		detail, fix string // of the step auth
	}{
		"in clear":      {testpeer.SCRAM{Offers: all}, "none", "resolve connect auth recipient message", "relay (AUTH SCRAM-SHA-256)", ""},
		"opportunistic": {testpeer.SCRAM{Offers: all, TLS: secure}, "opportunistic", "resolve connect tls auth recipient message", "(AUTH SCRAM-SHA-256)", ""},
		"bound": {testpeer.SCRAM{Offers: all + " SCRAM-SHA-256-PLUS", TLS: secure, Binding: "tls-exporter"}, "required",
			"resolve connect tls auth recipient message", "(AUTH SCRAM-SHA-256-PLUS)", ""},
		"not offered":    {testpeer.SCRAM{Offers: "PLAIN LOGIN"}, "none", "resolve connect auth!", "does not offer AUTH SCRAM-SHA-256", "Let the server offer SCRAM-SHA-256"},
		"wrong password": {testpeer.SCRAM{Offers: all, Password: "other"}, "none", "resolve connect auth!", "(AUTH SCRAM-SHA-256)", "credential set"},
		"signature":      {testpeer.SCRAM{Offers: all, Final: cut(3)}, "none", "resolve connect auth!", "not proved", "Do not trust it"},
		"talk":           {testpeer.SCRAM{Offers: all, First: cut(3)}, "none", "resolve connect auth!", "RFC 5802", "right server"},
	} {
		t.Run(what, func(t *testing.T) {
			k.server.User = "relay"
			if k.server.Password == "" {
				k.server.Password = "right"
			}
			rogue := testpeer.StartRogueSCRAM(t, k.server)
			c := connection.Connection{Tenant: "acme", Name: "in", Host: "mail.acme.test", TLS: k.rule, Auth: "scram", User: "relay"}
			_, c.Port = hostPort(t, rogue.Addr)
			w.add(t, c)
			defer func() { must(t, w.Remove(t.Context(), "system", "acme", "in")) }()
			must(t, w.SetCredential(t.Context(), "token:1", "acme", "in", "relay", "right"))
			r, err := w.Test(t.Context(), "acme", "in", mail.Address{})
			must(t, err)
			if steps(r) != k.want {
				t.Fatalf("got %s, want %s\n%+v", steps(r), k.want, r)
			}
			for _, s := range r.Steps {
				if s.Name == "auth" && (!strings.Contains(s.Detail, k.detail) || !strings.Contains(s.Fix, k.fix) || s.OK != (k.fix == "")) {
					t.Errorf("%+v, want %q, %q", s, k.detail, k.fix)
				}
			}
			if got := len(rogue.Messages()); (got == 1) != r.OK {
				t.Errorf("%d messages", got)
			}
		})
	}
}
