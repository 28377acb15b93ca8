package trace

import (
	"strings"
	"time"

	"github.com/sallyport-mail/sallyport/internal/store"
)

// row is what a batch does to one message.
type row struct {
	tenant, id string
	message    *Message
	change     Counts
	steps      []byte // JSON objects, each after a comma
}

// join makes one row of all the events that a batch has of a message: one that
// was accepted and delivered in the meantime costs one insert.
func join(batch []handed) []*row {
	rows := make([]*row, 0, len(batch))
	by := make(map[string]*row, len(batch))
	for _, h := range batch {
		key := h.Tenant + "\x00" + h.ID
		r := by[key]
		if r == nil {
			r = &row{tenant: h.Tenant, id: h.ID}
			by[key] = r
			rows = append(rows, r)
		}
		r.add(h.Event)
	}
	return rows
}

func (r *row) add(e Event) {
	if e.Message != nil {
		r.message = e.Message
	}
	r.change = r.change.plus(e.Change)
	if e.steps == "" {
		r.steps = appendSteps(r.steps, e.Steps)
		return
	}
	r.steps = append(r.steps, e.steps...)
}

func (r *row) write(tx store.RoadTx) error {
	if r.message != nil {
		return r.upsert(tx, *r.message)
	}
	c := r.change
	n, err := tx.Exec(updateMessage, r.tenant, r.id, c.Queued, c.Delivered, c.Failed, c.Held, c.Dropped, string(r.steps))
	if err != nil || n > 0 {
		return err
	}
	// The first event comes later, or the message's trace has ended: keep the
	// sums for it.
	return r.upsert(tx, Message{})
}

func (r *row) upsert(tx store.RoadTx, m Message) error {
	c := r.change
	_, err := tx.Exec(upsertMessage, r.tenant, r.id, clean(m.MessageID), m.Region, m.Direction, clean(m.From), clean(lines(m.To)),
		clean(m.Subject), m.Size, micros(m.ReceivedAt), c.Queued, c.Delivered, c.Failed, c.Held, c.Dropped, string(r.steps))
	return err
}

// lines is a list of addresses as a column: each between line ends, so that
// one can be found without its being part of another.
func lines(list []string) string {
	if len(list) == 0 {
		return ""
	}
	return "\n" + strings.Join(list, "\n") + "\n"
}

func unlines(column string) []string {
	column = strings.Trim(column, "\n")
	if column == "" {
		return []string{}
	}
	return strings.Split(column, "\n")
}

func micros(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

func fromMicros(n int64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.UnixMicro(n).UTC()
}
