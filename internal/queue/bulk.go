package queue

import (
	"context"
	"slices"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/store"
	"github.com/sallyport-mail/sallyport/internal/trace"
)

// bulkPage is how many items are read at a time, and changed in one commit at
// most.
const bulkPage = 200

// Filter of List and of the bulk acts; zero fields match everything. Tenant ""
// needs the operator.
type Filter struct {
	Tenant, Destination, Message, Item, Reason string
	States                                     []State
	OlderThan                                  time.Duration
	After                                      string
	Limit                                      int
}

// act is what a bulk act does to each item it meets.
type act struct {
	op     string
	on     event
	step   string
	text   string
	change func(r *row, now time.Time) bool // on a copy of the row whose state has been turned; false: leave it
}

// Bulk acts return how many items they changed; they run in batches and stop
// when ctx ends. actor goes into the trace. Items that are being delivered at
// that moment are left out.

// Retry makes deferred and failed items be tried now, and a destination in
// trouble that has some of them be asked now.
func (q *Queue) Retry(ctx context.Context, actor string, f Filter) (int, error) {
	if f.OlderThan == 0 && f.Reason == "" && len(f.States) == 0 {
		defer q.askNow(ctx, f)
	}
	return q.bulk(ctx, f, act{op: "queue.Retry", on: onRetry, step: "retried", text: actor, change: q.tryNow})
}

// askNow makes the next probe of matching destinations due.
func (q *Queue) askNow(ctx context.Context, f Filter) {
	destination := f.Destination
	if low, high, ok := f.span(); ok {
		rows, err := q.readRows(ctx, rangeRows, low, high, 1)
		if err != nil || len(rows) == 0 || !f.matches(&rows[0], q.now()) {
			return
		}
		destination = rows[0].destination
	}
	for _, l := range q.lanes(f.Tenant, destination) {
		q.mu.Lock()
		if d := q.dests[l[1]]; d != nil && d.state != up && q.now().Before(d.nextTry) {
			d.nextTry = q.probes.next(q.now())
			q.poke(d)
		}
		q.mu.Unlock()
	}
}

// tryNow gives an item a new beginning. One that is ready has nothing to gain.
func (q *Queue) tryNow(r *row, now time.Time) bool {
	r.due = now.UnixMicro()
	r.reason = ""
	if r.expires <= r.due {
		r.expires = now.Add(q.expiry(r.tenant)).UnixMicro()
	}
	return true
}

// Hold keeps waiting items until they are released.
func (q *Queue) Hold(ctx context.Context, actor string, f Filter, reason string) (int, error) {
	return q.bulk(ctx, f, act{op: "queue.Hold", on: onHold, step: "held", text: join(actor, reason), change: func(r *row, now time.Time) bool {
		r.due, r.reason = now.UnixMicro(), reason
		return true
	}})
}

// Unhold releases held items.
func (q *Queue) Unhold(ctx context.Context, actor string, f Filter) (int, error) {
	return q.bulk(ctx, f, act{op: "queue.Unhold", on: onRelease, step: "released", text: actor, change: q.tryNow})
}

// Drop removes items and their bodies.
func (q *Queue) Drop(ctx context.Context, actor string, f Filter, reason string) (int, error) {
	return q.bulk(ctx, f, act{op: "queue.Drop", on: onDrop, step: "dropped", text: join(actor, reason)})
}

// Reroute sends items another way.
func (q *Queue) Reroute(ctx context.Context, actor string, f Filter, destination, connection string) (int, error) {
	if destination == "" {
		return 0, fault.New(fault.Invalid, "queue.Reroute", "the destination is missing")
	}
	text := join(actor, "to "+destination)
	return q.bulk(ctx, f, act{op: "queue.Reroute", on: onReroute, step: "rerouted", text: text, change: func(r *row, now time.Time) bool {
		if r.destination == destination && r.connection == connection {
			return false
		}
		r.destination, r.connection = destination, connection
		if r.state == storedReady {
			r.due = now.UnixMicro()
		}
		return true
	}})
}

func join(actor, text string) string {
	if text == "" {
		return actor
	}
	return actor + ": " + text
}

// bulk meets every item that matches, a page at a time.
func (q *Queue) bulk(ctx context.Context, f Filter, a act) (int, error) {
	total := 0
	p := newPieces(bulkPage)
	meet := func(rows []row) error {
		n, err := q.change(ctx, f, a, p, rows)
		total += n
		return err
	}
	err := q.each(ctx, f, statesOf(f, a.on), meet)
	return total, fault.Wrap(fault.KindOf(err), a.op, err)
}

