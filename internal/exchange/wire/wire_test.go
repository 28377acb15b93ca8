package wire

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
)

// serve answers every request with f and counts them.
func serve(t *testing.T, f func(n int, w http.ResponseWriter, r *http.Request)) (*Caller, string, *int) {
	t.Helper()
	n := 0
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n++
		f(n, w, r)
	}))
	t.Cleanup(s.Close)
	return &Caller{Token: func(context.Context) (string, error) { return "secret", nil }, HTTP: s.Client(), Now: time.Now}, s.URL, &n
}

// TestKinds holds what each status is to a caller, with the service's words.
func TestKinds(t *testing.T) {
	for status, want := range map[int]fault.Kind{
		400: fault.Invalid, 401: fault.Denied, 403: fault.Denied, 404: fault.Missing, 409: fault.Conflict, 412: fault.Conflict,
		429: fault.Later, 500: fault.Later, 503: fault.Later, 501: fault.Never, 302: fault.Never,
	} {
		c, url, n := serve(t, func(_ int, w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			io.WriteString(w, `{"error":{"code":"Some_Code","message":"the service's words."}}`)
		})
		err := c.Do(context.Background(), "wire.Test", "GET", url, nil, nil)
		r := AsRefusal(err)
		if !fault.Is(err, want) || r == nil || r.Status != status || r.Code != "Some_Code" || !strings.Contains(err.Error(), "the service's words") {
			t.Errorf("%d: %v, of kind %s", status, err, fault.KindOf(err))
		}
		if *n != 1 {
			t.Errorf("%d was asked for %d times without a Retry-After", status, *n)
		}
	}
}

// TestRetryAfter: the call is repeated when the service says, in both forms,
// and not where it says a time too far away.
func TestRetryAfter(t *testing.T) {
	for value, want := range map[string]int{"0": 4, "0.002": 4, time.Now().Add(-time.Hour).UTC().Format(http.TimeFormat): 1, "3600": 1, "soon": 1} {
		c, url, n := serve(t, func(_ int, w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", value)
			w.WriteHeader(http.StatusTooManyRequests)
		})
		if err := c.Do(context.Background(), "wire.Test", "GET", url, nil, nil); !fault.Is(err, fault.Later) || *n != want {
			t.Errorf("Retry-After %s: %v after %d attempts, %d expected", value, err, *n, want)
		}
	}
	c, url, n := serve(t, func(n int, w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil || string(body) != `{"a":1}` || r.Header.Get("Authorization") != "Bearer secret" {
			t.Errorf("attempt %d: %s", n, body)
		}
		if n == 1 {
			w.Header().Set("Retry-After", "0")
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		io.WriteString(w, `{"b":2}`)
	})
	var out struct{ B int }
	if err := c.Do(context.Background(), "wire.Test", "POST", url, map[string]int{"a": 1}, &out); err != nil || out.B != 2 || *n != 2 {
		t.Errorf("%v %+v after %d attempts", err, out, *n)
	}
	ctx, cancel := context.WithCancel(context.Background())
	c, url, _ = serve(t, func(_ int, w http.ResponseWriter, _ *http.Request) {
		cancel()
		w.Header().Set("Retry-After", "60")
		w.WriteHeader(http.StatusTooManyRequests)
	})
	if err := c.Do(ctx, "wire.Test", "GET", url, nil, nil); err == nil {
		t.Error("a cancelled call succeeded")
	}
}

// TestBounds: an answer without end is given up, and so is one that is no
// JSON.
func TestBounds(t *testing.T) {
	c, url, _ := serve(t, func(_ int, w http.ResponseWriter, _ *http.Request) {
		line := []byte(strings.Repeat(" ", 1<<20))
		for range 20 {
			w.Write(line)
		}
	})
	var out any
	if err := c.Do(context.Background(), "wire.Test", "GET", url, nil, &out); !fault.Is(err, fault.Never) {
		t.Errorf("20 MB: %v", err)
	}
	c, url, _ = serve(t, func(_ int, w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "<html>") })
	if err := c.Do(context.Background(), "wire.Test", "GET", url, nil, &out); !fault.Is(err, fault.Never) {
		t.Errorf("HTML: %v", err)
	}
	c.Token = func(context.Context) (string, error) { return "", fault.New(fault.Later, "keeper", "away") }
	if err := c.Do(context.Background(), "wire.Test", "GET", url, nil, &out); !fault.Is(err, fault.Later) {
		t.Errorf("without a token: %v", err)
	}
	if err := c.Do(context.Background(), "wire.Test", "GET", "http://127.0.0.1:1/", nil, &out); !fault.Is(err, fault.Later) {
		t.Errorf("nobody there: %v", err)
	}
}

// FuzzRefusal: whatever a service answers becomes an error with a text that is
// bounded and on one line where it is quoted.
func FuzzRefusal(f *testing.F) {
	f.Add(400, []byte(`{"error":{"code":"a","message":"b"}}`))
	f.Add(500, []byte("<html>\r\n"))
	f.Fuzz(func(t *testing.T, status int, raw []byte) {
		r := AsRefusal(refusal("op", status, raw))
		if r == nil || r.Status != status || len(r.Text) > 4*len(raw)+2 {
			t.Errorf("%d %q: %+v", status, raw, r)
		}
	})
}
