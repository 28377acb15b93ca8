package client_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sallyport-mail/sallyport/internal/api"
	"github.com/sallyport-mail/sallyport/internal/api/client"
	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/store"
	"github.com/sallyport-mail/sallyport/internal/tenant"
)

// gateway is the API with a real registry of tenants.
type gateway struct {
	tenants *tenant.Registry
	handler http.Handler
	client  *client.Client
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// newGateway serves the API, through around when it is not nil.
func newGateway(t *testing.T, around func(http.Handler) http.Handler) *gateway {
	t.Helper()
	db, err := store.Open(t.Context(), store.Config{Dir: t.TempDir()})
	must(t, err)
	t.Cleanup(func() { db.Close() })
	g := &gateway{}
	g.tenants, err = tenant.New(t.Context(), tenant.Config{DB: db.Control, Regions: []string{"us"}, Log: slog.New(slog.DiscardHandler), Now: time.Now})
	must(t, err)
	_, secret, err := g.tenants.AddToken(t.Context(), "system", tenant.Token{Role: tenant.Operator})
	must(t, err)
	g.handler = api.New(api.Config{
		Tenants: g.tenants, Log: slog.New(slog.DiscardHandler), Now: time.Now, Scratch: t.TempDir(),
		Backup: func(_ context.Context, file string) error { return os.WriteFile(file, []byte("a tar"), 0o600) },
		Verify: func(context.Context) ([]api.Finding, error) { return nil, errors.New("broken inside") },
	})
	if around != nil {
		g.handler = around(g.handler)
	}
	server := httptest.NewServer(g.handler)
	t.Cleanup(server.Close)
	g.client = &client.Client{Base: server.URL + "/", Token: secret}
	return g
}

func TestDo(t *testing.T) {
	g := newGateway(t, nil)
	var made tenant.Tenant
	must(t, g.client.Do(t.Context(), "POST", "/v1/tenants", nil, map[string]any{"name": "acme", "region": "us"}, &made))
	if made.Name != "acme" || made.CreatedAt.IsZero() {
		t.Errorf("%+v", made)
	}
	must(t, g.client.Do(t.Context(), "GET", "/v1/tenants/acme", nil, nil, nil))
	var page struct{ Items []tenant.Tenant }
	must(t, g.client.Do(t.Context(), "GET", "/v1/tenants", url.Values{"after": {"acme"}}, nil, &page))
	if len(page.Items) != 0 {
		t.Errorf("%+v", page)
	}
}

// TestAdd tells what was made from what was there.
func TestAdd(t *testing.T) {
	g := newGateway(t, nil)
	in := map[string]any{"name": "acme", "region": "us", "if_absent": true}
	for _, want := range []bool{true, false} {
		var there tenant.Tenant
		if made, err := g.client.Add(t.Context(), "/v1/tenants", in, &there); err != nil || made != want || there.Name != "acme" {
			t.Errorf("made %v, want %v: %+v %v", made, want, there, err)
		}
	}
	in["region"] = "mars"
	if made, err := g.client.Add(t.Context(), "/v1/tenants", in, nil); made || err == nil {
		t.Errorf("made %v: %v", made, err)
	}
}

// TestProblem finds each failure as a Problem and as a fault.
func TestProblem(t *testing.T) {
	g := newGateway(t, nil)
	must(t, g.client.Do(t.Context(), "POST", "/v1/tenants", nil, map[string]any{"name": "acme", "region": "us"}, nil))
	stranger := &client.Client{Base: g.client.Base, Token: "x"}
	for _, c := range []struct {
		name         string
		client       *client.Client
		method, path string
		in           any
		status       int
		kind         fault.Kind
		hint         string
	}{
		{"missing", g.client, "GET", "/v1/tenants/nobody", nil, 404, fault.Missing, "List the tenants"},
		{"conflict", g.client, "POST", "/v1/tenants", map[string]any{"name": "acme", "region": "us"}, 409, fault.Conflict, ""},
		{"invalid", g.client, "POST", "/v1/tenants", map[string]any{"name": 7}, 400, fault.Invalid, "openapi"},
		{"denied", stranger, "GET", "/v1/tenants", nil, 401, fault.Denied, "Bearer"},
		{"method", g.client, "PUT", "/v1/tenants", nil, 405, fault.Invalid, "GET or POST"},
		{"internal", g.client, "POST", "/v1/verify", nil, 500, fault.Internal, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := c.client.Do(t.Context(), c.method, c.path, nil, c.in, nil)
			var p *client.Problem
			if !errors.As(err, &p) || p.Status != c.status {
				t.Fatalf("%v", err)
			}
			if !fault.Is(err, c.kind) || !strings.Contains(fault.HintOf(err), c.hint) {
				t.Errorf("kind %s, hint %q", fault.KindOf(err), fault.HintOf(err))
			}
			if fault.Sentence(err) != err.Error() || strings.Contains(err.Error(), "inside") {
				t.Errorf("%q and %q", fault.Sentence(err), err)
			}
			if err := fmt.Errorf("wrapped: %w", err); !fault.Is(err, c.kind) {
				t.Errorf("wrapped: %s", fault.KindOf(err))
			}
		})
	}
	err := g.client.Do(t.Context(), "POST", "/v1/tenants", nil, map[string]any{"name": 7, "x": 1}, nil)
	if !strings.Contains(err.Error(), "body.name") || !strings.Contains(err.Error(), "body.x") {
		t.Errorf("%v", err)
	}
}

