package client

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/keeper/act"
)

// copy makes a request whose answer is long, and copies it as it comes. It has to
// begin as soon as any other answer, and then may take as long as it likes, but
// not stand still.
func (r *Remote) copy(ctx context.Context, name act.Name, q act.Request, w io.Writer) error {
	op := "keeper." + string(name)
	body, err := json.Marshal(q)
	if err != nil {
		return fault.Wrap(fault.Internal, op, err)
	}
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	watch := time.AfterFunc(r.c.Timeout, func() { end(silent(r.c.Timeout)) })
	defer watch.Stop()
	resp, err := r.post(ctx, op, name, body)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
		if err != nil {
			return fault.Wrap(fault.Later, op, err)
		}
		return decode(op, resp.StatusCode, answer, nil)
	}
	watch.Stop()
	if _, err := io.Copy(w, &lively{ctx, resp.Body, r.c.Silence, end}); err != nil {
		return (&fault.Error{Kind: fault.Later, Op: op, Err: err}).WithHint("Ask again: what came is not all of it.")
	}
	return nil
}

// silent is why an answer is not waited for any longer.
func silent(most time.Duration) error { return errors.New("nothing came from it in " + most.String()) }

// lively is an answer that is broken off when it stands still. The time that its
// reader takes does not count.
type lively struct {
	ctx  context.Context
	from io.Reader
	most time.Duration
	end  context.CancelCauseFunc
}

func (l *lively) Read(p []byte) (int, error) {
	watch := time.AfterFunc(l.most, func() { l.end(silent(l.most)) })
	n, err := l.from.Read(p)
	watch.Stop()
	if err != nil && !errors.Is(err, io.EOF) && l.ctx.Err() != nil {
		err = context.Cause(l.ctx)
	}
	return n, err
}
