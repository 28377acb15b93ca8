package main

import (
	"context"
	"strings"
	"time"
)

// keeperLook is how often it is looked whether a keeper is away.
const keeperLook = time.Second

// resumeAfterKeepers resumes, when a keeper is back or thawed, the routes that
// went down because of it: they need not wait for their next probe, which may be
// half an hour off. One that freezes while it runs is not seen to; what went
// down then has its probes.
func (g *gateway) resumeAfterKeepers(ctx context.Context) error {
	away := map[string]bool{}
	tick := time.NewTicker(keeperLook)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		for _, region := range g.cfg.Regions {
			if g.custody.asleep(region) {
				continue
			}
			was, seen := away[region]
			was = was || !seen // what an earlier process left down
			if away[region] = !g.keeperAnswers(ctx, region) || was && g.keeperFrozen(ctx, region); was && !away[region] {
				g.log.Info("a keeper acts", "region", region)
				g.resumeRegion(ctx, region)
			}
		}
	}
}

func (g *gateway) keeperAnswers(ctx context.Context, region string) bool {
	r, err := g.custody.Region(region)
	if err != nil {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, keeperLook)
	defer cancel()
	return r.Reachable(ctx)
}

// keeperFrozen is asked for only while a keeper was away: the answer costs it
// more than being reached.
func (g *gateway) keeperFrozen(ctx context.Context, region string) bool {
	r, err := g.custody.Region(region)
	if err != nil {
		return true
	}
	ctx, cancel := context.WithTimeout(ctx, keeperLook)
	defer cancel()
	s, err := r.Status(ctx)
	return err != nil || s.Frozen != ""
}

// resumeRegion resumes the destinations of a region's tenants that are down
// for a reason that names the keeper.
func (g *gateway) resumeRegion(ctx context.Context, region string) {
	all, err := g.queue.Destinations(ctx, "")
	if err != nil {
		g.log.Warn("routes were not resumed after the keeper came back", "region", region, "error", err)
		return
	}
	for _, d := range all {
		name, _, _ := strings.Cut(strings.TrimPrefix(d.Key, "t:"), ":")
		if of, ok := g.tenants.RegionOf(name); d.State == "up" || !ok || of != region || !strings.Contains(d.Reason, "keeper") {
			continue
		}
		if err := g.queue.Resume(ctx, "system", d.Key); err != nil {
			g.log.Warn("a route was not resumed after the keeper came back", "destination", d.Key, "error", err)
		}
	}
}

// resumeChanged resumes the destination of a connection whose identities have
// changed: it may be stopped because the partner refused the one before, and a
// replacement ends when the next one was taken.
func (g *gateway) resumeChanged(ctx context.Context, tenant, name string) {
	all, err := g.queue.Destinations(ctx, "")
	if err != nil {
		g.log.Warn("a route was not resumed after a change of its identities", "tenant", tenant, "connection", name, "error", err)
		return
	}
	for _, d := range all {
		if d.State == "up" || d.Key != "t:"+tenant+":"+name {
			continue
		}
		if err := g.queue.Resume(ctx, "system", d.Key); err != nil {
			g.log.Warn("a route was not resumed after a change of its identities", "destination", d.Key, "error", err)
		}
	}
}
