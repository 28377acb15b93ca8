package api

import (
	"context"
	"net/http"
	"runtime/debug"
	"sync"
	"time"
)

// checkTime bounds one check of doctor.
const checkTime = 20 * time.Second

// QueueStats are the queue's figures.
type QueueStats struct {
	Queued       int64      `json:"queued"`
	Ready        int64      `json:"ready"`
	Deferred     int64      `json:"deferred"`
	Held         int64      `json:"held"`
	Failed       int64      `json:"failed"`
	InFlight     int64      `json:"in_flight"`
	Accepted     uint64     `json:"accepted" doc:"Since start, as the next three"`
	Delivered    uint64     `json:"delivered"`
	Deferrals    uint64     `json:"deferrals"`
	Failures     uint64     `json:"failures"`
	Destinations int        `json:"destinations"`
	OldestReady  *time.Time `json:"oldest_ready"`
}

// EdgeStats are the edge's figures.
type EdgeStats struct {
	Sessions int64  `json:"sessions"`
	Connects uint64 `json:"connects" doc:"Since start, as the next three"`
	Accepted uint64 `json:"accepted"`
	Refused  uint64 `json:"refused"`
	Deferred uint64 `json:"deferred"`
	Unproven uint64 `json:"unproven" doc:"Handshakes since start with a client certificate that is registered but no proof: doctor says why"`
}

// Status is what the gateway says about itself.
type Status struct {
	Version      string        `json:"version"`
	Tenants      int           `json:"tenants"`
	Domains      int           `json:"domains"`
	Queue        QueueStats    `json:"queue"`
	Edge         EdgeStats     `json:"edge"`
	Store        StoreStats    `json:"store"`
	Regions      []RegionStats `json:"regions"`
	Certificates []Certificate `json:"certificates"`
}

// CheckResult is what one check of doctor found.
type CheckResult struct {
	Name   string  `json:"name"`
	OK     bool    `json:"ok"`
	Detail string  `json:"detail"`
	Fix    *string `json:"fix" doc:"What to do, null when ok"`
}

func status(r *router) {
	on(r, http.MethodGet, "/v1/status", "Show the gateway's figures", r.showStatus)
	on(r, http.MethodGet, "/v1/doctor", "Check the gateway and its surroundings", r.doctor, within(3*time.Minute))
}

func (s *server) showStatus(context.Context, *struct{}) (*out[Status], error) {
	st := Status{Version: s.Version, Queue: s.queueStats(), Edge: s.edgeStats(), Store: s.storeStats()}
	st.Tenants, st.Domains = s.Tenants.Count()
	if s.Regions != nil {
		st.Regions = s.Regions()
	}
	if s.Certificates != nil {
		st.Certificates = s.Certificates()
	}
	return reply(st), nil
}

func (s *server) queueStats() QueueStats {
	q := s.Queue.Stats()
	return QueueStats{
		Queued: q.Queued, Ready: q.Ready, Deferred: q.Deferred, Held: q.Held, Failed: q.Failed, InFlight: q.InFlight,
		Accepted: q.Accepted, Delivered: q.Delivered, Deferrals: q.Deferrals, Failures: q.Failures,
		Destinations: q.Destinations, OldestReady: q.OldestReady,
	}
}

func (s *server) edgeStats() EdgeStats {
	if s.Edge == nil {
		return EdgeStats{}
	}
	e := s.Edge()
	return EdgeStats{Sessions: e.Sessions, Connects: e.Connects, Accepted: e.Accepted, Refused: e.Refused, Deferred: e.Deferred,
		Unproven: e.Unproven}
}

func (s *server) storeStats() StoreStats {
	if s.Store == nil {
		return StoreStats{}
	}
	return s.Store()
}

// doctor runs the checks at once, each within its time; one that panics has
// failed and the others still answer.
func (s *server) doctor(ctx context.Context, _ *struct{}) (*out[[]CheckResult], error) {
	results := make([]CheckResult, len(s.Checks))
	var wg sync.WaitGroup
	for i, c := range s.Checks {
		wg.Go(func() { results[i] = s.check(ctx, c) })
	}
	wg.Wait()
	return reply(results), nil
}

func (s *server) check(ctx context.Context, c Check) (r CheckResult) {
	ctx, cancel := context.WithTimeout(ctx, checkTime)
	defer cancel()
	r.Name = c.Name
	defer func() {
		if v := recover(); v != nil {
			s.Log.ErrorContext(ctx, "api: a check panicked", "check", c.Name, "panic", v, "stack", string(debug.Stack()))
			r.OK, r.Detail, r.Fix = false, "the check itself failed", or("Report this: the log has the details.")
		}
	}()
	var fix string
	r.OK, r.Detail, fix = c.Run(ctx)
	r.Fix = or(fix)
	return r
}
