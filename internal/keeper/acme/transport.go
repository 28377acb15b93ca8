package acme

import (
	"errors"
	"io"
	"net/http"
	"strconv"
	"sync"
	"time"
)

const (
	maxBody     = 256 << 10
	maxRequests = 400
	mostWait    = 7 * 24 * time.Hour // the longest rate limit that public CAs have
)

var errMany = errors.New("it wants too many requests for one certificate")

// bounded carries the requests of one issuance. A CA may name any URL in its
// answers, and answer with anything: what is asked and what is read have limits
// here, where nothing gets past.
type bounded struct {
	base http.RoundTripper
	now  func() time.Time

	mu       sync.Mutex
	requests int
	busy     bool      // the last answer that failed was a 429 or 503
	again    time.Time // when it said to come again, zero if it did not
}

// RoundTrip is of http.RoundTripper.
func (b *bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Scheme != "https" {
		return nil, errors.New("the CA names an address that is not https")
	}
	b.mu.Lock()
	b.requests++
	many := b.requests > maxRequests
	b.mu.Unlock()
	if many {
		return nil, errMany
	}
	resp, err := b.base.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	b.note(resp)
	resp.Body = &boundedBody{ReadCloser: resp.Body, left: maxBody}
	return resp, nil
}

// note remembers what a CA in trouble, or one that has had enough of us, said.
func (b *bounded) note(resp *http.Response) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case resp.StatusCode == http.StatusTooManyRequests || resp.StatusCode == http.StatusServiceUnavailable:
		b.busy, b.again = true, retryAfter(resp.Header.Get("Retry-After"), b.now())
	case resp.StatusCode < 400:
		b.busy, b.again = false, time.Time{}
	}
}

func (b *bounded) said() (busy bool, again time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.busy, b.again
}

// retryAfter reads the header (RFC 9110 10.2.3), zero for none that makes sense.
func retryAfter(text string, now time.Time) time.Time {
	var at time.Time
	if n, err := strconv.ParseInt(text, 10, 32); err == nil {
		at = now.Add(time.Duration(n) * time.Second)
	} else if at, err = http.ParseTime(text); err != nil {
		return time.Time{}
	}
	if !at.After(now) {
		return time.Time{}
	}
	if most := now.Add(mostWait); at.After(most) {
		return most
	}
	return at
}

// boundedBody ends in an error after what an answer may have.
type boundedBody struct {
	io.ReadCloser
	left int
}

func (b *boundedBody) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, errors.New("the CA answered with more than 256 KB")
	}
	if len(p) > b.left {
		p = p[:b.left]
	}
	n, err := b.ReadCloser.Read(p)
	b.left -= n
	return n, err
}
