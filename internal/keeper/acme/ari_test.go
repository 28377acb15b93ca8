package acme

import (
	"context"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
)

// window is a RenewalInfo object.
func window(start, end time.Time, explanation string) string {
	return fmt.Sprintf(`{"suggestedWindow":{"start":%q,"end":%q},"explanationURL":%q}`, start.UTC().Format(time.RFC3339), end.UTC().Format(time.RFC3339), explanation)
}

func TestAdvice(t *testing.T) {
	r := newRig(t)
	chain, err := r.Issue(t.Context(), name, newKey(t), nil)
	if err != nil {
		t.Fatal(err)
	}
	leaf := parsed(t, chain[0])
	at, explanation, err := r.Advice(t.Context(), leaf)
	life := leaf.NotAfter.Sub(leaf.NotBefore)
	ideal := leaf.NotAfter.Add(-life / 3) // pebble's window is two days around it
	if err != nil || explanation != "" || at.Before(ideal.Add(-25*time.Hour)) || at.After(ideal.Add(25*time.Hour)) {
		t.Fatalf("%v of %v to %v, %q, %v", at, leaf.NotBefore, leaf.NotAfter, explanation, err)
	}
	// It is not asked again for six hours, as it said; then it has another mind.
	before := r.ca.Asked.Load()
	start := time.Now().Add(-2 * time.Hour)
	if err := r.ca.DB.SetARIResponse(leaf.SerialNumber, window(start, start.Add(time.Hour), "https://ca.example/why")); err != nil {
		t.Fatal(err)
	}
	if again, _, err := r.Advice(t.Context(), leaf); err != nil || !again.Equal(at) || r.ca.Asked.Load() != before {
		t.Errorf("%v, %v", again, err)
	}
	r.clock.Store(int64(6*time.Hour + time.Minute))
	now, explanation, err := r.Advice(t.Context(), leaf)
	if err != nil || now.Before(start.Add(-time.Second)) || now.After(start.Add(time.Hour)) || explanation != "https://ca.example/why" {
		t.Errorf("%v, %q, %v", now, explanation, err)
	}
	// An issuer that starts anew chooses the same time.
	fresh := r.issuer(t)
	if same, _, err := fresh.Advice(t.Context(), leaf); err != nil || !same.Equal(now) {
		t.Errorf("%v, not %v: %v", same, now, err)
	}
}

// The times of many certificates fill the window.
func TestAdviceSpreads(t *testing.T) {
	start := time.Now().Truncate(time.Second)
	body := []byte(window(start, start.Add(30*time.Minute), ""))
	early := 0
	for range 200 {
		leaf := parsed(t, forged(t, name, newKey(t), nil))
		a, err := readAdvice(body, leaf)
		if err != nil || a.at.Before(start) || a.at.After(start.Add(30*time.Minute)) {
			t.Fatalf("%v: %v", a.at, err)
		}
		if a.at.Before(start.Add(15 * time.Minute)) {
			early++
		}
	}
	if early < 60 || early > 140 {
		t.Errorf("%d of 200 in the first half", early)
	}
}

func TestNoAdvice(t *testing.T) {
	r := newRig(t)
	leaf := parsed(t, forged(t, name, newKey(t), func(c *x509.Certificate) { c.AuthorityKeyId = []byte{1} }))
	answer := func(f http.HandlerFunc) *Issuer {
		r.instead("renewalInfo", f)
		return r.issuer(t)
	}
	hour := time.Now().Add(time.Hour)
	for what, f := range map[string]http.HandlerFunc{
		"html":      func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "<html>") },
		"nothing":   func(w http.ResponseWriter, _ *http.Request) {},
		"backwards": jsonOf(window(hour, hour.Add(-time.Minute), "")),
		"too late":  jsonOf(window(hour.Add(48*time.Hour), hour.Add(49*time.Hour), "")),
		"for ever":  jsonOf(window(hour.Add(-90*24*time.Hour), hour, "")),
		"unknown":   func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(404) },
		"long":      jsonOf(strings.Repeat(" ", maxBody+1)),
	} {
		i := answer(f)
		for range 2 { // the second answer is remembered
			if _, _, err := i.Advice(t.Context(), leaf); !fault.Is(err, fault.Later) || fault.HintOf(err) == "" {
				t.Errorf("%s: %v", what, err)
			}
		}
	}
	// Retry-After of a refusal holds, within bounds.
	asked := 0
	i := answer(func(w http.ResponseWriter, _ *http.Request) {
		asked++
		w.Header().Set("Retry-After", "600")
		w.WriteHeader(429)
	})
	for _, c := range []struct {
		ahead time.Duration
		asked int
	}{{0, 1}, {9 * time.Minute, 1}, {11 * time.Minute, 2}} {
		r.clock.Store(int64(c.ahead))
		if _, _, err := i.Advice(t.Context(), leaf); !fault.Is(err, fault.Later) || asked != c.asked {
			t.Errorf("after %v: %v, asked %d times", c.ahead, err, asked)
		}
	}
	// Who gives up leaves no mark.
	i = answer(func(_ http.ResponseWriter, q *http.Request) { <-q.Context().Done() })
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, _, err := i.Advice(ctx, leaf); !fault.Is(err, fault.Later) || len(i.advice) != 0 {
		t.Errorf("%v", err)
	}
	if _, _, err := i.Advice(t.Context(), parsed(t, forged(t, name, newKey(t), nil))); !fault.Is(err, fault.Invalid) {
		t.Errorf("a certificate of nobody: %v", err)
	}
}

// A CA without ARI says so by its directory.
func TestNoARI(t *testing.T) {
	r := newRig(t)
	r.instead("/dir", func(w http.ResponseWriter, q *http.Request) {
		base := "https://" + q.Host
		jsonOf(`{"newNonce":"`+base+`/n","newAccount":"`+base+`/a","newOrder":"`+base+`/o"}`)(w, q)
	})
	leaf := parsed(t, forged(t, name, newKey(t), func(c *x509.Certificate) { c.AuthorityKeyId = []byte{1} }))
	if _, _, err := r.Advice(t.Context(), leaf); !fault.Is(err, fault.Missing) {
		t.Errorf("%v", err)
	}
}

func FuzzAdvice(f *testing.F) {
	leaf, err := x509.ParseCertificate(forged(f, name, newKey(f), nil))
	if err != nil {
		f.Fatal(err)
	}
	now := time.Now()
	f.Add([]byte(window(now, now.Add(time.Hour), "https://x")))
	f.Add([]byte(`{"suggestedWindow":{"start":"0001-01-01T00:00:01Z","end":"9999-12-31T23:59:59Z"}}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		a, err := readAdvice(body, leaf)
		if err == nil && (a.at.IsZero() || a.at.After(leaf.NotAfter) || strings.ContainsAny(a.explanation, "\n\r\x1b")) {
			t.Errorf("%+v", a)
		}
	})
}
