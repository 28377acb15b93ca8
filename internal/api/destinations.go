package api

import (
	"context"
	"net/http"
	"strings"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/queue"
)

// Destination is a destination's state: absent is null.
type Destination struct {
	queue.Destination
	Reason *string `json:"reason"`
}

// Resumed is the answer to ending a stop or a back-off.
type Resumed struct {
	Destination string `json:"destination"`
	Resumed     bool   `json:"resumed"`
}

func destinations(r *router) {
	on(r, http.MethodGet, "/v1/destinations", "List the destinations that have mail", r.listDestinations)
	on(r, http.MethodPost, "/v1/destinations/resume", "End a destination's stop or back-off", r.resumeDestination)
}

func (s *server) listDestinations(ctx context.Context, in *struct {
	Tenant string `query:"tenant"`
	Paging
}) (*out[Page[Destination]], error) {
	own, err := scope(ctx, in.Tenant)
	if err != nil {
		return nil, err
	}
	all, err := s.Queue.Destinations(ctx, own)
	if err != nil {
		return nil, err
	}
	shown := each(all, func(d queue.Destination) Destination { return Destination{d, or(d.Reason)} })
	return searched(s, own, in.Paging, cut(shown, func(d Destination) string { return d.Key }, in.Paging))
}

// resumeDestination is the operator's, except for a tenant's own connections:
// what goes to the internet is shared.
func (s *server) resumeDestination(ctx context.Context, in *struct {
	Body struct {
		Destination string `json:"destination" required:"true" minLength:"1"`
	}
}) (*out[Resumed], error) {
	own, err := scope(ctx, "")
	if err != nil {
		return nil, err
	}
	key := in.Body.Destination
	if own != "" && !strings.HasPrefix(key, routeKey(own, "")) {
		return nil, fault.New(fault.Missing, "api.resume", "there is no destination "+quoted(key)).
			WithHint("List the destinations; those shared with others are the operator's to resume.")
	}
	if err := s.Queue.Resume(ctx, string(actor(ctx)), key); err != nil {
		return nil, err
	}
	return reply(Resumed{key, true}), nil
}
