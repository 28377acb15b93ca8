package alarm

import "time"

// notableFor is how long what a keeper has raised is shown as raised: it has no
// end of its own.
const notableFor = time.Hour

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
			Fix:    "Find out whether the database is an old copy; two operators sign the order that thaws it.",
		})
	}
	if c.Breaker == "tripped" {
		found = append(found, Alarm{
			Key:    "breaker " + c.Region,
			Detail: "too many credentials of " + c.Region + " were opened in a minute, so none is opened any more",
			Fix:    "Find out who opened them (ledger search); two operators sign the order that lifts the breaker.",
		})
	}
	return append(found, c.notable(now)...)
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
		if now.Sub(n.At) > notableFor || seen[key] {
			continue
		}
		seen[key] = true
		found = append(found, Alarm{Key: key, Detail: n.Text, Fix: fixOf(n.Kind)})
	}
	return found
}

func fixOf(kind string) string {
	switch kind {
	case "decoy":
		return "Nothing legitimate uses a decoy: treat it as a theft, and open an incident."
	case "refused":
		return "The gateway asked for what it may not have: find out why (ledger search), and whether it is still yours."
	case "rate":
		return "A key is used more often than its connection can need: find out by whom (ledger search)."
	case "standby":
		return "Bring back what [kek_standby] of the keeper's settings names, unless it is kept away on purpose."
	}
	return "Look at the keeper's log and at doctor."
}
