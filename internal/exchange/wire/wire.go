package wire

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
)

// Caller calls one service for one tenant.
type Caller struct {
	// Token yields the bearer token; it is asked before each attempt.
	Token func(ctx context.Context) (string, error)
	// HTTP carries the calls; nil is http.DefaultClient.
	HTTP *http.Client
	// Now is for a Retry-After that names a time.
	Now func() time.Time
}

// Bounds of a call.
const (
	maxAnswer  = 16 << 20
	attempts   = 4
	longestGap = 2 * time.Minute // a longer Retry-After is the caller's to wait for
)

// Do sends in (nil: no body) and reads the answer into out (nil: none wanted).
// op is the operation that errors name.
func (c *Caller) Do(ctx context.Context, op, method, url string, in, out any) error {
	var body []byte
	if in != nil {
		var err error
		if body, err = json.Marshal(in); err != nil {
			return fault.Wrap(fault.Internal, op, err)
		}
	}
	for n := 1; ; n++ {
		wait, err := c.once(ctx, op, method, url, body, out)
		if err == nil || wait <= 0 || n == attempts || wait > longestGap {
			return err
		}
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return err
		}
	}
}

// once is one attempt; wait is when the service would like another.
func (c *Caller) once(ctx context.Context, op, method, url string, body []byte, out any) (wait time.Duration, err error) {
	token, err := c.Token(ctx)
	if err != nil {
		return 0, err
	}
	r, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return 0, fault.Wrap(fault.Invalid, op, err)
	}
	r.Header.Set("Authorization", "Bearer "+token)
	r.Header.Set("Accept", "application/json")
	if body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	client := c.HTTP
	if client == nil {
		client = http.DefaultClient
	}
	answer, err := client.Do(r)
	if err != nil {
		return 0, (&fault.Error{Kind: fault.Later, Op: op, Err: err}).WithHint(ReachHint(err))
	}
	defer answer.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(answer.Body, maxAnswer+1))
	switch {
	case err != nil:
		return 0, fault.Wrap(fault.Later, op, err)
	case len(raw) > maxAnswer:
		return 0, fault.New(fault.Never, op, "the service's answer is longer than 16 MB")
	case answer.StatusCode >= 300:
		return c.retryAfter(answer), refusal(op, answer.StatusCode, raw)
	case out == nil || len(raw) == 0:
		return 0, nil
	}
	if err := json.Unmarshal(raw, out); err != nil {
		return 0, fault.Wrap(fault.Never, op, fmt.Errorf("the service's answer is not understood: %w", err))
	}
	return 0, nil
}

// ReachHint is what to do about a service that could not be talked to.
func ReachHint(err error) string {
	var bad *tls.CertificateVerificationError
	if errors.As(err, &bad) {
		return "The service's certificate is not trusted: check the CA that the connection names (--ca) and the service's address (--graph, --login). A connection to a simulator names the simulator's CA, one to Microsoft none."
	}
	return "Check that the service can be reached from here: its address (--graph, --login), the DNS, firewalls and the proxy."
}

// retryAfter is what the service asks for where it is busy: seconds, also
// fractions of them as Graph sends, or a time (RFC 9110 10.2.3). 0: it did not
// say, or is not busy.
func (c *Caller) retryAfter(answer *http.Response) time.Duration {
	if answer.StatusCode != http.StatusTooManyRequests && answer.StatusCode != http.StatusServiceUnavailable {
		return 0
	}
	text := answer.Header.Get("Retry-After")
	if s, err := strconv.ParseFloat(text, 64); err == nil && s >= 0 && s < 1e6 {
		return max(time.Duration(s*float64(time.Second)), time.Millisecond)
	}
	t, err := http.ParseTime(text)
	if err != nil || c.Now == nil {
		return 0
	}
	return t.Sub(c.Now())
}

// Refusal is what a service answered instead of doing the thing.
type Refusal struct {
	Status int
	Code   string // "Request_BadRequest"
	Text   string
}

// Error is the service's text with its code and status.
func (r *Refusal) Error() string {
	return fmt.Sprintf("%s (%s, HTTP %d)", strings.TrimRight(r.Text, ". "), r.Code, r.Status)
}

// AsRefusal finds what the service said in an error's chain, nil for none.
func AsRefusal(err error) *Refusal {
	var r *Refusal
	if errors.As(err, &r) {
		return r
	}
	return nil
}

// refusal reads an error in the shape of Graph; anything else is quoted.
func refusal(op string, status int, raw []byte) error {
	var in struct {
		Error struct {
			Code    string `json:"code"`
			Message string `json:"message"`
		} `json:"error"`
	}
	r := &Refusal{Status: status, Code: http.StatusText(status)}
	if json.Unmarshal(raw, &in) == nil && in.Error.Code != "" {
		r.Code, r.Text = in.Error.Code, in.Error.Message
	} else {
		r.Text = strconv.Quote(string(raw[:min(len(raw), 200)]))
	}
	kind, hint := kindOf(status)
	return &fault.Error{Kind: kind, Op: op, Err: r, Hint: hint}
}

func kindOf(status int) (fault.Kind, string) {
	switch {
	case status == http.StatusUnauthorized:
		return fault.Denied, "The token or the proof was not taken: check the tenant, and that the application's certificate or the administrator's sign-in is still valid."
	case status == http.StatusForbidden:
		return fault.Denied, "Ask the tenant's administrator to grant the permission that this needs, and to consent to it."
	case status == http.StatusNotFound:
		return fault.Missing, "Check the name in the tenant's admin centre; somebody may have removed it."
	case status == http.StatusConflict || status == http.StatusPreconditionFailed:
		return fault.Conflict, "Look at what is there now, then decide again."
	case status == http.StatusTooManyRequests || status >= 500 && status != http.StatusNotImplemented:
		return fault.Later, "The service is busy: try again in some minutes."
	case status >= 400 && status < 500:
		return fault.Invalid, ""
	}
	return fault.Never, ""
}
