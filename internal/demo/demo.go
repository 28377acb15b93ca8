package demo

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"
)

// Options of a run.
type Options struct {
	Binary   string              // the gateway's executable
	Messages int                 // to send; default 6000
	Senders  int                 // at a time; default 20
	Keep     bool                // leave it running after the verdict, until ctx ends
	Progress io.Writer           // live figures and words; nil for none
	Done     func(Verdict) error // told the verdict before Keep waits
}

// Verdict is what the mailboxes hold, against what was answered with 250.
type Verdict struct {
	Sent       int     `json:"sent"`       // copies (message and recipient) answered with 250
	Delivered  int     `json:"delivered"`  // of those, found in their mailbox
	Lost       int     `json:"lost"`       // sent, but in no mailbox
	Duplicated int     `json:"duplicated"` // found more than once
	P50MS      float64 `json:"p50_ms"`     // from our 250 to the mailbox's, undisturbed ones and those that met the kill
	P99MS      float64 `json:"p99_ms"`
	Rate       float64 `json:"rate"` // copies delivered a second, from the first sent to the last delivered
}

// run is one demonstration under way.
type run struct {
	Options
	dir     string
	gateway *gateway
	post    *postOffice
	sent    *ledger
	started time.Time
}

// Run does it all and returns the verdict. Nothing of it stays on disk.
func Run(ctx context.Context, o Options) (Verdict, error) {
	if o.Messages <= 0 {
		o.Messages = 6000
	}
	if o.Senders <= 0 {
		o.Senders = 20
	}
	if o.Progress == nil {
		o.Progress = io.Discard
	}
	dir, err := os.MkdirTemp("", "sallyport-demo-")
	if err != nil {
		return Verdict{}, err
	}
	defer os.RemoveAll(dir)
	r := &run{Options: o, dir: dir, sent: newLedger()}
	if err := r.prepare(ctx); err != nil {
		return Verdict{}, err
	}
	defer r.post.close()
	defer func() { r.gateway.kill() }()
	v, err := r.perform(ctx)
	if err == nil && o.Done != nil {
		err = o.Done(v)
	}
	if err == nil && o.Keep {
		r.keep(ctx)
	}
	return v, err
}

// prepare starts mailboxes and gateway, and makes the tenants.
func (r *run) prepare(ctx context.Context) (err error) {
	if r.post, err = openPostOffice(); err != nil {
		return err
	}
	fmt.Fprintf(r.Progress, "mailboxes: %d tenants in %d regions, an SMTP server each, on loopback\n", len(tenants()), len(regions()))
	if r.gateway, err = newGateway(ctx, r.Binary, r.dir); err != nil {
		r.post.close()
		return err
	}
	if err = r.gateway.start(ctx); err == nil {
		err = r.provision(ctx)
	}
	if err != nil {
		r.gateway.kill()
		r.post.close()
		return err
	}
	fmt.Fprintf(r.Progress, "gateway:   pid %d, SMTP %s, API %s\n", r.gateway.pid(), r.gateway.smtp, r.gateway.api)
	return nil
}

// provision adds the tenants as an operator's script would.
func (r *run) provision(ctx context.Context) error {
	api := r.gateway.client()
	for _, t := range tenants() {
		base := "/v1/tenants/" + t.name
		box := r.post.boxes[t.name]
		for _, step := range []struct {
			path string
			body map[string]any
		}{
			{"/v1/tenants", map[string]any{"name": t.name, "region": t.region}},
			{base + "/domains", map[string]any{"name": t.domain(), "recipients": "none"}},
			{base + "/connections", map[string]any{"name": "mailbox", "kind": "smtp", "direction": "inbound", "tls": "none",
				"hosts": []map[string]any{{"host": "127.0.0.1", "port": box.port(), "weight": 1}}}},
		} {
			if err := api.Do(ctx, "POST", step.path, nil, step.body, nil); err != nil {
				return fmt.Errorf("%s: %w", step.path, err)
			}
		}
	}
	return nil
}

// perform sends, kills, waits until the mailboxes have everything, and counts.
func (r *run) perform(ctx context.Context) (Verdict, error) {
	r.started = time.Now()
	stop := r.show(ctx)
	defer stop()
	sending := make(chan error, 1)
	go func() { sending <- r.sendAll(ctx) }()
	if err := r.killInTheMiddle(ctx); err != nil {
		return Verdict{}, err
	}
	if err := <-sending; err != nil {
		return Verdict{}, err
	}
	r.waitDelivered(ctx)
	stop()
	v := r.count()
	r.tell(v)
	return v, ctx.Err()
}

// killInTheMiddle ends the gateway's process without a word when half of the
// messages are accepted, and starts it again at once.
func (r *run) killInTheMiddle(ctx context.Context) error {
	for r.sent.messages() < r.Messages/2 {
		if err := pause(ctx, 5*time.Millisecond); err != nil {
			return err
		}
	}
	old := r.gateway.pid()
	r.gateway.kill()
	began := time.Now()
	if err := r.gateway.start(ctx); err != nil {
		return err
	}
	fmt.Fprintf(r.Progress, "\nkill -9 %d with mail in flight; pid %d serves again after %d ms\n", old, r.gateway.pid(), time.Since(began).Milliseconds())
	return nil
}

// settle is how long nothing may arrive before what is missing counts as lost.
const settle = 20 * time.Second

// waitDelivered waits until every copy sent has arrived, or nothing has for a
// while.
func (r *run) waitDelivered(ctx context.Context) {
	last, since := -1, time.Now()
	for {
		n := r.post.distinct()
		if n >= r.sent.copies() {
			// A second copy of one that was in flight at the kill may still be
			// on its way: wait until the queue is empty too.
			if s, err := r.gateway.status(ctx); err == nil && s.Queue.Queued == 0 {
				return
			}
		}
		if n != last {
			last, since = n, time.Now()
		}
		if time.Since(since) > settle || pause(ctx, 20*time.Millisecond) != nil {
			return
		}
	}
}

// keep leaves everything running until the user ends it.
func (r *run) keep(ctx context.Context) {
	fmt.Fprintf(r.Progress, "\nit keeps running until Ctrl-C. Look at it from another shell:\n  sallyport --data %s message list\n  sallyport --data %s queue destinations\n",
		r.gateway.dir, r.gateway.dir)
	<-ctx.Done()
}

// pause waits, or returns why it must not.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