// statesOf is the stored states that the act has a place in and the filter
// asks for. A ready item has nothing to gain by a retry: a million of them that
// wait for a destination are not even looked at.
func statesOf(f Filter, on event) (list []stored) {
	for s := storedReady; s <= storedFailed; s++ {
		if on == onRetry && s == storedReady {
			continue
		}
		if _, ok := next(s.state(), on); ok && (len(f.States) == 0 || slices.Contains(f.States, s.state())) {
			list = append(list, s)
		}
	}
	return list
}

// each calls meet with pages of the rows that may match, of one lane and state
// after the other.
func (q *Queue) each(ctx context.Context, f Filter, in []stored, meet func([]row) error) error {
	if low, high, ok := f.span(); ok {
		rows, err := q.readRows(ctx, rangeRows, low, high, mostItems+1)
		if err != nil {
			return err
		}
		return meet(slices.DeleteFunc(rows, func(r row) bool { return !slices.Contains(in, r.state) }))
	}
	// What lanes have is gathered, so that many small ones share a commit.
	p := &pages{meet: meet}
	lanes := q.lanes(f.Tenant, f.Destination)
	if q.scattered(lanes, in) {
		if err := q.eachByID(ctx, in, p); err != nil {
			return err
		}
		return p.flush()
	}
	for _, l := range lanes {
		for _, s := range in {
			if q.has(l, s) == 0 {
				continue
			}
			if err := q.eachOf(ctx, l, s, p); err != nil {
				return err
			}
		}
	}
	return p.flush()
}

const (
	// fewLanes is up to how many lanes are met one after the other: as many
	// items lie on one page of the table.
	fewLanes = 10
	// readShare is how many items are read for one that matches, at most, to
	// have them in the order of their ids.
	readShare = 8
)

// scattered reports whether items are better met in the order of their ids,
// that of arrival and of the tables: those of one lane lie as far apart there
// as there are lanes, so that lane after lane each of them would dirty pages of
// its own in every table, many times over.
func (q *Queue) scattered(lanes [][2]string, in []stored) bool {
	var full, matching, all int64
	for _, l := range lanes {
		var n int64
		for _, s := range in {
			n += q.has(l, s)
		}
		if matching += n; n > 0 {
			full++
		}
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, d := range q.dests {
		for _, l := range d.lanes {
			all += l.total()
		}
	}
	return full > fewLanes && all <= readShare*matching
}

// eachByID adds all rows of the given states that are there now.
func (q *Queue) eachByID(ctx context.Context, in []stored, p *pages) error {
	const page = 2 * bulkPage // not every row that is read matches
	last := ""
	if err := q.road.QueryRow(ctx, lastItem).Scan(&last); err != nil {
		return fault.Wrap(fault.Later, "queue.each", err)
	}
	for at := ""; ; {
		began := time.Now()
		rows, err := q.readRows(ctx, rangeRows, at, last, page)
		if err != nil {
			return err
		}
		q.giveWay(ctx, time.Since(began))
		if len(rows) > 0 {
			at = afterID(rows[len(rows)-1].id)
		}
		more := len(rows) == page
		if err := p.add(slices.DeleteFunc(rows, func(r row) bool { return !slices.Contains(in, r.state) })); err != nil || !more {
			return err
		}
		if err := ctx.Err(); err != nil {
			return fault.Wrap(fault.Later, "queue.each", err)
		}
	}
}

// afterID is the next id there can be: none is that long.
func afterID(id string) string { return id + "0" }

// pages gathers rows until there are enough for a page.
type pages struct {
	rows []row
	meet func([]row) error
}

func (p *pages) add(rows []row) error {
	if p.rows = append(p.rows, rows...); len(p.rows) < bulkPage {
		return nil
	}
	return p.flush()
}

func (p *pages) flush() error {
	rows := p.rows
	p.rows = nil
	if len(rows) == 0 {
		return nil
	}
	return p.meet(rows)
}

// has is how many items a lane has in a state, as far as memory knows.
func (q *Queue) has(at [2]string, s stored) int64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	d := q.dests[at[1]]
	if d == nil || d.lanes[at[0]] == nil {
		return 0
	}
	return d.lanes[at[0]].n[s]
}

