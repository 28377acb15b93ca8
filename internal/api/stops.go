package api

import (
	"context"
	"net/http"
	"slices"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/queue"
	"github.com/sallyport-mail/sallyport/internal/tenant"
)

// AskedStop names a stop switch.
type AskedStop struct {
	Scope string `json:"scope" required:"true" enum:"outbound,tenant,domain,sender"`
	Value string `json:"value" doc:"The tenant, the recipients' domain or the sender; nothing for outbound"`
}

// Lifted is the answer to lifting a stop.
type Lifted struct {
	AskedStop
	Lifted bool `json:"lifted"`
}

func stops(r *router) {
	on(r, http.MethodGet, "/v1/stops", "List the stop switches", r.listStops)
	on(r, http.MethodPost, "/v1/stops", "Stop delivery of what matches", r.setStop)
	on(r, http.MethodPost, "/v1/stops/lift", "Lift a stop switch", r.liftStop, within(bulkTime))
}

func (s *server) listStops(ctx context.Context, in *struct{ Paging }) (*out[Page[queue.Stop]], error) {
	own, err := scope(ctx, "")
	if err != nil {
		return nil, err
	}
	var mine []queue.Stop
	for _, st := range s.Queue.Stops() {
		if own == "" || st.Scope == "tenant" && st.Value == own {
			mine = append(mine, st)
		}
	}
	return cut(mine, func(st queue.Stop) string { return st.Scope + " " + st.Value }, in.Paging), nil
}

// mayStop leaves switches that concern several tenants, and those that he has
// set himself, to the operator: a tenant that he stopped must not lift that.
func (s *server) mayStop(ctx context.Context, a AskedStop) error {
	if (a.Value == "") != (a.Scope == "outbound") {
		return fault.New(fault.Invalid, "api.stop", "the scope and the value do not fit").
			WithHint("Give the tenant, domain or sender as value, and none for the scope outbound.")
	}
	if caller(ctx).Role == tenant.Operator {
		return nil
	}
	if a.Scope != "tenant" {
		return fault.New(fault.Denied, "api.stop", "this switch concerns other tenants too").
			WithHint("Use the scope tenant, or ask the operator.")
	}
	if _, err := scope(ctx, a.Value); err != nil {
		return err
	}
	return s.notTheOperators(ctx, a)
}

// notTheOperators refuses a switch that is set and not by one of the tenant's
// own tokens.
func (s *server) notTheOperators(ctx context.Context, a AskedStop) error {
	own, err := s.ownTokens(ctx)
	if err != nil {
		return err
	}
	for _, st := range s.Queue.Stops() {
		if st.Scope != a.Scope || st.Value != a.Value {
			continue
		}
		if !slices.ContainsFunc(own, func(t tenant.Token) bool { return st.Actor == "token:"+t.ID }) {
			return fault.New(fault.Denied, "api.stop", "the operator has set this switch").WithHint("Ask the operator.")
		}
	}
	return nil
}

func (s *server) setStop(ctx context.Context, in *struct {
	Body struct {
		AskedStop
		Reason string `json:"reason" maxLength:"500"`
	}
}) (*out[queue.Stop], error) {
	b := in.Body
	if err := s.mayStop(ctx, b.AskedStop); err != nil {
		return nil, err
	}
	if b.Scope == "tenant" {
		if _, err := s.existing(ctx, b.Value); err != nil {
			return nil, err
		}
	}
	st := queue.Stop{Scope: b.Scope, Value: b.Value, Reason: b.Reason, Actor: string(actor(ctx)), Since: s.Now()}
	return reply(st), s.Queue.SetStop(ctx, st)
}

func (s *server) liftStop(ctx context.Context, in *struct{ Body AskedStop }) (*out[Lifted], error) {
	if err := s.mayStop(ctx, in.Body); err != nil {
		return nil, err
	}
	if err := s.Queue.LiftStop(ctx, in.Body.Scope, in.Body.Value); err != nil {
		return nil, err
	}
	return reply(Lifted{in.Body, true}), nil
}
