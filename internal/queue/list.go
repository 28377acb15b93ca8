package queue

import (
	"context"
	"database/sql"
	"encoding/base64"
	"encoding/json"
	"errors"
	"slices"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/mail"
)

// Listed is an item as the contract shows it.
type Listed struct {
	ID          string     `json:"id"`
	Message     string     `json:"message"`
	Tenant      string     `json:"tenant"`
	Recipients  []string   `json:"recipients"`
	Destination string     `json:"destination"`
	State       State      `json:"state"`
	Attempts    int        `json:"attempts"`
	NextAt      *time.Time `json:"next_at"`
	Last        *Last      `json:"last"`
	Reason      string     `json:"reason"`
	ReceivedAt  time.Time  `json:"received_at"`
}

// Last is the last reply to an item; what no server said has no code.
type Last struct {
	Code     *int    `json:"code"`
	Enhanced *string `json:"enhanced"`
	Text     string  `json:"text"`
}

// LastOf shows a reply; nil when there was none.
func LastOf(r mail.Reply) *Last {
	if r.Code == 0 && r.Text == "" {
		return nil
	}
	x := &Last{Text: r.Text}
	if r.Code != 0 {
		x.Code = &r.Code
	}
	if r.Enhanced != "" {
		x.Enhanced = &r.Enhanced
	}
	return x
}

const (
	defaultPage = 100
	mostPage    = 1000
	whyList     = "queue of every tenant"
)

// place is where a page ended: a lane, a state, and an item in it.
type place struct {
	Lane  [2]string `json:"l"`
	State stored    `json:"s"`
	Due   int64     `json:"d"`
	ID    string    `json:"i"`
}

func (p place) String() string {
	text, _ := json.Marshal(p) // strings and numbers always encode
	return base64.RawURLEncoding.EncodeToString(text)
}

func parsePlace(s string) (p place, err error) {
	if s == "" {
		return p, nil
	}
	text, err := base64.RawURLEncoding.DecodeString(s)
	if err == nil {
		err = json.Unmarshal(text, &p)
	}
	if err != nil {
		return p, fault.New(fault.Invalid, "queue.List", "the cursor is none of ours")
	}
	return p, nil
}

// List pages through items: of one tenant and destination after the other, by
// state, oldest first.
func (q *Queue) List(ctx context.Context, f Filter) (page []Listed, next string, err error) {
	from, err := parsePlace(f.After)
	if err != nil {
		return nil, "", err
	}
	limit := defaultPage
	if f.Limit > 0 {
		limit = min(f.Limit, mostPage)
	}
	page = []Listed{}
	if low, high, ok := f.span(); ok {
		items, err := q.readSpan(ctx, f.Tenant, low, high)
		if err != nil {
			return nil, "", err
		}
		for _, it := range items {
			page = q.list(page, f, it)
		}
		return page, "", nil
	}
	for _, l := range q.lanes(f.Tenant, f.Destination) {
		if f.After != "" && slices.Compare(l[:], from.Lane[:]) < 0 {
			continue
		}
		for s := storedReady; s <= storedFailed; s++ {
			if !f.wants(s) {
				continue
			}
			at := place{Lane: l, State: s, Due: -1}
			if f.After != "" && l == from.Lane {
				if s < from.State {
					continue
				}
				if s == from.State {
					at = from
				}
			}
			if page, next, err = q.listLane(ctx, f, at, page, limit); err != nil || next != "" {
				return page, next, err
			}
		}
	}
	return page, "", nil
}

// wants reports whether items in a stored state may match the filter's states.
func (f Filter) wants(s stored) bool {
	return len(f.States) == 0 || slices.Contains(f.States, s.state()) ||
		(s.waits() && (slices.Contains(f.States, Leased) || slices.Contains(f.States, Ready)))
}

// listLane adds the items of a lane in one state, until the page is full.
func (q *Queue) listLane(ctx context.Context, f Filter, at place, page []Listed, limit int) ([]Listed, string, error) {
	for {
		items, err := q.readPage(ctx, f.Tenant, at)
		if err != nil {
			return nil, "", err
		}
		for _, it := range items {
			due := micros(it.Due)
			if page = q.list(page, f, it); len(page) > limit {
				return page[:limit], at.String(), nil
			}
			at.Due, at.ID = due, it.ID
		}
		if len(items) < bulkPage {
			return page, "", nil
		}
	}
}

