package deliver

import (
	"context"
	"log/slog"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/queue"
)

// worker serves one slot.
type worker struct {
	*Deliverer
	ctx  context.Context // ends when no new work is to be begun
	conn *conn           // the connection in hand, nil for none
	last *report         // the last report begun, nil for none
}

// report is one item's outcome on its way to the disk.
type report struct {
	done chan struct{} // closed when err is set
	err  error
}

// serve delivers the slot's items one after the other, until there are no more
// or one of them could not even be tried.
func (d *Deliverer) serve(ctx context.Context, s slot) {
	defer s.Release()
	w := &worker{Deliverer: d, ctx: ctx}
	defer w.leave()
	for {
		it, ok := s.Next(ctx, linger)
		if !ok || !w.deliver(it) {
			return
		}
	}
}

// deliver makes one attempt and reports it. The report of what went well is
// written while the next item is under way; after anything else the queue has
// to know first, for it may want to leave the destination alone.
func (w *worker) deliver(it *queue.Item) (more bool) {
	a := w.attempt(it)
	w.report(it, a)
	if a.Skipped || w.conn == nil || a.Whole != nil {
		w.settle()
	}
	return !a.Skipped
}

// report begins the report of an attempt. There is at most one at a time.
func (w *worker) report(it *queue.Item, a queue.Attempt) {
	w.settle()
	r := &report{done: make(chan struct{})}
	w.last = r
	if w.conn != nil {
		w.conn.unrecorded = r
	}
	a.At = w.now()
	w.running.Go(func() {
		defer close(r.done)
		r.err = w.record(it, a)
	})
}

// settle waits until the last report is on disk, or given up.
func (w *worker) settle() {
	if w.last != nil {
		<-w.last.done
		w.last = nil
	}
}

// leave gives the connection to the next who needs it.
func (w *worker) leave() {
	w.settle()
	w.shelve()
}

// shelve puts the connection in hand into the idle pool.
func (w *worker) shelve() {
	if w.conn != nil {
		w.idle.put(w.conn, time.Now())
		w.conn = nil
	}
}

// record writes a report, again and again while the store cannot commit: what
// was answered with 250 must not be sent a second time because a database was
// away for a while. Only the end of the process gives it up; the item is then
// found unleased at the next start.
func (d *Deliverer) record(it *queue.Item, a queue.Attempt) error {
	for tries, wait := 1, 50*time.Millisecond; ; tries, wait = tries+1, min(2*wait, 5*time.Second) {
		err := d.queue.Report(d.recording, it, a)
		if err == nil {
			return nil
		}
		d.log.LogAttrs(d.recording, slog.LevelError, "report not written", slog.String("tenant", it.Tenant),
			slog.String("message", it.Message), slog.String("item", it.ID), slog.Int("tries", tries), slog.Any("error", err))
		if !worthAgain(err, tries) || !pause(d.recording, wait) {
			return err
		}
	}
}

// worthAgain tells a store that is away from an item that is not there to be
// reported on; what nobody has classified gets a few tries.
func worthAgain(err error, tries int) bool {
	switch fault.KindOf(err) {
	case fault.Later:
		return true
	case fault.Internal:
		return tries < 8
	default:
		return false
	}
}

// pause waits; false means that ctx ended first.
func pause(ctx context.Context, wait time.Duration) bool {
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
