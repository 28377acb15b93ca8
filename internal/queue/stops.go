package queue

import (
	"context"
	"slices"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/mail"
	"github.com/sallyport-mail/sallyport/internal/store"
)

// Stop is a stop switch: nothing that matches is delivered until it is lifted.
//
// Mail of a stopped tenant, and outbound mail to the internet, stays as it is.
// What a narrower switch matches becomes held when its turn comes, with the
// switch as its reason, and is released when the switch is lifted.
type Stop struct {
	Scope  string    `json:"scope"` // "outbound" (all of it), "tenant", "domain" (of recipients), "sender"
	Value  string    `json:"value"`
	Reason string    `json:"reason"`
	Actor  string    `json:"actor"`
	Since  time.Time `json:"since"`
}

// Scopes of a stop.
const (
	stopOutbound = "outbound"
	stopTenant   = "tenant"
	stopDomain   = "domain"
	stopSender   = "sender"
)

// stops is the switches that are set.
type stops struct {
	list     []Stop
	outbound bool
	by       map[[2]string]bool // scope and value
}

func (s *stops) set(list []Stop) {
	s.list, s.outbound, s.by = list, false, map[[2]string]bool{}
	for _, x := range list {
		s.by[[2]string{x.Scope, x.Value}] = true
		s.outbound = s.outbound || x.Scope == stopOutbound
	}
}

func (s *stops) tenant(name string) bool {
	return len(s.list) > 0 && s.by[[2]string{stopTenant, name}]
}

// reason is how items say that a switch holds them.
func (s Stop) reason() string {
	if s.Value == "" {
		return "stop:" + s.Scope
	}
	return "stop:" + s.Scope + ":" + s.Value
}

// stopFor says whether a switch matches an item that is about to be delivered.
func (q *Queue) stopFor(it *Item) (reason string, stop bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, s := range q.stops.list {
		if s.matches(it) {
			return s.reason(), true
		}
	}
	return "", false
}

func (s Stop) matches(it *Item) bool {
	switch s.Scope {
	case stopOutbound:
		return it.Direction == "outbound"
	case stopTenant:
		return it.Tenant == s.Value
	case stopSender:
		return it.From.Key() == s.Value
	case stopDomain:
		return it.Domain == s.Value || slices.ContainsFunc(it.Recipients, func(r Recipient) bool { return r.Domain == s.Value })
	}
	return false
}

// normal checks a switch and brings its value into the form that is compared.
func (s Stop) normal() (Stop, error) {
	wrong := func(text string) (Stop, error) {
		return s, fault.New(fault.Invalid, "queue.SetStop", text).
			WithHint(`Use the scope "outbound", or "tenant", "domain" or "sender" with a value.`)
	}
	switch s.Scope {
	case stopOutbound:
		s.Value = ""
		return s, nil
	case stopTenant:
	case stopDomain:
		domain, err := mail.ParseDomain(s.Value)
		if err != nil {
			return wrong(s.Value + " is not a domain")
		}
		s.Value = domain
	case stopSender:
		a, err := mail.ParseAddress(s.Value)
		if err != nil {
			return wrong(s.Value + " is not an address")
		}
		s.Value = a.Key()
	default:
		return wrong("no stop switch has the scope " + s.Scope)
	}
	if s.Value == "" {
		return wrong("the value is missing")
	}
	return s, nil
}

// SetStop sets a switch; setting it again changes its reason.
func (q *Queue) SetStop(ctx context.Context, s Stop) error {
	s, err := s.normal()
	if err != nil {
		return err
	}
	if s.Since.IsZero() {
		s.Since = q.now()
	}
	err = q.road.Change(ctx, func(tx store.RoadTx) error {
		_, err := tx.Exec(upsertStop, s.Scope, s.Value, clean(s.Reason), s.Actor, micros(s.Since))
		return err
	})
	if err != nil {
		return fault.Wrap(fault.KindOf(err), "queue.SetStop", err)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	list := slices.DeleteFunc(slices.Clone(q.stops.list), func(o Stop) bool { return o.Scope == s.Scope && o.Value == s.Value })
	q.stops.set(append(list, s))
	for _, d := range q.dests {
		d.dismiss() // what waits for mail looks again
	}
	return nil
}

// LiftStop releases what the switch holds, then ends it; when ctx ends before
// that it stays.
func (q *Queue) LiftStop(ctx context.Context, scope, value string) error {
	s, err := Stop{Scope: scope, Value: value}.normal()
	if err != nil {
		return err
	}
	same := func(o Stop) bool { return o.Scope == s.Scope && o.Value == s.Value }
	q.mu.Lock()
	known := slices.ContainsFunc(q.stops.list, same)
	if known {
		q.stops.set(slices.DeleteFunc(slices.Clone(q.stops.list), same))
		q.stirAll()
	}
	q.mu.Unlock()
	if !known {
		return fault.New(fault.Missing, "queue.LiftStop", "no such stop switch").WithHint("List the stop switches.")
	}
	if _, err := q.Unhold(ctx, "stop lifted", Filter{Reason: s.reason()}); err != nil {
		q.restoreStop(s)
		return err
	}
	err = q.road.Change(ctx, func(tx store.RoadTx) error {
		_, err := tx.Exec(deleteStop, s.Scope, s.Value)
		return err
	})
	if err != nil {
		q.restoreStop(s)
	}
	return fault.Wrap(fault.KindOf(err), "queue.LiftStop", err)
}

func (q *Queue) restoreStop(s Stop) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.stops.set(append(slices.Clone(q.stops.list), s))
}

// stirAll looks at every lane again.
func (q *Queue) stirAll() {
	for _, d := range q.dests {
		for _, l := range d.lanes {
			q.stir(l)
		}
		q.poke(d)
	}
}

// Stops lists the switches that are set.
func (q *Queue) Stops() []Stop {
	q.mu.Lock()
	defer q.mu.Unlock()
	return slices.Clone(q.stops.list)
}

func (q *Queue) loadStops(ctx context.Context) error {
	rows, err := q.road.Query(ctx, selectStops)
	if err != nil {
		return err
	}
	defer rows.Close()
	var list []Stop
	for rows.Next() {
		var s Stop
		var since int64
		if err := rows.Scan(&s.Scope, &s.Value, &s.Reason, &s.Actor, &since); err != nil {
			return err
		}
		s.Since = fromMicros(since)
		list = append(list, s)
	}
	q.stops.set(list)
	return rows.Err()
}
