package breaker

// State is how a breaker stands.
type State string

// The states.
const (
	Watching State = "watching" // openings up to the limit
	Campaign State = "campaign" // openings up to the campaign's, until its end
	Tripped  State = "tripped"  // none
)

// Event is what happens to a breaker.
type Event string

// The events.
const (
	Within    Event = "within"    // an opening that the limit has room for
	Beyond    Event = "beyond"    // one that it has no room for
	Authorise Event = "authorise" // an order opens a campaign
	Over      Event = "over"      // the campaign's time is over
	Lift      Event = "lift"      // an order lifts the breaker
)

// change is a row of the table.
type change struct {
	from  State
	event Event
	to    State
}

// table is the whole life; docs/states.md shows it. A campaign can't be
// authorised while the breaker is tripped: first somebody looks, and lifts it.
func table() []change {
	return []change{
		{Watching, Within, Watching},
		{Watching, Beyond, Tripped},
		{Watching, Authorise, Campaign},
		{Campaign, Within, Campaign},
		{Campaign, Beyond, Tripped},
		{Campaign, Authorise, Campaign},
		{Campaign, Over, Watching},
		{Tripped, Within, Tripped},
		{Tripped, Beyond, Tripped},
		{Tripped, Lift, Watching},
	}
}

// next is where an event leads; false when it is not in the table.
func next(s State, e Event) (State, bool) {
	for _, c := range table() {
		if c.from == s && c.event == e {
			return c.to, true
		}
	}
	return s, false
}
