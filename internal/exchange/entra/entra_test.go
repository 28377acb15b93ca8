package entra

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
)

const tenantID = "00000000-0000-4000-8000-000000000001"

// login is a login service that refuses with a code, or issues.
func login(t *testing.T, code int) *httptest.Server {
	t.Helper()
	mux := http.NewServeMux()
	s := httptest.NewTLSServer(mux)
	t.Cleanup(s.Close)
	mux.HandleFunc("GET /{tenant}/v2.0/.well-known/openid-configuration", func(w http.ResponseWriter, r *http.Request) {
		base := s.URL + "/" + r.PathValue("tenant")
		fmt.Fprintf(w, `{"token_endpoint":%q,"issuer":%q,"authorization_endpoint":%q}`, base+"/oauth2/v2.0/token", base+"/v2.0", base+"/authorize")
	})
	mux.HandleFunc("POST /{tenant}/oauth2/v2.0/token", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if code == 0 {
			fmt.Fprintf(w, `{"token_type":"Bearer","expires_in":3599,"access_token":"e30.%s.x"}`, base64.RawURLEncoding.EncodeToString([]byte(`{"uti":"u1"}`)))
			return
		}
		w.WriteHeader(http.StatusUnauthorized)
		fmt.Fprintf(w, `{"error":"invalid_client","error_description":"AADSTS%d: the service's words.","error_codes":[%d]}`, code, code)
	})
	return s
}

func newClient(t *testing.T, s *httptest.Server, assert Assert) *Client {
	t.Helper()
	c, err := New(Config{Base: s.URL, Tenant: tenantID, ClientID: "app", HTTP: s.Client(), Assert: assert})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

const scope = "https://graph.microsoft.com/.default"

// TestToken: the callback is told the endpoint and the life, once while the
// token is good.
func TestToken(t *testing.T) {
	s := login(t, 0)
	asked := 0
	c := newClient(t, s, func(_ context.Context, audience string, life time.Duration) (string, error) {
		asked++
		if audience != s.URL+"/"+tenantID+"/oauth2/v2.0/token" || life != 10*time.Minute {
			t.Errorf("asked to sign for %s, %v", audience, life)
		}
		return "a.b.c", nil
	})
	for range 2 {
		token, err := c.Token(context.Background(), scope)
		if err != nil || token.UTI != "u1" || time.Until(token.Expires) < 50*time.Minute {
			t.Errorf("%v %+v", err, token)
		}
	}
	if asked != 1 {
		t.Errorf("asked %d times", asked)
	}
}

// TestRefusals: codes become kinds with what to do next, and the service's
// words are kept.
func TestRefusals(t *testing.T) {
	for code, want := range map[int]fault.Kind{700016: fault.Missing, 700027: fault.Denied, 90055: fault.Later, 70011: fault.Invalid, 999999: fault.Denied} {
		c := newClient(t, login(t, code), func(context.Context, string, time.Duration) (string, error) { return "a.b.c", nil })
		_, err := c.Token(context.Background(), scope)
		var r *Refusal
		if !errors.As(err, &r) || r.Code != fmt.Sprintf("AADSTS%d", code) || !fault.Is(err, want) || !strings.Contains(r.Text, "the service's words") {
			t.Errorf("%d: %v, of kind %s", code, err, fault.KindOf(err))
		}
		if (fault.HintOf(err) == "") != (code == 999999) {
			t.Errorf("%d: hint %q", code, fault.HintOf(err))
		}
	}
	c := newClient(t, login(t, 0), func(context.Context, string, time.Duration) (string, error) {
		return "", fault.New(fault.Later, "keeper", "the keeper is away")
	})
	if _, err := c.Token(context.Background(), scope); !fault.Is(err, fault.Later) || !strings.Contains(err.Error(), "the keeper is away") {
		t.Errorf("the callback's error: %v", err)
	}
	gone := login(t, 0)
	c = newClient(t, gone, func(context.Context, string, time.Duration) (string, error) { return "a.b.c", nil })
	gone.Close()
	if _, err := c.Token(context.Background(), scope); !fault.Is(err, fault.Later) || strings.Contains(err.Error(), "\n") || !strings.Contains(err.Error(), "the login service can't be asked: dial tcp") {
		t.Errorf("nobody there: %q", err)
	}
	foreign := login(t, 0)
	c = newClient(t, foreign, func(context.Context, string, time.Duration) (string, error) { return "a.b.c", nil })
	c.cfg.HTTP = &http.Client{}
	if _, err := c.Token(context.Background(), scope); !fault.Is(err, fault.Later) || strings.Contains(err.Error(), "\n") || !strings.Contains(fault.HintOf(err), "--ca") {
		t.Errorf("a CA that does not fit: %q, %s", err, fault.HintOf(err))
	}
	if _, err := New(Config{Base: "http://clear.test", Tenant: tenantID, ClientID: "app"}); !fault.Is(err, fault.Invalid) {
		t.Errorf("without TLS: %v", err)
	}
}

// FuzzUTI: an access token is foreign text. A byte that is no text becomes three.
func FuzzUTI(f *testing.F) {
	f.Add("e30.eyJ1dGkiOiJ4In0.x")
	f.Add("..")
	f.Fuzz(func(t *testing.T, token string) {
		if uti := utiOf(token); len(uti) > 3*len(token) {
			t.Errorf("%q says %q", token, uti)
		}
	})
}
