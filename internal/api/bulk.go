package api

import (
	"context"
	"net/http"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/queue"
)

// bulkTime bounds one act on many items. What it did stays done; asking again
// goes on with the rest.
const bulkTime = 10 * time.Minute

// Selection says on which items an act works. Everything that it says must be
// so; one that says nothing must say all.
type Selection struct {
	Tenant      string `json:"tenant"`
	Destination string `json:"destination"`
	Message     string `json:"message" doc:"Id of the message"`
	Item        string `json:"item" doc:"Id of the item"`
	State       string `json:"state" doc:"ready, leased, deferred, held or failed; several parted by commas"`
	ReasonIs    string `json:"reason_is" doc:"Why it is held or failed"`
	OlderThanS  int64  `json:"older_than_s" minimum:"0" maximum:"315360000"`
	All         bool   `json:"all" doc:"Everything, when nothing else is said"`
}

type act struct {
	Body struct {
		Selection
		Reason     string `json:"reason" maxLength:"500" doc:"Why, for the trace (hold, drop)"`
		Connection string `json:"connection" doc:"The tenant's connection that the items are to take (reroute)"`
	}
}

// Changed says how many items an act changed.
type Changed struct {
	Changed int `json:"changed"`
}

func bulk(r *router) {
	for _, a := range []struct {
		verb, summary string
		do            func(ctx context.Context, in *act, f queue.Filter) (int, error)
	}{
		{"retry", "Try items now", r.retry},
		{"hold", "Hold items until they are released", r.hold},
		{"release", "Release held items", r.release},
		{"drop", "Drop items for good", r.drop},
		{"reroute", "Send items by another connection of their tenant", r.reroute},
	} {
		on(r, http.MethodPost, "/v1/queue/"+a.verb, a.summary, r.selected(a.do), within(bulkTime))
	}
}

// selected gives an act its filter, within the caller's tenant.
func (s *server) selected(do func(context.Context, *act, queue.Filter) (int, error)) func(context.Context, *act) (*out[Changed], error) {
	return func(ctx context.Context, in *act) (*out[Changed], error) {
		f, err := in.Body.filter(ctx)
		if err != nil {
			return nil, err
		}
		n, err := do(ctx, in, f)
		if err == nil && n == 0 {
			err = s.known(f.Tenant)
		}
		return reply(Changed{n}), err
	}
}

// filter refuses to mean everything unless that is said.
func (sel Selection) filter(ctx context.Context) (f queue.Filter, err error) {
	nothing := sel
	nothing.All = false
	if nothing == (Selection{}) && !sel.All {
		return f, fault.New(fault.Invalid, "api.filter", "nothing says which items are meant").
			WithHint(`Name a tenant, destination, message, item, state, reason_is or older_than_s, or say "all": true.`)
	}
	f = queue.Filter{
		Destination: sel.Destination, Message: sel.Message, Item: sel.Item, Reason: sel.ReasonIs,
		OlderThan: time.Duration(sel.OlderThanS) * time.Second,
	}
	if f.States, err = itemStates(sel.State); err != nil {
		return f, err
	}
	f.Tenant, err = scope(ctx, sel.Tenant)
	return f, err
}

func (s *server) retry(ctx context.Context, _ *act, f queue.Filter) (int, error) {
	return s.Queue.Retry(ctx, string(actor(ctx)), f)
}

func (s *server) hold(ctx context.Context, in *act, f queue.Filter) (int, error) {
	return s.Queue.Hold(ctx, string(actor(ctx)), f, in.Body.Reason)
}

func (s *server) release(ctx context.Context, _ *act, f queue.Filter) (int, error) {
	return s.Queue.Unhold(ctx, string(actor(ctx)), f)
}

func (s *server) drop(ctx context.Context, in *act, f queue.Filter) (int, error) {
	return s.Queue.Drop(ctx, string(actor(ctx)), f, in.Body.Reason)
}

// reroute stays within one tenant: a connection is a tenant's.
func (s *server) reroute(ctx context.Context, in *act, f queue.Filter) (int, error) {
	const op = "api.reroute"
	if f.Tenant == "" || in.Body.Connection == "" {
		return 0, fault.New(fault.Invalid, op, "a new route needs a tenant and one of its connections").
			WithHint("Name tenant and connection.")
	}
	c, ok := s.Connections.Get(f.Tenant, in.Body.Connection)
	if !ok {
		return 0, fault.New(fault.Missing, op, "tenant "+f.Tenant+" has no connection "+quoted(in.Body.Connection)).
			WithHint("List its connections to see their names.")
	}
	return s.Queue.Reroute(ctx, string(actor(ctx)), f, routeKey(c.Tenant, c.Name), c.Name)
}

// routeKey is the queue's key of a tenant's connection, as connection.Route
// has it.
func routeKey(tenant, connection string) string { return "t:" + tenant + ":" + connection }
