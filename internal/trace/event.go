package trace

import (
	"encoding/json"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/store"
)

// Encoded is an event made ready to be written, so that the work of it is done
// before the transaction and not in it.
type Encoded struct {
	Event   Event
	payload string
}

// payload is an event as it lies on the road.
type payload struct {
	Message *Message `json:"m,omitempty"`
	Change  [5]int   `json:"c"`
	Steps   []Step   `json:"s,omitempty"`
}

// Encode makes an event ready to be written.
func Encode(e Event) Encoded {
	c := e.Change
	b := make([]byte, 0, 128+512*len(e.Steps))
	b = append(b, '{')
	if e.Message != nil {
		b = append(b, `"m":`...)
		b = append(e.Message.append(b), ',')
	}
	b = append(b, `"c":[`...)
	for i, n := range [...]int{c.Queued, c.Delivered, c.Failed, c.Held, c.Dropped} {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendInt(b, int64(n), 10)
	}
	b = append(b, `],"s":[`...)
	from := len(b)
	b = appendSteps(b, e.Steps)
	text := ""
	if len(e.Steps) > 0 {
		text = string(b[from:])
		b = append(b[:from], b[from+1:]...) // the first step has no comma before it here
	}
	e.steps = text
	return Encoded{Event: e, payload: string(append(b, "]}"...))}
}

// Write inserts the event in the transaction of what it tells. The events
// that a commit wrote are then passed to Log.Committed.
func (x Encoded) Write(tx store.RoadTx) (seq int64, err error) {
	for range 16 {
		seq = newSeq(time.Now())
		n, err := tx.Exec(insertEvent, seq, x.Event.Tenant, x.Event.ID, x.payload)
		if err != nil {
			return 0, fault.Wrap(fault.KindOf(err), "trace.Write", err)
		}
		if n == 1 {
			return seq, nil
		}
	}
	return 0, fault.New(fault.Internal, "trace.Write", "no free event number")
}

// newSeq numbers an event by the microsecond and twelve bits of chance: no
// counter is shared by writers, and one that is taken is seen by the insert.
// The order of numbers is only a help to the reader; nothing rests on it.
func newSeq(now time.Time) int64 {
	const year2000 = 946_684_800_000_000
	return (now.UnixMicro()-year2000)<<12 | rand.Int64N(1<<12)
}

// decode is the way back, after a restart.
func decode(tenant, message, text string) (Event, error) {
	var p payload
	if err := json.Unmarshal([]byte(text), &p); err != nil {
		return Event{}, fault.Wrap(fault.Internal, "trace.decode", err)
	}
	c := p.Change
	return Event{
		Tenant: tenant, ID: message, Message: p.Message, Steps: p.Steps,
		Change: Counts{Queued: c[0], Delivered: c[1], Failed: c[2], Held: c[3], Dropped: c[4]},
	}, nil
}

// plus adds a change to sums.
func (c Counts) plus(d Counts) Counts {
	return Counts{c.Queued + d.Queued, c.Delivered + d.Delivered, c.Failed + d.Failed, c.Held + d.Held, c.Dropped + d.Dropped}
}
