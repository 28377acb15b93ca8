package demo

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
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

// Verdict is what the mailboxes hold, against what was answered with 250, and
// what became of the identities that were changed meanwhile.
type Verdict struct {
	Sent       int     `json:"sent"`       // copies (message and recipient) answered with 250
	Delivered  int     `json:"delivered"`  // of those, found in their mailbox
	Lost       int     `json:"lost"`       // sent, but in no mailbox
	Duplicated int     `json:"duplicated"` // found more than once
	P50MS      float64 `json:"p50_ms"`     // from our 250 to the mailbox's, undisturbed ones and those that met the kill
	P99MS      float64 `json:"p99_ms"`
	Rate       float64 `json:"rate"` // copies delivered a second, from the first sent to the last delivered

	Replaced      Change `json:"replaced"`    // one tenant's identity, in two gates
	Compromised   Change `json:"compromised"` // another's, called stolen
	LedgerEntries int64  `json:"ledger_entries"`
	LedgerOK      bool   `json:"ledger_ok"`
}

// run is one demonstration under way.
type run struct {
	Options
	dir     string
	gateway *gateway
	post    *postOffice
	sent    *acks
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
	r := &run{Options: o, dir: dir, sent: newAcks()}
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

// prepare starts Microsoft 365 and gateway, and makes the tenants.
func (r *run) prepare(ctx context.Context) (err error) {
	if r.post, err = openPostOffice(r.dir); err != nil {
		return err
	}
	fmt.Fprintf(r.Progress, "mailboxes: a simulated Microsoft 365 with %d tenants, on loopback: each lets in only the certificate name that its connector says\n", len(tenants()))
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
	fmt.Fprintf(r.Progress, "gateway:   pid %d, SMTP %s, API %s; %d regions, each with a keeper, a ledger and a CA of its own\n",
		r.gateway.pid(), r.gateway.smtp, r.gateway.api, len(regions()))
	return nil
}

// provision adds the tenants as an operator would, by the command line. The
// gateway sets each customer's connector and app key itself, by the
// administrator's token.
func (r *run) provision(ctx context.Context) error {
	for _, t := range tenants() {
		m := r.post.of(t)
		token := filepath.Join(r.dir, t.name+".token")
		if err := os.WriteFile(token, []byte(m.AdminToken), 0o600); err != nil {
			return err
		}
		host, port, err := net.SplitHostPort(m.SMTP)
		if err != nil {
			return err
		}
		for _, args := range [][]string{
			{"tenant", "add", t.name, "--region", t.region},
			{"domain", "add", t.name, t.domain(), "--recipients", "none"},
			{"connection", "add", t.name, "mailbox", "--kind", "m365", "--host", host, "--port", port, "--graph", m.Graph, "--ca", m.CAFile,
				"--entra-tenant", m.EntraTenant, "--admin-token-file", token},
		} {
			if err := r.gateway.run(ctx, nil, args...); err != nil {
				return err
			}
		}
	}
	return nil
}

// perform sends; meanwhile it replaces an identity, kills the gateway, and
// calls another identity stolen. Then it waits until the mailboxes have
// everything, and counts.
func (r *run) perform(ctx context.Context) (Verdict, error) {
	r.started = time.Now()
	stop := r.show(ctx)
	defer stop()
	sending := make(chan error, 1)
	go func() { sending <- r.sendAll(ctx) }()
	v, err := r.disturb(ctx)
	if err != nil {
		return v, err
	}
	if err := <-sending; err != nil {
		return v, err
	}
	r.waitDelivered(ctx)
	stop()
	r.count(&v)
	if err := r.verify(ctx, &v); err != nil {
		return v, err
	}
	r.tell(v)
	return v, ctx.Err()
}

// disturb does what an operator never wishes for, under load.
func (r *run) disturb(ctx context.Context) (v Verdict, err error) {
	for _, step := range []struct {
		after int // messages accepted
		do    func(context.Context, *Verdict) error
	}{
		{r.Messages / 5, r.replace}, {r.Messages / 2, r.killGateway}, {r.Messages * 2 / 3, r.compromise},
	} {
		for r.sent.messages() < step.after {
			if err := pause(ctx, 5*time.Millisecond); err != nil {
				return v, err
			}
		}
		if err := step.do(ctx, &v); err != nil {
			return v, err
		}
	}
	return v, nil
}

// killGateway ends the gateway's process without a word, and starts it again
// at once.
func (r *run) killGateway(ctx context.Context, _ *Verdict) error {
	old := r.gateway.pid()
	r.gateway.kill()
	began := time.Now()
	if err := r.gateway.start(ctx); err != nil {
		return err
	}
	fmt.Fprintf(r.Progress, "\nkill -9 %d with mail in flight; pid %d serves again after %d ms\n\n", old, r.gateway.pid(), time.Since(began).Milliseconds())
	return nil
}

// settle is how long nothing may arrive before what is missing counts as lost.
const settle = 20 * time.Second

// waitDelivered waits until every copy sent has arrived, or nothing has for a
// while.
func (r *run) waitDelivered(ctx context.Context) {
	last, since := -1, time.Now()
	for {
		n := len(r.post.arrived())
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
		if time.Since(since) > settle || pause(ctx, 50*time.Millisecond) != nil {
			return
		}
	}
}

// keep leaves everything running until the user ends it.
func (r *run) keep(ctx context.Context) {
	fmt.Fprintf(r.Progress, "\nit keeps running until Ctrl-C. Look at it from another shell:\n  sallyport --data %[1]s message list\n  sallyport --data %[1]s identity list\n  sallyport --data %[1]s ledger search\n",
		r.gateway.dir)
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
