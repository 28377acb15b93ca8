package api_test

import (
	"context"
	"errors"
	"sync"
	"testing"

	"github.com/sallyport-mail/sallyport/internal/api"
	"github.com/sallyport-mail/sallyport/internal/tenant"
)

func (r *rig) tokens() int { return len(r.tenants.Tokens()) }

func TestIdempotency(t *testing.T) {
	r := newRig(t)
	r.tenant("acme")
	admin := r.token(tenant.Admin, "acme")
	ask := object{"role": "read", "tenant": "acme"}
	before := r.tokens()
	first := r.ok("POST", "/v1/tokens", r.operator, ask, "Idempotency-Key", "k1")
	again := r.ok("POST", "/v1/tokens", r.operator, ask, "Idempotency-Key", "k1")
	if string(first.body) != string(again.body) || again.status != 201 || again.header.Get("Idempotent-Replayed") != "true" {
		t.Errorf("another answer: %d %s, then %d %s", first.status, first.body, again.status, again.body)
	}
	if first.header.Get("Idempotent-Replayed") != "" {
		t.Error("the first is no replay")
	}
	if again.header.Get("Content-Type") != first.header.Get("Content-Type") {
		t.Errorf("Content-Type %q", again.header.Get("Content-Type"))
	}
	if n := r.tokens(); n != before+1 {
		t.Errorf("%d tokens were made", n-before)
	}
	if a := r.call("POST", "/v1/tokens", r.operator, object{"role": "read"}, "Idempotency-Key", "k1"); a.status != 409 {
		t.Errorf("another body: %d %s", a.status, a.body)
	}
	r.ok("POST", "/v1/tokens", admin, ask, "Idempotency-Key", "k1")
	r.ok("POST", "/v1/tokens", r.operator, ask)
	r.ok("POST", "/v1/tokens", r.operator, ask)
	if n := r.tokens(); n != before+4 {
		t.Errorf("another caller and no key: %d tokens were made, want 4", n-before)
	}
	if a := r.call("POST", "/v1/tenants", r.operator, object{"name": "x", "region": "us"}, "Idempotency-Key", "k1"); a.status != 201 {
		t.Errorf("another route: %d %s", a.status, a.body)
	}
}

// TestReplayNeedsTheToken has the key and body of another: the token is
// checked before anything stored is looked at.
func TestReplayNeedsTheToken(t *testing.T) {
	r := newRig(t)
	ask := object{"role": "read"}
	r.ok("POST", "/v1/tokens", r.operator, ask, "Idempotency-Key", "k1")
	for _, token := range []string{"", "wrong"} {
		if a := r.call("POST", "/v1/tokens", token, ask, "Idempotency-Key", "k1"); a.status != 401 {
			t.Errorf("%d %s", a.status, a.body)
		}
	}
}

func TestFailureIsNotStored(t *testing.T) {
	fails := errors.New("broken")
	r := newRig(t, func(c *api.Config) {
		c.Verify = func(context.Context) ([]api.Finding, error) { return nil, fails }
	})
	if a := r.call("POST", "/v1/verify", r.operator, nil, "Idempotency-Key", "k"); a.status != 500 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	fails = nil
	r.ok("POST", "/v1/verify", r.operator, nil, "Idempotency-Key", "k")
}

// TestConcurrentReplay sends one request many times at once: it runs once.
func TestConcurrentReplay(t *testing.T) {
	var mu sync.Mutex
	runs := 0
	release := make(chan struct{})
	r := newRig(t, func(c *api.Config) {
		c.Verify = func(context.Context) ([]api.Finding, error) {
			mu.Lock()
			runs++
			mu.Unlock()
			<-release
			return nil, nil
		}
	})
	var wg sync.WaitGroup
	for range 10 {
		wg.Go(func() {
			if a := r.call("POST", "/v1/verify", r.operator, nil, "Idempotency-Key", "k"); a.status != 200 {
				t.Errorf("%d %s", a.status, a.body)
			}
		})
	}
	close(release)
	wg.Wait()
	if runs != 1 {
		t.Errorf("it ran %d times", runs)
	}
}
