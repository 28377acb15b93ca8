package connection

import (
	"github.com/sallyport-mail/sallyport/internal/fault"
)

// ReplacementState is where a change of a connection's identities stands.
type ReplacementState string

// The states of a change (docs/states.md).
const (
	Wanted       ReplacementState = "wanted"        // asked for
	Issued       ReplacementState = "issued"        // the next identities exist
	Offered      ReplacementState = "offered"       // the partner was told of them; it may not accept them yet
	BothAccepted ReplacementState = "both-accepted" // the partner takes either: proved
	Switched     ReplacementState = "switched"      // new connections show the new one
	Draining     ReplacementState = "draining"      // no connection with the old one is left
	OldDropped   ReplacementState = "old-dropped"   // the partner takes the new one alone
	Done         ReplacementState = "done"
	Undoing      ReplacementState = "undoing"
	Undone       ReplacementState = "undone"
	Repointed    ReplacementState = "repointed" // of a compromised one: the partner takes the new one alone
	Failed       ReplacementState = "failed"
)

// replacementEvent is what moves a change on.
type replacementEvent string

const (
	onIssue   replacementEvent = "issue"
	onOffer   replacementEvent = "offer"
	onAccept  replacementEvent = "accept"
	onSwitch  replacementEvent = "switch"
	onDrain   replacementEvent = "drain"
	onDrop    replacementEvent = "drop"
	onRetire  replacementEvent = "retire"
	onRepoint replacementEvent = "repoint"
	onUndo    replacementEvent = "undo"
	onRestore replacementEvent = "restore"
	onGiveUp  replacementEvent = "give up"
)

type replacementMove struct {
	from ReplacementState
	on   replacementEvent
	to   ReplacementState
}

// replacementTable is the whole life of a change. A compromised identity is
// never accepted beside its successor, so its way is another one: issue,
// repoint, switch. Undo ends where the partner has dropped the old one.
func replacementTable() []replacementMove {
	return []replacementMove{
		{Wanted, onIssue, Issued},
		{Issued, onOffer, Offered},
		{Offered, onAccept, BothAccepted},
		{BothAccepted, onSwitch, Switched},
		{Switched, onDrain, Draining},
		{Draining, onDrop, OldDropped},
		{OldDropped, onRetire, Done},
		{Issued, onRepoint, Repointed},
		{Repointed, onSwitch, Done},
		{Wanted, onUndo, Undoing},
		{Issued, onUndo, Undoing},
		{Offered, onUndo, Undoing},
		{BothAccepted, onUndo, Undoing},
		{Switched, onUndo, Undoing},
		{Draining, onUndo, Undoing},
		{Undoing, onRestore, Undone},
		{Wanted, onGiveUp, Failed},
		{Issued, onGiveUp, Failed},
		{Offered, onGiveUp, Failed},
		{BothAccepted, onGiveUp, Failed},
		{Switched, onGiveUp, Failed},
		{Draining, onGiveUp, Failed},
		{OldDropped, onGiveUp, Failed},
		{Undoing, onGiveUp, Failed},
		{Repointed, onGiveUp, Failed},
	}
}

// nextState is the table's answer; false where it has none.
func nextState(from ReplacementState, on replacementEvent) (ReplacementState, bool) {
	for _, m := range replacementTable() {
		if m.from == from && m.on == on {
			return m.to, true
		}
	}
	return from, false
}

// ended reports whether a change is over.
func (s ReplacementState) ended() bool { return s == Done || s == Undone || s == Failed }

func mayNotMove(op string, from ReplacementState, on replacementEvent) error {
	hint := "Look at it: sallyport connection replace --status."
	if on == onUndo && !from.ended() {
		hint = "The partner has dropped the old one: go on, and replace it once more if need be."
	}
	return fault.New(fault.Conflict, op, "a replacement that is "+string(from)+" does not "+string(on)).WithHint(hint)
}
