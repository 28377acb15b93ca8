package alarm

import (
	"sync"
	"time"
)

const (
	quiet     = time.Hour // nothing is told twice within it
	remembers = 10_000    // alarms
	lists     = 50        // alarms in a notice; the rest is a number
)

// entry is what is remembered of an alarm. Its states:
//
//	from      event    to        told
//	(none)    found    raised    yes, unless told within the hour
//	raised    found    raised    no
//	raised    gone     (cleared) yes, if its raising was told
//	cleared   found    raised    yes, unless told within the hour
//	cleared   an hour  (none)    no
type entry struct {
	alarm  Alarm
	raised bool
	told   bool // the present raising was told
	toldAt time.Time
}

// book remembers alarms.
type book struct {
	mu      sync.Mutex
	entries map[string]*entry
}

func newBook() *book { return &book{entries: map[string]*entry{}} }

// update enters what is wrong now and returns what is to be told. A raising
// that fell into the quiet hour is told after it when it still stands.
func (b *book) update(found []Alarm, now time.Time) Notice {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := Notice{Time: now.UTC()}
	standing := map[string]bool{}
	for _, a := range found {
		if b.raise(a, now, standing) {
			n.Raised = append(n.Raised, b.entries[a.Key].alarm)
		}
	}
	for key, e := range b.entries {
		switch {
		case standing[key]:
		case e.raised:
			e.raised = false
			if e.told {
				n.Cleared = append(n.Cleared, e.alarm)
			}
		case now.Sub(e.toldAt) >= quiet:
			delete(b.entries, key)
		}
	}
	return n.cut()
}

// raise enters one alarm and reports whether it is to be told.
func (b *book) raise(a Alarm, now time.Time, standing map[string]bool) bool {
	e := b.entries[a.Key]
	if e == nil {
		if len(b.entries) >= remembers {
			return false
		}
		e = &entry{}
		b.entries[a.Key] = e
	}
	standing[a.Key] = true
	if !e.raised {
		e.raised, e.told = true, false
		e.alarm.Since = now.UTC()
	}
	a.Since = e.alarm.Since
	e.alarm = a
	if e.told || !e.toldAt.IsZero() && now.Sub(e.toldAt) < quiet {
		return false
	}
	e.told, e.toldAt = true, now
	return true
}

func (b *book) raised() []Alarm {
	b.mu.Lock()
	defer b.mu.Unlock()
	var list []Alarm
	for _, e := range b.entries {
		if e.raised {
			list = append(list, e.alarm)
		}
	}
	return sortAlarms(list)
}
