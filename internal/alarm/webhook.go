package alarm

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"time"
)

const (
	hookQueue = 32 // notices
	hookTime  = 10 * time.Second
	hookTries = 4
	hookPause = 2 * time.Second // before the second try, doubled for each further
)

// hook posts notices to one address, one after the other.
type hook struct {
	Webhook
	host    string // for the log: the address itself may hold a secret
	http    *http.Client
	log     *slog.Logger
	notices chan Notice
}

func newHook(h Webhook, c Config) *hook {
	u, _ := url.Parse(h.URL) // New has checked it
	return &hook{Webhook: h, host: u.Host, http: c.HTTP, log: c.Log, notices: make(chan Notice, hookQueue)}
}

// offer never blocks.
func (h *hook) offer(n Notice) {
	select {
	case h.notices <- n:
	default:
		h.log.Error("alarm: a webhook is too slow, a notice is dropped", "host", h.host)
	}
}

func (h *hook) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case n := <-h.notices:
			h.deliver(ctx, n)
		}
	}
}

// deliver tries a few times, with growing pauses.
func (h *hook) deliver(ctx context.Context, n Notice) {
	body, err := json.Marshal(n)
	if err != nil {
		h.log.Error("alarm: a notice could not be written", "err", err)
		return
	}
	pause := hookPause
	for try := 1; ; try++ {
		err := h.post(ctx, body)
		if err == nil || ctx.Err() != nil {
			return
		}
		if try == hookTries {
			h.log.Error("alarm: a webhook failed, its notice is dropped", "host", h.host, "err", err)
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		pause *= 2
	}
}

func (h *hook) post(ctx context.Context, body []byte) error {
	ctx, cancel := context.WithTimeout(ctx, hookTime)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, h.URL, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "sallyport")
	if h.Token != "" {
		req.Header.Set("Authorization", "Bearer "+h.Token)
	}
	resp, err := h.http.Do(req)
	if err != nil {
		return cause(err)
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<10)) // so that the connection can be used again
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		return fmt.Errorf("it answered %s", resp.Status)
	}
	return nil
}

// cause takes the address off an error of the HTTP client.
func cause(err error) error {
	if u, ok := err.(*url.Error); ok {
		return u.Err
	}
	return err
}
