package outbox

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/sallyport-mail/sallyport/internal/keeper/act"
	"github.com/sallyport-mail/sallyport/internal/store"
)

// Ledger enters events; a *client.Remote does.
type Ledger interface {
	EnterEvents(ctx context.Context, events []act.Event) error
}

// Config of the carrier.
type Config struct {
	Outbox store.Outbox
	// Regions in order; the first has what is of no tenant.
	Regions []string
	// RegionOf tells a tenant's region; false sends the event to the first.
	RegionOf func(tenant string) (string, bool)
	Ledger   func(region string) (Ledger, error)
	Log      *slog.Logger
}

// Carrier brings events to the ledgers.
type Carrier struct{ c Config }

// Bounds of one round. The keeper takes 500 events and 1 MB at a time.
const (
	batch     = 500
	look      = 250 * time.Millisecond // between two looks at an outbox that was empty
	pause     = time.Second            // after a keeper did not answer, doubled at each try
	pauseMost = 30 * time.Second
	longest   = 4 << 10 // bytes of a text; the ledger takes fewer, and the keeper says that it cut
	mostBytes = 512 << 10
)

// New makes a carrier; it carries while Run runs.
func New(c Config) *Carrier { return &Carrier{c: c} }

// Run carries until ctx ends.
func (c *Carrier) Run(ctx context.Context) error {
	var all sync.WaitGroup
	all.Go(func() { c.repeat(ctx, "", c.decide) })
	for _, region := range c.c.Regions {
		all.Go(func() { c.repeat(ctx, region, func(ctx context.Context) (bool, error) { return c.bring(ctx, region) }) })
	}
	all.Wait()
	return nil
}

// repeat does rounds: at once while there is more, else after a while.
func (c *Carrier) repeat(ctx context.Context, region string, round func(context.Context) (more bool, err error)) {
	wait := pause
	for ctx.Err() == nil {
		more, err := round(ctx)
		rest := look
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			c.c.Log.Warn("audit events wait for the ledger", "region", region, "error", err, "again_in", wait.String())
			rest, wait = wait, min(2*wait, pauseMost)
		case more:
			rest, wait = 0, pause
		default:
			wait = pause
		}
		if rest == 0 {
			continue
		}
		select {
		case <-ctx.Done():
		case <-time.After(rest):
		}
	}
}

// decide gives the newest events their regions.
func (c *Carrier) decide(ctx context.Context) (more bool, err error) {
	events, err := c.c.Outbox.Of(ctx, "", batch)
	if err != nil || len(events) == 0 {
		return false, err
	}
	regions := make([]string, len(events))
	for i, e := range events {
		regions[i] = c.regionOf(e.Tenant)
	}
	return len(events) == batch, c.c.Outbox.Assign(ctx, events, regions)
}

func (c *Carrier) regionOf(tenant string) string {
	if tenant != "" {
		if region, ok := c.c.RegionOf(tenant); ok && slices.Contains(c.c.Regions, region) {
			return region
		}
	}
	return c.c.Regions[0]
}

// bring enters the oldest events of a region, then removes them.
func (c *Carrier) bring(ctx context.Context, region string) (more bool, err error) {
	events, err := c.c.Outbox.Of(ctx, region, batch)
	if err != nil || len(events) == 0 {
		return false, err
	}
	to, err := c.c.Ledger(region)
	if err != nil {
		return false, err
	}
	asked := fitting(events)
	if err := to.EnterEvents(ctx, asked); err != nil {
		return false, err
	}
	return len(events) == batch || len(asked) < len(events), c.c.Outbox.Done(ctx, region, events[:len(asked)])
}

// fitting are the first of the events, as many as one request takes.
func fitting(events []store.Waiting) []act.Event {
	var out []act.Event
	size := 0
	for _, w := range events {
		e := entryOf(w)
		size += 200 + 6*(len(e.Actor)+len(e.Act)+len(e.Tenant)+len(e.Connection)+len(e.Subject)+len(e.Purpose)+len(e.Outcome)) // as \u00xx at worst
		if size > mostBytes && len(out) > 0 {
			break
		}
		out = append(out, e)
	}
	return out
}

// entryOf is an event as it is brought. What the ledger does not take as it is,
// the keeper cleans, and says so in the entry.
func entryOf(w store.Waiting) act.Event {
	return act.Event{
		Key: w.Key(), Time: inRange(w.Time), Actor: clip(w.Actor), Act: clip(w.Act), Tenant: clip(w.Tenant), Connection: clip(w.Connection),
		Subject: clip(w.Subject), Purpose: clip(w.Purpose), Outcome: clip(w.Outcome),
	}
}

// clip bounds a text, between two characters, so that a request has bounds.
func clip(s string) string {
	if len(s) <= longest {
		return s
	}
	end := longest
	for end > 0 && !utf8.RuneStart(s[end]) {
		end--
	}
	return s[:end]
}

// inRange is the time, if JSON has a year for it.
func inRange(t time.Time) time.Time {
	if y := t.UTC().Year(); y < 1970 || y > 9999 {
		return time.Unix(0, 0).UTC()
	}
	return t
}
