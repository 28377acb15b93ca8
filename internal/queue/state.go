package queue

// State of an item.
type State string

const (
	Ready    State = "ready"
	Leased   State = "leased" // never stored: memory of this process
	Deferred State = "deferred"
	Held     State = "held"
	Failed   State = "failed" // kept: listed, retryable, until its retention ends

	absent State = "" // not yet, or no longer, in the queue
)

// event is what happens to an item.
type event string

const (
	onPut     event = "put"     // accepted, on disk
	onLease   event = "lease"   // handed to a deliverer; a deferred one when it is due
	onReturn  event = "return"  // handed back, or its destination is in trouble
	onDeliver event = "deliver" // the last of its recipients has it
	onAgain   event = "again"   // some recipients are left that can be tried at once
	onDefer   event = "defer"   // recipients are left that can be tried later
	onFail    event = "fail"    // refused for good, and nobody to be told
	onBounce  event = "bounce"  // refused for good, and its sender is told
	onHold    event = "hold"
	onRelease event = "release"
	onRetry   event = "retry"
	onReroute event = "reroute"
	onDrop    event = "drop"
	onExpire  event = "expire" // its time is over, and nobody to be told
	onEnd     event = "end"    // the retention of a failed item is over
)

// transition is one line of the table.
type transition struct {
	from State
	on   event
	to   State
}

// transitions is the life of an item; docs/states.md shows the same table.
var transitions = [...]transition{
	{absent, onPut, Ready},
	{Ready, onLease, Leased},
	{Ready, onHold, Held},
	{Ready, onRetry, Ready},
	{Ready, onReroute, Ready},
	{Ready, onDrop, absent},
	{Ready, onExpire, Failed},
	{Ready, onBounce, absent},
	{Leased, onReturn, Ready},
	{Leased, onDeliver, absent},
	{Leased, onAgain, Ready},
	{Leased, onDefer, Deferred},
	{Leased, onFail, Failed},
	{Leased, onBounce, absent},
	{Leased, onHold, Held},
	{Deferred, onLease, Leased},
	{Deferred, onHold, Held},
	{Deferred, onRetry, Ready},
	{Deferred, onReroute, Ready},
	{Deferred, onDrop, absent},
	{Deferred, onExpire, Failed},
	{Deferred, onBounce, absent},
	{Held, onRelease, Ready},
	{Held, onReroute, Held},
	{Held, onDrop, absent},
	{Failed, onRetry, Ready},
	{Failed, onReroute, Failed},
	{Failed, onDrop, absent},
	{Failed, onEnd, absent},
}

// next is the state after an event; ok is false where the event has no place.
func next(from State, on event) (to State, ok bool) {
	for _, t := range transitions {
		if t.from == from && t.on == on {
			return t.to, true
		}
	}
	return from, false
}

// stored is a state as a column.
type stored uint8

const (
	storedReady    stored = 1
	storedDeferred stored = 2
	storedHeld     stored = 3
	storedFailed   stored = 4
)

func (s State) stored() stored {
	switch s {
	case Deferred:
		return storedDeferred
	case Held:
		return storedHeld
	case Failed:
		return storedFailed
	}
	return storedReady
}

func (s stored) state() State {
	switch s {
	case storedDeferred:
		return Deferred
	case storedHeld:
		return Held
	case storedFailed:
		return Failed
	}
	return Ready
}

// waits reports whether items in this state wait to be delivered.
func (s stored) waits() bool { return s == storedReady || s == storedDeferred }
