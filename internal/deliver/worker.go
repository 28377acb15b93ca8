package deliver

import (
	"context"
	"log/slog"
	"time"

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
		if !ok || !w.deliver(it) || w.gate.closed.Load() {
			return
		}
	}
}

// deliver makes one attempt and reports it. The report of what went well is
// written while the next item is under way; after anything else the queue has
// to know first, for it may want to leave the destination alone.
func (w *worker) deliver(it *queue.Item) (more bool) {
	a := w.attempt(it)
	recorded := w.report(it, a)
	if a.Skipped || w.conn == nil || a.Whole != nil {
		recorded = w.settle() && recorded
	}
	return recorded && !a.Skipped
}

// report begins the report of an attempt. There is at most one at a time;
// false means that the one before could not be written.
func (w *worker) report(it *queue.Item, a queue.Attempt) (recorded bool) {
	recorded = w.settle()
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
	return recorded
}

// settle waits until the last report is on disk, or has failed: then nothing
// more is sent over the connection that it came from.
func (w *worker) settle() (recorded bool) {
	r := w.last
	if r == nil {
		return true
	}
	<-r.done
	w.last = nil
	if r.err != nil && w.conn != nil {
		w.quit(w.conn)
		w.conn = nil
	}
	return r.err == nil
}

// leave gives the connection to the next who needs it.
func (w *worker) leave() {
	w.settle()
	w.shelve()
}

// shelve puts the connection in hand into the idle pool.
func (w *worker) shelve() {
	if w.conn == nil {
		return
	}
	if w.conn.ending.Load() {
		w.quit(w.conn)
	} else {
		w.idle.put(w.conn, time.Now())
	}
	w.conn = nil
}

// record writes a report. When the store does not take it the queue keeps it
// and tries on; but what is delivered meanwhile would be delivered again after
// a crash, so hardly anything is begun until a report is written again.
func (d *Deliverer) record(it *queue.Item, a queue.Attempt) error {
	err := d.queue.Report(d.recording, it, a)
	if err == nil {
		d.gate.open()
		return nil
	}
	d.gate.shut()
	d.log.LogAttrs(d.recording, slog.LevelError, "the outcome of a delivery is not on disk yet", slog.String("tenant", it.Tenant),
		slog.String("message", it.Message), slog.String("item", it.ID), slog.Any("error", err))
	return err
}
