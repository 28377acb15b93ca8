package queue

import (
	"container/heap"
	"time"
)

// lane is one tenant's items at one destination: the unit of fairness and of
// windows.
type lane struct {
	dest     *destination
	tenant   string
	n        [5]int64 // items by stored state
	fresh    window   // ready
	putOff   window   // deferred
	active   bool     // is in its destination's list of lanes with due items
	internal int      // items in somebody's hands
	oldest   int64    // the first due that was found at the start, until the window knows better
	alarm    alarm    // for its first deferred item
}

func (q *Queue) lane(tenant, destinationKey string) *lane {
	d := q.destination(destinationKey)
	if l := d.lanes[tenant]; l != nil {
		return l
	}
	l := &lane{dest: d, tenant: tenant}
	l.fresh = window{lane: l, state: storedReady}
	l.putOff = window{lane: l, state: storedDeferred}
	l.alarm = alarm{at: never, fire: func() { q.stir(l) }}
	d.lanes[tenant] = l
	return l
}

func (l *lane) window(s stored) *window {
	if s == storedDeferred {
		return &l.putOff
	}
	return &l.fresh
}

// waiting is how many items are to be delivered some day.
func (l *lane) waiting() int64 { return l.n[storedReady] + l.n[storedDeferred] }

func (l *lane) total() int64 { return l.waiting() + l.n[storedHeld] + l.n[storedFailed] }

// first is the window whose head is to go first, nil when nothing is due.
func (l *lane) first(now int64) *window {
	var w *window
	if l.fresh.head() != nil {
		w = &l.fresh
	}
	if h := l.putOff.head(); h != nil && h.due <= now && (w == nil || h.due < w.head().due) {
		w = &l.putOff
	}
	return w
}

// due counts the items in memory that can be leased, up to most.
func (l *lane) due(now int64, most int) int {
	n := len(l.fresh.list)
	for i := 0; i < len(l.putOff.list) && n < most && l.putOff.list[i].due <= now; i++ {
		n++
	}
	return n
}

// stir looks at a lane again: its windows, its tenant's stop or the time have
// changed.
func (q *Queue) stir(l *lane) {
	now := q.now().UnixMicro()
	if q.stops.tenant(l.tenant) {
		q.setAlarm(&l.alarm, never)
		return
	}
	if l.first(now) != nil {
		if !l.active {
			l.active = true
			l.dest.active.push(l)
		}
		q.poke(l.dest)
	} else if h := l.putOff.head(); h != nil {
		q.setAlarm(&l.alarm, h.due)
	}
}

// admit brings an item that is on disk, and in nobody's hands, into its lane.
// Where it cannot go soon its envelope would only keep others' out of memory.
func (q *Queue) admit(l *lane, e entry) {
	if !e.state.waits() || l.dest.state != up {
		q.uncache(&e)
	}
	if !e.state.waits() {
		return
	}
	if q.add(l.window(e.state), e) {
		q.stir(l)
	}
}

// leave forgets a lane that has no items, and then its destination.
func (q *Queue) leave(l *lane) {
	if l.total() > 0 || l.internal > 0 || l.fresh.more || l.putOff.more || l.fresh.loading || l.putOff.loading {
		return
	}
	if len(l.fresh.list)+len(l.putOff.list) > 0 {
		return
	}
	q.setAlarm(&l.alarm, never)
	delete(l.dest.lanes, l.tenant)
	q.forget(l.dest)
}

// alarm is a moment at which something is looked at again.
type alarm struct {
	at    int64
	index int // in the heap, plus one
	fire  func()
}

// never is later than every moment.
const never = int64(1) << 62

// alarms is a heap of them.
type alarms []*alarm

func (a alarms) Len() int           { return len(a) }
func (a alarms) Less(i, j int) bool { return a[i].at < a[j].at }
func (a alarms) Swap(i, j int) {
	a[i], a[j] = a[j], a[i]
	a[i].index, a[j].index = i+1, j+1
}

// Push and Pop are for container/heap.
func (a *alarms) Push(x any) {
	m := x.(*alarm)
	m.index = len(*a) + 1
	*a = append(*a, m)
}

func (a *alarms) Pop() any {
	old := *a
	m := old[len(old)-1]
	old[len(old)-1] = nil
	m.index = 0
	*a = old[:len(old)-1]
	return m
}

// setAlarm sets, moves or (never) ends an alarm.
func (q *Queue) setAlarm(m *alarm, at int64) {
	switch {
	case m.index == 0 && at == never:
		m.at = at
		return
	case m.index == 0:
		m.at = at
		heap.Push(&q.alarms, m)
	case at == never:
		heap.Remove(&q.alarms, m.index-1)
		m.at = at
	default:
		m.at = at
		heap.Fix(&q.alarms, m.index-1)
	}
	signal(q.alarmKick)
}

// ring fires the alarms whose time has come and returns how long to wait for
// the next, at most a second: the clock is the caller's, and may be set.
func (q *Queue) ring() time.Duration {
	q.mu.Lock()
	defer q.mu.Unlock()
	now := q.now().UnixMicro()
	for len(q.alarms) > 0 && q.alarms[0].at <= now {
		m := heap.Pop(&q.alarms).(*alarm)
		m.at = never
		m.fire()
	}
	if len(q.alarms) == 0 {
		return time.Second
	}
	return min(time.Second, max(time.Millisecond, time.Duration(q.alarms[0].at-now)*time.Microsecond))
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