func (q *Queue) eachOf(ctx context.Context, l [2]string, s stored, p *pages) error {
	for at := (key{due: -1}); ; {
		began := time.Now()
		rows, err := q.readRows(ctx, laneRows, l[0], l[1], int(s), at.due, at.id, bulkPage)
		if err != nil {
			return err
		}
		q.giveWay(ctx, time.Since(began)) // no load on the writer, but on the processors
		if err := p.add(rows); err != nil {
			return err
		}
		if len(rows) < bulkPage {
			return nil
		}
		last := rows[len(rows)-1]
		at = key{last.due, last.id}
		if err := ctx.Err(); err != nil {
			return fault.Wrap(fault.Later, "queue.each", err)
		}
	}
}

// span is the ids that an item or message filter stands for.
func (f Filter) span() (low, high string, ok bool) {
	if f.Item != "" {
		return f.Item, f.Item, true
	}
	if f.Message == "" {
		return "", "", false
	}
	high, err := itemID(f.Message, mostItems)
	if err != nil {
		high = f.Message
	}
	return f.Message, high, true
}

func (f Filter) matches(r *row, now time.Time) bool {
	return (f.Tenant == "" || f.Tenant == r.tenant) && (f.Destination == "" || f.Destination == r.destination) &&
		(f.Message == "" || f.Message == r.message) && (f.Reason == "" || f.Reason == r.reason) &&
		(f.OlderThan == 0 || r.received <= now.Add(-f.OlderThan).UnixMicro())
}

// lanes lists (tenant, destination) of those that match, in order.
func (q *Queue) lanes(tenant, destination string) [][2]string {
	q.mu.Lock()
	defer q.mu.Unlock()
	var list [][2]string
	for k, d := range q.dests {
		if destination != "" && k != destination {
			continue
		}
		for name := range d.lanes {
			if tenant == "" || name == tenant {
				list = append(list, [2]string{name, k})
			}
		}
	}
	slices.SortFunc(list, func(a, b [2]string) int { return slices.Compare(a[:], b[:]) })
	return list
}

func (q *Queue) readRows(ctx context.Context, s store.RoadSQL, args ...any) ([]row, error) {
	rows, err := q.road.Query(ctx, s, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var list []row
	for rows.Next() {
		var r row
		if err := r.scan(rows); err != nil {
			return nil, fault.Wrap(fault.Later, "queue.read", err)
		}
		list = append(list, r)
	}
	return list, fault.Wrap(fault.Later, "queue.read", rows.Err())
}

// move is one item's part of a bulk act.
type move struct {
	hand     *hand
	from, to row
	gone     bool
	event    trace.Encoded

	seq     int64
	skipped bool
}

// change does the act to those of a page that match.
func (q *Queue) change(ctx context.Context, f Filter, a act, p *pieces, rows []row) (int, error) {
	moves := q.claim(a.moves(f, rows, q.now()))
	total := 0
	for len(moves) > 0 {
		n := min(len(moves), p.most)
		took, err := q.commitMoves(ctx, moves[:n])
		if err != nil {
			q.unclaim(moves)
			return total, err
		}
		total += q.settleMoves(moves[:n])
		moves = moves[n:]
		p.learn(n, took)
		q.giveWay(ctx, took)
	}
	return total, nil
}

func (a act) moves(f Filter, rows []row, now time.Time) []*move {
	var list []*move
	for _, r := range rows {
		to, ok := next(r.state.state(), a.on)
		if !ok || !f.matches(&r, now) {
			continue
		}
		m := &move{from: r, to: r, gone: to == absent}
		m.to.state = to.stored()
		if a.change != nil && !a.change(&m.to, now) {
			continue
		}
		m.tell(a, now)
		list = append(list, m)
	}
	return list
}

// tell makes the trace event of a move.
func (m *move) tell(a act, now time.Time) {
	after := counts(m.to.state, m.to.rcpts)
	if m.gone {
		after = trace.Counts{Dropped: m.from.rcpts}
	}
	m.event = trace.Encode(trace.Event{
		Tenant: m.from.tenant, ID: m.from.message,
		Change: minus(after, counts(m.from.state, m.from.rcpts)),
		Steps:  []trace.Step{{Time: now, Step: a.step, Text: &a.text}},
	})
}

// claim takes items out of the windows, so that nobody leases them meanwhile.
// Those that are in somebody's hands are left out.
func (q *Queue) claim(moves []*move) []*move {
	q.mu.Lock()
	defer q.mu.Unlock()
	return slices.DeleteFunc(moves, func(m *move) bool {
		if _, busy := q.busy[m.from.id]; busy {
			return true
		}
		m.hand = q.seize(m.from.tenant, m.from.destination, entry{id: m.from.id, due: m.from.due, state: m.from.state})
		return false
	})
}

// seize takes an item into our own hands.
func (q *Queue) seize(tenant, destination string, e entry) *hand {
	l := q.lane(tenant, destination)
	if e.state.waits() {
		if had, ok := q.remove(l.window(e.state), e.key()); ok {
			q.uncache(&had)
		}
	}
	h := &hand{lane: l, entry: e}
	q.busy[e.id] = h
	l.internal++
	return h
}

// unclaim gives items back after a failed commit. Whether it took may be
// unknown, so their lanes are read anew.
func (q *Queue) unclaim(moves []*move) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, m := range moves {
		q.letGo(m.hand)
		q.recount(m.hand.lane)
		q.recount(q.lane(m.to.tenant, m.to.destination))
	}
}

