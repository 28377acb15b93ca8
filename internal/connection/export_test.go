package connection

import "context"

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
