package alarm

import "time"

const (
	// notableFor is how long what a keeper has raised is shown as raised, from
	// when this gateway heard of it: it has no end of its own.
	notableFor = time.Hour
	// heardLate is how old it may be then: a gateway that was away hears late.
	heardLate = 24 * time.Hour
)

// heard is when what keepers have raised was first heard of. It is a process's:
// what is younger than a day is told again after a start, rather than never.
type heard struct {
	at map[notableKey]time.Time
}

// notableKey is one thing that one keeper has raised.
type notableKey struct {
	region, kind, tenant string
	at                   int64
}

// note gives each notable the time of its hearing, and forgets those that no
// keeper tells of any more. One that is away is not asked, so that its are kept.
func (h *heard) note(all []Custody, now time.Time) {
	next := map[notableKey]time.Time{}
	away := map[string]bool{}
	for _, c := range all {
		away[c.Region] = c.Away != ""
		for i := range c.Recent {
			n := &c.Recent[i]
			key := notableKey{c.Region, n.Kind, n.Tenant, n.At.UnixMicro()}
			was, known := h.at[key]
			switch {
			case known:
			case now.Sub(n.At) > heardLate:
				was = n.At
			default:
				was = now
			}
			n.heard, next[key] = was, was
		}
	}
	for key, was := range h.at {
		if away[key.region] && now.Sub(was) < heardLate {
			next[key] = was
		}
	}
	h.at = next
}

// judge says what is wrong with a region's custody.
func (c Custody) judge(now time.Time) []Alarm {
	if c.Away != "" {
		return []Alarm{{
			Key:    "keeper-away " + c.Region,
			Detail: "the keeper of " + c.Region + " does not answer: " + c.Away,
			Fix:    "Start it, or look at its log. Mail that needs it waits.",
		}}
	}
	var found []Alarm
	if c.Frozen != "" {
		found = append(found, Alarm{
			Key:    "keeper-frozen " + c.Region,
			Detail: "the keeper of " + c.Region + " does nothing: " + c.Frozen,
			Fix:    c.thaw(),
		})
	}
	if c.Breaker == "tripped" {
		found = append(found, c.tripped())
	}
	return append(found, c.notable(now)...)
}

func (c Custody) thaw() string {
	if c.ForGood {
		return "Put a database from before the change back; no order thaws this. What was changed: ledger verify --region " + c.Region
	}
	return "Find out whether the database is an old copy; two operators sign the order that thaws it."
}

// tripped is the alarm of a breaker that lets nothing be opened, for whatever
// reason.
func (c Custody) tripped() Alarm {
	a := Alarm{Key: "breaker " + c.Region,
		Detail: "too many credentials of " + c.Region + " were opened in a minute, so none is opened any more",
		Fix:    "Find out who opened them (ledger search); two operators sign the order that lifts the breaker: order make lift-breaker --region " + c.Region}
	if c.BreakerWhy != "" {
		a.Detail = "no credential of " + c.Region + " is opened, because " + c.BreakerWhy
		a.Fix = "Two operators sign the order that lifts the breaker: order make lift-breaker --region " + c.Region
	}
	switch {
	case c.ForGood:
		a.Fix = "See keeper-frozen: with the database that is put back the breaker stands as it stood there."
	case c.Frozen != "":
		a.Fix += ". A frozen keeper takes it after the thaw."
	}
	return a
}

// notable are the newest of each kind and tenant: the list is newest first.
func (c Custody) notable(now time.Time) []Alarm {
	var found []Alarm
	seen := map[string]bool{}
	for _, n := range c.Recent {
		key := "keeper-" + n.Kind + " " + c.Region
		if n.Tenant != "" {
			key += " " + n.Tenant
		}
		since := n.heard
		if since.IsZero() {
			since = n.At
		}
		if now.Sub(since) > notableFor || seen[key] {
			continue
		}
		seen[key] = true
		found = append(found, Alarm{Key: key, Detail: n.Text + " (raised " + stamp(n.At) + "; shown until " + stamp(since.Add(notableFor)) + ")", Fix: fixOf(n.Kind)})
	}
	return found
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

func fixOf(kind string) string {
	switch kind {
	case "decoy":
		return "Nothing legitimate uses a decoy: treat it as a theft, and open an incident."
	case "refused":
		return "The gateway asked for what it may not have: find out why (ledger search), and whether it is still yours."
	case "disk":
		return "Make room on the keeper's disk; find out whether its ledger grows faster than it should (ledger status)."
	case "rate":
		return "A key is used more often than its connection can need: find out by whom (ledger search)."
	case "standby":
		return "Bring back what [kek_standby] of the keeper's settings names, unless it is kept away on purpose."
	}
	return "Look at the keeper's log and at doctor."
}