// commitMoves writes moves in one commit.
func (q *Queue) commitMoves(ctx context.Context, moves []*move) (took time.Duration, err error) {
	return q.piece(ctx, func(tx store.RoadTx) error {
		for _, m := range moves {
			if err := m.write(tx); err != nil {
				return err
			}
		}
		return nil
	})
}

func (m *move) write(tx store.RoadTx) (err error) {
	var n int64
	if m.gone {
		n, err = tx.Exec(removeItem, m.from.id, int(m.from.state), m.from.due)
	} else {
		n, err = tx.Exec(moveItem, m.from.id, int(m.from.state), m.from.due, int(m.to.state), m.to.due, m.to.expires,
			clean(m.to.reason), m.to.destination, m.to.connection)
	}
	if m.skipped = n == 0; err != nil || m.skipped {
		return err
	}
	if m.gone {
		if err := dropBody(tx, m.from.ref(), m.from.flags&flagShared != 0); err != nil {
			return err
		}
	}
	m.seq, err = m.event.Write(tx)
	return err
}

// settleMoves brings committed moves into memory.
func (q *Queue) settleMoves(moves []*move) (changed int) {
	var seqs []int64
	var events []trace.Event
	for _, m := range moves {
		if !m.skipped {
			seqs, events = append(seqs, m.seq), append(events, m.event.Event)
		}
	}
	q.c.Trace.Committed(seqs, events)
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, m := range moves {
		q.letGo(m.hand)
		l := m.hand.lane
		if !m.skipped {
			l.n[m.from.state]--
			if !m.gone {
				to := q.lane(m.to.tenant, m.to.destination)
				to.n[m.to.state]++
				q.admit(to, entry{id: m.to.id, due: m.to.due, state: m.to.state})
			}
		}
		q.leave(l)
	}
	return len(events)
}

// holdLeased holds an item that a stop switch met at its lease.
func (q *Queue) holdLeased(ctx context.Context, h *hand, reason string) {
	now := q.now()
	it := h.item
	from := row{
		id: it.ID, message: it.Message, tenant: it.Tenant, destination: it.Destination, connection: it.Connection,
		state: h.entry.state, due: h.entry.due, expires: micros(it.ExpiresAt), rcpts: it.open(),
	}
	a := act{on: onHold, step: "held", text: reason}
	m := &move{hand: h, from: from, to: from}
	m.to.state, m.to.due, m.to.reason = storedHeld, now.UnixMicro(), reason
	m.tell(a, now)
	if _, err := q.commitMoves(context.WithoutCancel(ctx), []*move{m}); err != nil {
		q.log.Warn("a stopped item cannot be held", "item", it.ID, "error", err)
		q.mu.Lock()
		h.slot.spent = true
		q.recount(h.lane)
		q.mu.Unlock()
		q.unhand(h, true)
		return
	}
	q.mu.Lock()
	q.uncache(&h.entry)
	q.mu.Unlock()
	q.settleMoves([]*move{m})
}

// retryRefused sends again what a route refused before it was known to be
// broken. Items whose senders were told are gone already.
func (q *Queue) retryRefused(ctx context.Context) error {
	q.mu.Lock()
	ids := q.retryLater
	q.retryLater = nil
	q.mu.Unlock()
	for i, id := range ids {
		if _, err := q.Retry(ctx, "the route was found to be broken", Filter{Item: id, States: []State{Failed}}); err != nil {
			q.mu.Lock()
			q.retryLater = append(q.retryLater, ids[i:]...)
			q.mu.Unlock()
			return err
		}
	}
	return nil
}
