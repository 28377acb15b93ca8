package api

import (
	"cmp"
	"context"
	"net/http"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/queue"
)

// Held is a held item: nobody delivers it until somebody decides.
type Held struct {
	ID        string     `json:"id"`
	Message   string     `json:"message"`
	Tenant    string     `json:"tenant"`
	From      string     `json:"from"`
	To        []string   `json:"to"`
	Subject   *string    `json:"subject"`
	HeldAt    *time.Time `json:"held_at"`
	Verdict   string     `json:"verdict"`
	Reasons   []string   `json:"reasons"`
	ExpiresAt *time.Time `json:"expires_at"`
	State     string     `json:"state"`
}

type decide struct {
	OneItem
	Body *struct {
		Reason string `json:"reason" maxLength:"500"`
	}
}

func held(r *router) {
	on(r, http.MethodGet, "/v1/held", "List held items", r.listHeld)
	on(r, http.MethodGet, "/v1/held/{id}", "Show a held item", r.showHeld)
	on(r, http.MethodPost, "/v1/held/{id}/release", "Release a held item", r.releaseHeld)
	on(r, http.MethodPost, "/v1/held/{id}/drop", "Drop a held item for good", r.dropHeld)
}

func shownHeld(it queue.Item) Held {
	h := Held{
		ID: it.ID, Message: it.Message, Tenant: it.Tenant, From: it.From.String(),
		To: each(it.Recipients, recipientAddress), Subject: or(it.Subject),
		Verdict: "held", ExpiresAt: instant(it.ExpiresAt), State: string(it.State),
		HeldAt: cmp.Or(instant(it.LastAt), instant(it.ReceivedAt)),
	}
	if it.Reason != "" {
		h.Reasons = []string{it.Reason}
	}
	return h
}

// listHeld shows each item of a page: a listing alone lacks sender and subject.
func (s *server) listHeld(ctx context.Context, in *struct {
	Tenant string `query:"tenant"`
	Paging
}) (*out[Page[Held]], error) {
	own, err := scope(ctx, in.Tenant)
	if err != nil {
		return nil, err
	}
	page, next, err := s.Queue.List(ctx, queue.Filter{Tenant: own, States: []queue.State{queue.Held}, After: in.After, Limit: in.Limit})
	if err != nil {
		return nil, err
	}
	var items []Held
	for _, l := range page {
		it, err := s.Queue.Show(ctx, l.Tenant, l.ID)
		if fault.Is(err, fault.Missing) {
			continue // decided meanwhile
		}
		if err != nil {
			return nil, err
		}
		items = append(items, shownHeld(it))
	}
	return searched(s, own, in.Paging, paged(items, next))
}

// heldItem finds an item of the caller's that is held.
func (s *server) heldItem(ctx context.Context, id string) (queue.Item, error) {
	it, err := s.item(ctx, id)
	if err == nil && it.State != queue.Held {
		return it, fault.New(fault.Missing, "api.heldItem", "item "+quoted(id)+" is not held").
			WithHint("List the held items to see their ids.")
	}
	return it, err
}

func (s *server) showHeld(ctx context.Context, in *OneItem) (*out[Held], error) {
	it, err := s.heldItem(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	return reply(shownHeld(it)), nil
}

func (s *server) releaseHeld(ctx context.Context, in *decide) (*out[Changed], error) {
	return s.decided(ctx, in, func(f queue.Filter, _ string) (int, error) {
		return s.Queue.Unhold(ctx, string(actor(ctx)), f)
	})
}

func (s *server) dropHeld(ctx context.Context, in *decide) (*out[Changed], error) {
	return s.decided(ctx, in, func(f queue.Filter, reason string) (int, error) {
		return s.Queue.Drop(ctx, string(actor(ctx)), f, reason)
	})
}

// decided acts on one held item; nothing changed means that somebody else was
// quicker.
func (s *server) decided(ctx context.Context, in *decide, do func(queue.Filter, string) (int, error)) (*out[Changed], error) {
	it, err := s.heldItem(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	reason := ""
	if in.Body != nil {
		reason = in.Body.Reason
	}
	n, err := do(queue.Filter{Tenant: it.Tenant, Item: it.ID, States: []queue.State{queue.Held}}, reason)
	if err == nil && n == 0 {
		err = fault.New(fault.Conflict, "api.decided", "the item is no longer held").WithHint("Look at the message's trace.")
	}
	return reply(Changed{n}), err
}
