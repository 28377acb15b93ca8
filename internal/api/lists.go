package api

import (
	"context"
	"net/http"

	"github.com/sallyport-mail/sallyport/internal/tenant"
)

func lists(r *router) {
	on(r, http.MethodGet, "/v1/lists", "Show the operator's sender lists", r.showLists)
	on(r, http.MethodPut, "/v1/lists", "Replace the operator's sender lists", r.setLists, upTo(16<<20, 1))
}

func (s *server) showLists(context.Context, *struct{}) (*out[tenant.Lists], error) {
	return reply(s.Tenants.Lists()), nil
}

func (s *server) setLists(ctx context.Context, in *struct{ Body tenant.Lists }) (*out[tenant.Lists], error) {
	if err := s.Tenants.SetLists(ctx, actor(ctx), in.Body); err != nil {
		return nil, err
	}
	return reply(s.Tenants.Lists()), nil
}
