package client

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
)

const (
	answerLimit = 64 << 20         // of an answer that is decoded
	problemSize = 1 << 20          // of a problem document
	defaultTime = 15 * time.Minute // of a call without a deadline: bulk acts run for ten
	pageSize    = 1000             // the server's largest
)

// Client talks to one gateway.
type Client struct {
	Base  string // "http://127.0.0.1:8025"
	Token string
	HTTP  *http.Client // nil: a default with sane timeouts
}

// Do sends in as JSON (nil: no body) and decodes the answer into out (nil:
// thrown away). A POST carries an Idempotency-Key and is tried again once when
// the connection broke.
func (c *Client) Do(ctx context.Context, method, path string, query url.Values, in, out any) error {
	_, err := c.do(ctx, method, path, query, in, out)
	return err
}

// Add is Do for a POST that adds something. made is false when the same was
// there already, which the API answers with 200 in the place of 201.
func (c *Client) Add(ctx context.Context, path string, in, out any) (made bool, err error) {
	status, err := c.do(ctx, http.MethodPost, path, nil, in, out)
	return status == http.StatusCreated, err
}

func (c *Client) do(ctx context.Context, method, path string, query url.Values, in, out any) (status int, err error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	body, err := encode(in)
	if err != nil {
		return 0, fault.Wrap(fault.Invalid, "client.Do", err)
	}
	resp, err := c.send(ctx, method, path, query, body)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	return resp.StatusCode, decode(resp, out)
}

// bounded gives a call without a deadline one.
func bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, defaultTime)
}

func encode(in any) ([]byte, error) {
	if in == nil {
		return nil, nil
	}
	return json.Marshal(in)
}

func decode(resp *http.Response, out any) error {
	data, err := io.ReadAll(io.LimitReader(resp.Body, answerLimit+1))
	switch {
	case err != nil:
		return fault.Wrap(fault.Later, "client.Do", fmt.Errorf("the answer broke off: %w", err))
	case len(data) > answerLimit:
		return fault.New(fault.Internal, "client.Do", "the answer is too large")
	case out == nil || len(data) == 0:
		return nil
	}
	return fault.Wrap(fault.Internal, "client.Do", json.Unmarshal(data, out))
}

// send returns an answer of success; anything else is a Problem.
func (c *Client) send(ctx context.Context, method, path string, query url.Values, body []byte) (*http.Response, error) {
	key := ""
	if method == http.MethodPost {
		key = rand.Text()
	}
	resp, err := c.once(ctx, method, path, query, body, key)
	if err != nil && key != "" && ctx.Err() == nil {
		// The server may have done it and the answer was lost: the key makes
		// the second try harmless.
		resp, err = c.once(ctx, method, path, query, body, key)
	}
	if err != nil {
		return nil, c.unreachable(err)
	}
	if resp.StatusCode >= 200 && resp.StatusCode < 300 {
		return resp, nil
	}
	defer resp.Body.Close()
	return nil, readProblem(resp)
}

func (c *Client) once(ctx context.Context, method, path string, query url.Values, body []byte, key string) (*http.Response, error) {
	target := strings.TrimSuffix(c.Base, "/") + path
	if len(query) > 0 {
		target += "?" + query.Encode()
	}
	var reader io.Reader
	if body != nil {
		reader = bytes.NewReader(body)
	}
	req, err := http.NewRequestWithContext(ctx, method, target, reader)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "application/json")
	if c.Token != "" {
		req.Header.Set("Authorization", "Bearer "+c.Token)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if key != "" {
		req.Header.Set("Idempotency-Key", key)
	}
	return c.client().Do(req)
}

// client never follows a redirect: the API has none, and another host is not
// to see the token.
func (c *Client) client() *http.Client {
	if c.HTTP != nil {
		return c.HTTP
	}
	return &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

func (c *Client) unreachable(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err // its text repeats the address
	}
	if errors.Is(err, context.Canceled) {
		return fault.Wrap(fault.Later, "client", err)
	}
	return (&fault.Error{Kind: fault.Later, Op: "client", Err: fmt.Errorf("no answer from %s: %w", c.Base, err)}).
		WithHint("Start the gateway with `sallyport serve --data DIR`, or name its address with --api URL.")
}

// List reads every page of a listing and calls each with every item; at most
// limit items when limit is positive.
func (c *Client) List(ctx context.Context, path string, query url.Values, limit int, each func(json.RawMessage) error) error {
	_, err := c.Some(ctx, path, query, limit, each)
	return err
}

// Some is List that tells whether there are more than the limit.
func (c *Client) Some(ctx context.Context, path string, query url.Values, limit int, each func(json.RawMessage) error) (more bool, err error) {
	q := maps.Clone(query)
	if q == nil {
		q = url.Values{}
	}
	for left := limit; ; {
		size := pageSize
		if limit > 0 {
			size = min(size, left)
		}
		q.Set("limit", strconv.Itoa(size))
		n, next, err := c.page(ctx, path, q, size, each)
		left -= n
		switch {
		case err != nil:
			return false, err
		case next == "" || limit > 0 && left <= 0:
			return next != "", nil
		case next == q.Get("after"):
			return false, fault.New(fault.Internal, "client.List", "the listing does not advance")
		}
		q.Set("after", next)
	}
}

// page reads one page, of which each gets at most size items.
func (c *Client) page(ctx context.Context, path string, q url.Values, size int, each func(json.RawMessage) error) (n int, next string, err error) {
	var page struct {
		Items []json.RawMessage `json:"items"`
		Next  string            `json:"next"`
	}
	if err := c.Do(ctx, http.MethodGet, path, q, nil, &page); err != nil {
		return 0, "", err
	}
	for _, item := range page.Items[:min(size, len(page.Items))] {
		if err := each(item); err != nil {
			return n, "", err
		}
		n++
	}
	return n, page.Next, nil
}

// Stream copies a GET's or POST's raw body, for backups. It has no deadline
// but the context's.
func (c *Client) Stream(ctx context.Context, method, path string, w io.Writer) error {
	resp, err := c.send(ctx, method, path, nil, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	source := &source{r: resp.Body}
	n, err := io.Copy(w, source)
	switch {
	case source.err != nil:
		return fault.Wrap(fault.Later, "client.Stream", fmt.Errorf("the stream broke off after %d bytes: %w", n, source.err))
	case err != nil:
		return fault.Wrap(fault.Internal, "client.Stream", err)
	}
	return nil
}

// source remembers whether it was the reading that failed, not the writing.
type source struct {
	r   io.Reader
	err error
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	if err != nil && err != io.EOF {
		s.err = err
	}
	return n, err
}
