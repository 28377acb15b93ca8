package api

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/sallyport-mail/sallyport/internal/fault"
)

// Health is the answer to a probe.
type Health struct {
	OK bool `json:"ok"`
}

func health(r *router) {
	if r.OpenMetrics {
		r.needs["GET /metrics"] = needNothing
	}
	figures := r.metricsHandler()
	on(r, http.MethodGet, "/healthz", "Is the process alive", r.healthz)
	on(r, http.MethodGet, "/readyz", "Can it accept mail right now", r.readyz, within(5*time.Second))
	on(r, http.MethodGet, "/metrics", "Figures for Prometheus", func(context.Context, *struct{}) (*huma.StreamResponse, error) {
		return &huma.StreamResponse{Body: func(ctx huma.Context) {
			req, w := humago.Unwrap(ctx)
			figures.ServeHTTP(w, req)
		}}, nil
	}, streams("text/plain"))
}

func (s *server) healthz(context.Context, *struct{}) (*out[Health], error) {
	return reply(Health{true}), nil
}

// readyz says that it is not ready, not why: it is open to everybody.
func (s *server) readyz(ctx context.Context, _ *struct{}) (*out[Health], error) {
	if s.Ready == nil {
		return reply(Health{true}), nil
	}
	if err := s.Ready(ctx); err != nil {
		s.Log.WarnContext(ctx, "api: not ready", "err", err)
		return nil, fault.New(fault.Later, "api.readyz", "the gateway is not ready").
			WithHint("Ask again soon; doctor says what is wrong.")
	}
	return reply(Health{true}), nil
}