func TestKindOfStatus(t *testing.T) {
	for status, kind := range map[int]fault.Kind{
		400: fault.Invalid, 401: fault.Denied, 403: fault.Denied, 404: fault.Missing, 408: fault.Later, 409: fault.Conflict, 413: fault.Invalid,
		422: fault.Never, 429: fault.Later, 500: fault.Internal, 502: fault.Later, 503: fault.Later, 504: fault.Later, 302: fault.Internal,
	} {
		if got := (&client.Problem{Status: status}).Kind(); got != kind {
			t.Errorf("%d is %s, want %s", status, got, kind)
		}
	}
}

// TestNoProblemDocument is for what stands between: a proxy, another server.
func TestNoProblemDocument(t *testing.T) {
	status := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Location", "http://127.0.0.1:1/")
		w.WriteHeader(status)
		fmt.Fprint(w, "<html>no</html>")
	}))
	defer server.Close()
	c := &client.Client{Base: server.URL, Token: "secret"}
	for status = range map[int]bool{302: true, 404: true, 502: true} {
		err := c.Do(t.Context(), "GET", "/v1/tenants", nil, nil, nil)
		var p *client.Problem
		if !errors.As(err, &p) || p.Status != status || p.Hint == "" || p.Title == "" {
			t.Errorf("%d: %v", status, err)
		}
	}
	status = 200
	if err := c.Do(t.Context(), "GET", "/", nil, nil, &struct{}{}); !fault.Is(err, fault.Internal) {
		t.Errorf("no JSON: %v", err)
	}
}

// breaker runs the first requests and breaks their connections before the
// answer.
func breaker(breaks int32) (around func(http.Handler) http.Handler, seen *atomic.Int32) {
	seen = &atomic.Int32{}
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if seen.Add(1) > breaks {
				next.ServeHTTP(w, r)
				return
			}
			next.ServeHTTP(httptest.NewRecorder(), r)
			panic(http.ErrAbortHandler)
		})
	}, seen
}

// TestPostIsTriedAgain loses the answer to a POST: the second try gets it, and
// nothing was done twice.
func TestPostIsTriedAgain(t *testing.T) {
	around, seen := breaker(1)
	g := newGateway(t, around)
	before := len(g.tenants.Tokens())
	var made struct{ Token string }
	must(t, g.client.Do(t.Context(), "POST", "/v1/tokens", nil, map[string]any{"role": "read"}, &made))
	if n := len(g.tenants.Tokens()); n != before+1 || seen.Load() != 2 {
		t.Errorf("%d tokens after %d requests", n-before, seen.Load())
	}
	if _, err := g.tenants.Authenticate(made.Token); err != nil {
		t.Error(err)
	}
}

