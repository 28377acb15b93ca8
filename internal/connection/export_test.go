package connection

import (
	"context"
	"time"
)

// StopAt has changes of identity stop at a point as a kill would; f sees each
// state twice, "before" its step and "after" it, before that is recorded.
func (r *Registry) StopAt(f func(at ReplacementState, when string) error) { r.stop = f }

// Step does one step of a connection's change.
func (r *Registry) Step(ctx context.Context, tenant, name string) (ReplacementState, bool, error) {
	return r.step(ctx, tenant, name)
}

// NextState is the table's answer.
func NextState(from ReplacementState, on string) (ReplacementState, bool) {
	return nextState(from, replacementEvent(on))
}

// ReplacementTable is the table as rows of docs/states.md.
func ReplacementTable() (rows [][3]string) {
	for _, m := range replacementTable() {
		rows = append(rows, [3]string{string(m.from), string(m.on), string(m.to)})
	}
	return rows
}

// Finish goes on with connections whose first identity is still on its way.
func (r *Registry) Finish(ctx context.Context) { r.finish(ctx) }

// Quiet sets how standbys are spread over time.
func (r *Registry) Quiet(rest, settle, public time.Duration) {
	r.standby.pace = pace{rest, settle, public}
}

// MakeStandby gives a connection its standbys now.
func (r *Registry) MakeStandby(ctx context.Context, tenant, name string) error {
	return r.standbyOf(ctx, r.entry(tenant, name))
}

// TakeStandbys are the names of the connections that quiet time looks at.
func (r *Registry) TakeStandbys(now time.Time) (names []string) {
	for _, e := range r.takeStandbys(now) {
		names = append(names, e.Name)
	}
	return names
}
