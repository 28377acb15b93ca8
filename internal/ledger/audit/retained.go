package audit

import (
	"fmt"
	"slices"
)

// claim is what a retention entry says.
type claim struct{ index, below int64 }

// claim takes the word of a retention entry, which counts when a checkpoint
// covers it: whoever has the database can put one behind the last checkpoint.
func (v *verifier) claim(e said) {
	if e.act != retainAct || e.source != "witnessed" || e.actor != "keeper" {
		return
	}
	var below int64
	if _, err := fmt.Sscanf(e.subject, "below %d", &below); err != nil || below > e.index {
		return
	}
	if len(v.claims) > 0 && v.claims[0].index < v.from { // of the tile before, and no checkpoint came since
		for _, c := range v.claims {
			v.older = claim{max(v.older.index, c.index), max(v.older.below, c.below)}
		}
		v.claims = v.claims[:0]
	}
	v.claims = append(v.claims, claim{e.index, below})
}

// cover makes the claims count that a checkpoint covers.
func (v *verifier) cover(size int64) {
	if v.older.index < size {
		v.claimed, v.older = max(v.claimed, v.older.below), claim{}
	}
	v.claims = slices.DeleteFunc(v.claims, func(c claim) bool {
		if c.index < size {
			v.claimed = max(v.claimed, c.below)
		}
		return c.index < size
	})
}
