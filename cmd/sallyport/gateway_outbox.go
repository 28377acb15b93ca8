package main

import (
	"context"

	"github.com/sallyport-mail/sallyport/internal/outbox"
)

// openOutbox makes what brings audit events to the ledgers.
func (g *gateway) openOutbox(context.Context) error {
	g.outbox = outbox.New(outbox.Config{
		Outbox: g.store.Outbox(), Regions: g.cfg.Regions, RegionOf: g.tenants.RegionOf, Log: g.log,
		Ledger: func(region string) (outbox.Ledger, error) { return g.custody.Region(region) },
	})
	return nil
}

// outboxWaiting is how many events are on their way; -1 when it is not known.
func (g *gateway) outboxWaiting(ctx context.Context) int64 {
	n, _, err := g.store.Outbox().Count(ctx)
	if err != nil {
		return -1
	}
	return n
}