func TestTriedAgainOnce(t *testing.T) {
	around, seen := breaker(9)
	g := newGateway(t, around)
	err := g.client.Do(t.Context(), "POST", "/v1/tokens", nil, map[string]any{"role": "read"}, nil)
	if !fault.Is(err, fault.Later) || seen.Load() != 2 || fault.HintOf(err) == "" {
		t.Errorf("%v after %d requests", err, seen.Load())
	}
	seen.Store(0)
	g.client.HTTP = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}} // net/http itself repeats a GET on a kept connection
	if err := g.client.Do(t.Context(), "DELETE", "/v1/tenants/x", nil, nil, nil); !fault.Is(err, fault.Later) || seen.Load() != 1 {
		t.Errorf("a DELETE: %v after %d requests", err, seen.Load())
	}
}

func TestNobodyThere(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	l.Close()
	c := &client.Client{Base: "http://" + l.Addr().String()}
	err = c.Do(t.Context(), "GET", "/healthz", nil, nil, nil)
	if !fault.Is(err, fault.Later) || !strings.Contains(err.Error(), l.Addr().String()) || !strings.Contains(fault.HintOf(err), "sallyport serve") {
		t.Errorf("%v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := c.Do(ctx, "POST", "/x", nil, nil, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

func TestList(t *testing.T) {
	g := newGateway(t, nil)
	const n = 1203 // more than a page
	for i := range n {
		_, err := g.tenants.Add(t.Context(), "system", tenant.Tenant{Name: fmt.Sprintf("t-%04d", i), Region: "us"})
		must(t, err)
	}
	for _, c := range []struct{ limit, want int }{{0, n}, {1, 1}, {1000, 1000}, {1001, 1001}, {5000, n}} {
		seen := map[string]bool{}
		must(t, g.client.List(t.Context(), "/v1/tenants", nil, c.limit, func(raw json.RawMessage) error {
			var one tenant.Tenant
			err := json.Unmarshal(raw, &one)
			if seen[one.Name] {
				t.Errorf("%s came twice", one.Name)
			}
			seen[one.Name] = true
			return err
		}))
		if len(seen) != c.want {
			t.Errorf("limit %d: %d items, want %d", c.limit, len(seen), c.want)
		}
	}
	stop := errors.New("enough")
	calls := 0
	err := g.client.List(t.Context(), "/v1/tenants", nil, 0, func(json.RawMessage) error { calls++; return stop })
	if !errors.Is(err, stop) || calls != 1 {
		t.Errorf("%v after %d calls", err, calls)
	}
	if err := g.client.List(t.Context(), "/v1/nothing", nil, 0, nil); !fault.Is(err, fault.Missing) {
		t.Error(err)
	}
}

// TestListThatDoesNotAdvance has a server that names the same page for ever.
func TestListThatDoesNotAdvance(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, `{"items":[1],"next":"x"}`)
	}))
	defer server.Close()
	n := 0
	err := (&client.Client{Base: server.URL}).List(t.Context(), "/", nil, 0, func(json.RawMessage) error { n++; return nil })
	if !fault.Is(err, fault.Internal) || n != 2 {
		t.Errorf("%v after %d items", err, n)
	}
}

func TestStream(t *testing.T) {
	g := newGateway(t, nil)
	var b bytes.Buffer
	must(t, g.client.Stream(t.Context(), "POST", "/v1/backup", &b))
	if b.String() != "a tar" {
		t.Errorf("%q", b.String())
	}
	if err := g.client.Stream(t.Context(), "GET", "/v1/nothing", io.Discard); !fault.Is(err, fault.Missing) {
		t.Error(err)
	}
	full := errors.New("disk full")
	if err := g.client.Stream(t.Context(), "POST", "/v1/backup", failing{full}); !errors.Is(err, full) || fault.Is(err, fault.Later) {
		t.Error(err)
	}
}

type failing struct{ err error }

func (f failing) Write([]byte) (int, error) { return 0, f.err }

// TestStreamCutShort must not look whole.
func TestStreamCutShort(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "100")
		fmt.Fprint(w, "half")
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}))
	defer server.Close()
	var b bytes.Buffer
	err := (&client.Client{Base: server.URL}).Stream(t.Context(), "GET", "/", &b)
	if !fault.Is(err, fault.Later) || b.String() != "half" {
		t.Errorf("%v, %q", err, b.String())
	}
}
