package client

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
)

// Client talks to one gateway.
type Client struct {
	Base  string // "http://127.0.0.1:8025"
	Token string
	HTTP  *http.Client // nil: a default with sane timeouts
}

// Problem is a problem document (RFC 9457). As an error it is also a
// *fault.Error of the kind its status says (errors.As finds both).
type Problem struct {
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail"`
	Hint   string `json:"hint,omitempty"`
}

func (p *Problem) Error() string { panic("skeleton") }

// Do sends in as JSON (nil: no body) and decodes the answer into out (nil:
// thrown away). A POST carries an Idempotency-Key and is tried again once when
// the connection broke.
func (c *Client) Do(ctx context.Context, method, path string, query url.Values, in, out any) error {
	panic("skeleton")
}

// List reads every page of a listing and calls each with every item; at most
// limit items when limit is positive.
func (c *Client) List(ctx context.Context, path string, query url.Values, limit int, each func(json.RawMessage) error) error {
	panic("skeleton")
}

// Stream copies a GET's or POST's raw body, for backups.
func (c *Client) Stream(ctx context.Context, method, path string, w io.Writer) error {
	panic("skeleton")
}
