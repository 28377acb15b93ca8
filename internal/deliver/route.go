package deliver

import (
	"context"
	"net/netip"
	"sync"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/queue"
)

// route is where one tenant's mail for one domain of a destination may go.
type route struct {
	ways  []way
	until time.Time
}

// routeKey names a route. The domain is part of it because the preference
// among the same MX hosts may differ from domain to domain.
type routeKey struct{ tenant, destination, domain string }

// routeTable remembers routes, and which ways have failed lately.
type routeTable struct {
	mu      sync.Mutex
	routes  map[routeKey]*route
	shunned map[sameness]time.Time
}

func newRouteTable() *routeTable {
	return &routeTable{routes: make(map[routeKey]*route), shunned: make(map[sameness]time.Time)}
}

// route finds the ways of an item, from memory while that is fresh.
func (d *Deliverer) route(ctx context.Context, it *queue.Item) (*route, error) {
	k := routeKey{it.Tenant, it.Destination, it.Domain}
	now := time.Now()
	if r := d.known.get(k, now); r != nil {
		return r, nil
	}
	pool := d.poolOf(it.Tenant)
	candidates, err := d.routes.Candidates(ctx, it.Tenant, it.Destination, it.Domain, d.hostname(it.Region), netip.Addr{})
	if err != nil {
		return nil, err
	}
	r := &route{until: now.Add(routeAge)}
	for _, c := range candidates {
		if pool.dress(&c, it.Tenant) {
			r.ways = append(r.ways, newWay(c))
		}
	}
	if len(r.ways) == 0 && len(candidates) > 0 {
		return nil, pool.noSource(candidates[0].Host)
	}
	if len(r.ways) == 0 {
		return nil, fault.New(fault.Later, "deliver.route", "no host to deliver to")
	}
	d.known.put(k, r)
	return r, nil
}

func (t *routeTable) get(k routeKey, now time.Time) *route {
	t.mu.Lock()
	defer t.mu.Unlock()
	if r := t.routes[k]; r != nil && now.Before(r.until) {
		return r
	}
	return nil
}

func (t *routeTable) put(k routeKey, r *route) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.routes) >= maxRoutes {
		clear(t.routes) // they are worth five seconds each: no bookkeeping pays
	}
	t.routes[k] = r
}

// has reports whether a connection that was opened by one way serves a route.
func (r *route) has(s sameness) bool {
	for i := range r.ways {
		if r.ways[i].sameness == s {
			return true
		}
	}
	return false
}

// order gives a route's ways as they are to be tried: those that failed lately
// come last, which is how the one that works is remembered without defeating
// the shares among equals. When the time of such a one is over, one attempt
// tries it in its old place and the others go on as before.
func (t *routeTable) order(r *route, now time.Time) []way {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.shunned) == 0 {
		return r.ways[:min(len(r.ways), maxTries)]
	}
	first := make([]way, 0, len(r.ways))
	var last []way
	for _, w := range r.ways {
		k := shunKey(w.sameness)
		until, failed := t.shunned[k]
		if failed && now.Before(until) {
			last = append(last, w)
			continue
		}
		if failed {
			t.shunned[k] = now.Add(shunAge)
		}
		first = append(first, w)
	}
	all := append(first, last...)
	return all[:min(len(all), maxTries)]
}

// failed and worked note how a way went.
func (t *routeTable) failed(s sameness, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.shunned) >= maxRoutes {
		clear(t.shunned)
	}
	t.shunned[shunKey(s)] = now.Add(shunAge)
}

func (t *routeTable) worked(s sameness) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.shunned) > 0 {
		delete(t.shunned, shunKey(s))
	}
}

// shunKey leaves the tenant out for hosts of the internet: what one tenant's
// mail met there, the next one's will meet too.
func shunKey(s sameness) sameness {
	if s.connection == "" {
		s.tenant = ""
	}
	return s
}
