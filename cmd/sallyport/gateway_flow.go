package main

import (
	"context"
	"strings"
	"time"

	"github.com/sallyport-mail/sallyport/internal/connection"
	"github.com/sallyport-mail/sallyport/internal/trace"
)

// flow measures a tenant's mail over one connection between two moments, from
// its traces: what the partner refused because of who we are, and how long the
// mail that came meanwhile took to be delivered.
func (g *gateway) flow(ctx context.Context, tenant, name string, from, to time.Time) (connection.Flow, error) {
	c, _ := g.connections.Get(tenant, name)
	f := connection.Flow{}
	err := g.trace.Steps(ctx, tenant, from.Add(-flowMargin), func(m trace.Message, steps []trace.Step) {
		var worst time.Duration
		for _, s := range steps {
			if s.Time.Before(from) || s.Time.After(to) || s.Peer == nil || !isPeer(c, *s.Peer) {
				continue
			}
			switch {
			case s.Step == "delivered" && !m.ReceivedAt.Before(from):
				worst = max(worst, s.Time.Sub(m.ReceivedAt))
			case s.Step == "failed" && aboutUs(s):
				f.Refused++
			case s.Step == "deferred" || s.Step == "attempt":
				worst = max(worst, s.Time.Sub(m.ReceivedAt))
			}
		}
		f.DelayedMax = max(f.DelayedMax, worst)
	})
	return f, err
}

// flowMargin is how long before a change mail may have come that was delivered
// in it.
const flowMargin = 5 * time.Minute

// isPeer reports a peer of one of a connection's hosts, as deliver names it:
// "host [address]:port", or the address alone.
func isPeer(c connection.Connection, peer string) bool {
	for _, h := range c.Hosts {
		if strings.HasPrefix(peer, h.Host) || strings.HasPrefix(peer, "["+h.Host) {
			return true
		}
	}
	return c.MX
}

// aboutUs reports a refusal of security or policy (RFC 3463, X.7).
func aboutUs(s trace.Step) bool { return s.Enhanced != nil && strings.HasPrefix(*s.Enhanced, "5.7.") }
