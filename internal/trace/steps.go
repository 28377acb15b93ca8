package trace

import (
	"context"

	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
)

// stepsPage is how many messages are read at a time: reads are cut off after
// five seconds.
const stepsPage = 500

// Steps visits every message that a tenant's mail had since then, newest first,
// with what happened to it.
func (l *Log) Steps(ctx context.Context, tenant string, since time.Time, visit func(Message, []Step)) error {
	const op = "trace.Steps"
	l.catchUp(ctx)
	below := highest
	for n := stepsPage; n == stepsPage; {
		rows, err := l.c.Trace.For(tenant).Query(ctx, listSteps, below, lowest(since), micros(since), stepsPage)
		if err != nil {
			return fault.Wrap(fault.KindOf(err), op, err)
		}
		n = 0
		for rows.Next() {
			var m Message
			var text string
			if err := scanMessage(rows, &m, &text); err != nil {
				rows.Close()
				return fault.Wrap(fault.Later, op, err)
			}
			steps, err := parseSteps(text)
			if err != nil {
				rows.Close()
				return fault.Wrap(fault.KindOf(err), op, err)
			}
			visit(m, steps)
			below = m.ID
			n++
		}
		rows.Close()
		if err := rows.Err(); err != nil {
			return fault.Wrap(fault.Later, op, err)
		}
	}
	return nil
}