func (q *Queue) readPage(ctx context.Context, tenant string, at place) ([]*Item, error) {
	args := []any{at.Lane[1], int(at.State), at.Due, at.ID, bulkPage}
	if tenant != "" {
		return readItems(q.c.Store.Road.For(tenant).Query(ctx, pageLane, args...))
	}
	return readItems(q.c.Store.Road.Operator(whyList).Query(ctx, pageAny, append([]any{at.Lane[0]}, args...)...))
}

func (q *Queue) readSpan(ctx context.Context, tenant, low, high string) ([]*Item, error) {
	if tenant != "" {
		return readItems(q.c.Store.Road.For(tenant).Query(ctx, pageRange, low, high))
	}
	return readItems(q.c.Store.Road.Operator(whyList).Query(ctx, pageAnyRange, "", low, high))
}

func readItems(rows *sql.Rows, err error) ([]*Item, error) {
	if err != nil {
		return nil, fault.Wrap(fault.KindOf(err), "queue.List", err)
	}
	defer rows.Close()
	var items []*Item
	for rows.Next() {
		it, err := scanItem(rows)
		if err != nil {
			return nil, fault.Wrap(fault.Later, "queue.List", err)
		}
		items = append(items, it)
	}
	return items, fault.Wrap(fault.Later, "queue.List", rows.Err())
}

// list adds an item to a page if it matches.
func (q *Queue) list(page []Listed, f Filter, it *Item) []Listed {
	r := row{
		tenant: it.Tenant, destination: it.Destination, message: it.Message, reason: it.Reason, received: micros(it.ReceivedAt),
	}
	x := q.listed(it)
	if !f.matches(&r, q.now()) || (len(f.States) > 0 && !slices.Contains(f.States, x.State)) {
		return page
	}
	return append(page, x)
}

func (q *Queue) listed(it *Item) Listed {
	q.view(it)
	x := Listed{
		ID: it.ID, Message: it.Message, Tenant: it.Tenant, Destination: it.Destination, State: it.State,
		Attempts: it.Attempts, Reason: it.Reason, ReceivedAt: it.ReceivedAt, Recipients: []string{}, Last: LastOf(it.Last),
	}
	for _, r := range it.Recipients {
		if r.State == rcptQueued || r.State == rcptFailed {
			x.Recipients = append(x.Recipients, r.Address.String())
		}
	}
	if it.State == Ready || it.State == Deferred {
		x.NextAt = pointer(it.Due)
	}
	return x
}

// view completes an item that was read with what memory knows: who holds it,
// and what its destination waits for.
func (q *Queue) view(it *Item) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if h := q.busy[it.ID]; h != nil && h.slot != nil {
		it.State = Leased
		return
	}
	if it.State != Ready && it.State != Deferred {
		return
	}
	if it.State == Deferred && !it.Due.After(q.now()) {
		it.State = Ready
	}
	if d := q.dests[it.Destination]; d != nil && d.state != up {
		if it.Due.Before(d.nextTry) {
			it.Due = d.nextTry
		}
		if it.Last.Code == 0 && it.Last.Text == "" {
			it.Last.Text = d.reason
		}
	}
}

// Show is one item with what List leaves out; kind missing.
func (q *Queue) Show(ctx context.Context, tenant, id string) (Item, error) {
	var s scanner
	if tenant != "" {
		s = q.c.Store.Road.For(tenant).Get(ctx, selectItem, id)
	} else {
		s = q.c.Store.Road.Operator(whyList).QueryRow(ctx, selectAnyItem, "", id)
	}
	it, err := scanItem(s)
	if errors.Is(err, sql.ErrNoRows) {
		return Item{}, fault.New(fault.Missing, "queue.Show", "no item "+id).
			WithHint("It may have been delivered: ask message trace.")
	}
	if err != nil {
		return Item{}, fault.Wrap(fault.KindOf(err), "queue.Show", err)
	}
	q.view(it)
	return *it, nil
}
