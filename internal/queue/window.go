package queue

import "slices"

// entry is an item as its lane's window knows it. Its envelope is in memory
// only while there is room for it.
type entry struct {
	id    string
	due   int64
	item  *Item
	state stored
}

// key orders the items of a window: the oldest, or the first due, first.
type key struct {
	due int64
	id  string
}

func (e *entry) key() key { return key{e.due, e.id} }

func (k key) before(o key) bool { return k.due < o.due || (k.due == o.due && k.id < o.id) }

// window is the head of a lane's items in one state, the only part of them
// that is in memory.
//
// While more is set there may be items on disk behind edge that are not in
// memory. Up to edge every item is in the list or in somebody's hands (busy).
// The rest follows from that: what comes to lie behind the edge is left to
// disk, what comes before it is put into the list.
type window struct {
	lane    *lane
	state   stored
	list    []entry // in order
	more    bool
	edge    key
	loading bool // a refill is asked for or on its way
	stale   bool // what the refill that is on its way brings cannot be used
	missed  *key // the first item left to disk while a refill was on its way
}

// share is how many items this window may hold: a destination's window is
// divided among its lanes, and all windows together are bounded too.
func (q *Queue) share(d *destination) int {
	const (
		least      = 16
		mostOfThem = 200_000
	)
	if q.entries > mostOfThem {
		return least
	}
	return max(least, q.c.Window/max(1, len(d.lanes)))
}

// add puts an item into the window or leaves it to disk. It reports whether
// the item is in memory.
func (q *Queue) add(w *window, e entry) bool {
	k := e.key()
	if w.more && w.edge.before(k) {
		if w.loading && (w.missed == nil || k.before(*w.missed)) {
			w.missed = &k
		}
		q.uncache(&e)
		q.low(w)
		return false
	}
	at, found := slices.BinarySearchFunc(w.list, k, compareEntry)
	if found {
		q.uncache(&e)
		return true
	}
	w.list = slices.Insert(w.list, at, e)
	q.entries++
	if len(w.list) > q.share(w.lane.dest) {
		q.evict(w)
	}
	return at < len(w.list)
}

func compareEntry(e entry, k key) int {
	switch {
	case e.key().before(k):
		return -1
	case k.before(e.key()):
		return 1
	}
	return 0
}

// evict leaves the window's last item to disk.
func (q *Queue) evict(w *window) {
	last := &w.list[len(w.list)-1]
	q.uncache(last)
	*last = entry{}
	w.list = w.list[:len(w.list)-1]
	q.entries--
	w.more = true
	w.edge = key{}
	if n := len(w.list); n > 0 {
		w.edge = w.list[n-1].key()
	}
	w.stale = w.loading
}

// head is the window's first item, nil when it is empty.
func (w *window) head() *entry {
	if len(w.list) == 0 {
		return nil
	}
	return &w.list[0]
}

// take removes the nth item of the list.
func (q *Queue) take(w *window, n int) entry {
	e := w.list[n]
	if n == 0 {
		w.list[0] = entry{}
		w.list = w.list[1:]
	} else {
		w.list = slices.Delete(w.list, n, n+1)
	}
	q.entries--
	q.low(w)
	return e
}

// low asks for more when little is left.
func (q *Queue) low(w *window) {
	if w.more && len(w.list) < q.share(w.lane.dest)/4 {
		q.askRefill(w)
	}
}

// remove takes an item out of the window, if it is there.
func (q *Queue) remove(w *window, k key) (entry, bool) {
	at, found := slices.BinarySearchFunc(w.list, k, compareEntry)
	if !found {
		return entry{}, false
	}
	return q.take(w, at), true
}

// distrust forgets what the window knows: what is on disk is read anew.
func (q *Queue) distrust(w *window) {
	for i := range w.list {
		q.uncache(&w.list[i])
	}
	q.entries -= len(w.list)
	w.list, w.more, w.edge = nil, true, key{}
	w.stale = w.loading
	q.askRefill(w)
}

// askRefill has a window filled from disk.
func (q *Queue) askRefill(w *window) {
	if w.loading || !w.more {
		return
	}
	w.loading, w.missed, w.stale = true, nil, false
	q.refills.push(w)
	signal(q.refillKick)
}

// filled puts what a refill read (rows behind the edge, complete when there
// are no more on disk) into the window.
func (q *Queue) filled(w *window, rows []entry, complete bool) {
	missed := w.missed
	stale := w.stale
	w.loading, w.missed, w.stale = false, nil, false
	if stale {
		q.askRefill(w)
		return
	}
	edge := w.edge
	for _, e := range rows {
		if missed != nil && !e.key().before(*missed) {
			break
		}
		edge = e.key()
		if _, busy := q.busy[e.id]; busy {
			continue
		}
		w.list = append(w.list, e)
		q.entries++
	}
	w.edge = edge
	w.more = !complete || missed != nil
	if w.more && len(w.list) == 0 {
		q.askRefill(w)
	}
}

// cache keeps an item's envelope and body in memory when there is room.
func (q *Queue) cache(e *entry, it *Item) {
	if cost := it.memory(); q.cached+cost <= q.c.WindowBytes {
		e.item = it
		q.cached += cost
	}
}

// uncache lets go of them.
func (q *Queue) uncache(e *entry) {
	if e.item != nil {
		q.cached -= e.item.memory()
		e.item = nil
	}
}

// fifo is a queue of pointers.
type fifo[T any] struct {
	items []*T
	head  int
}

func (f *fifo[T]) len() int { return len(f.items) - f.head }

func (f *fifo[T]) push(x *T) { f.items = append(f.items, x) }

func (f *fifo[T]) pop() *T {
	if f.len() == 0 {
		return nil
	}
	x := f.items[f.head]
	f.items[f.head] = nil
	f.head++
	if f.head > 64 && f.head*2 > len(f.items) {
		f.items = slices.Delete(f.items, 0, f.head)
		f.head = 0
	}
	if f.head == len(f.items) {
		f.items, f.head = f.items[:0], 0
	}
	return x
}

// all is what waits in the queue, first first.
func (f *fifo[T]) all() []*T { return f.items[f.head:] }
