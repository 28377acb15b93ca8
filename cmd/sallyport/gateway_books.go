package main

import (
	"context"
	"encoding/json"
	"io"
	"slices"

	"github.com/sallyport-mail/sallyport/internal/api"
	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/keeper/act"
	"github.com/sallyport-mail/sallyport/internal/keeper/client"
	"github.com/sallyport-mail/sallyport/internal/keeper/operator"
)

// keepers finds the keeper of a region.
type keepers interface {
	Region(region string) (*client.Remote, error)
	Regions() []string
}

// books gives the API the ledgers that the keepers hold.
type books struct {
	keepers keepers
	order   []string // of regions, as the settings have it
}

// booksOf is nil where there is no keeper.
func booksOf(k keepers, regions []string) api.Books {
	if k == nil {
		return nil
	}
	return &books{keepers: k, order: regions}
}

// Regions are those of the settings that have a keeper, then any others.
func (b *books) Regions() []string {
	there := b.keepers.Regions()
	var all []string
	for _, r := range b.order {
		if slices.Contains(there, r) {
			all = append(all, r)
		}
	}
	for _, r := range there {
		if !slices.Contains(all, r) {
			all = append(all, r)
		}
	}
	return all
}

// searchStep is how many entries one request asks for: the keeper's answer has
// an end, 1 MB, and an entry may have some KB.
const searchStep = 200

// Search asks until there are enough, or no more: an answer may be short for
// its length.
func (b *books) Search(ctx context.Context, region string, q api.BookQuery) (all []json.RawMessage, next int64, err error) {
	k, err := b.keepers.Region(region)
	if err != nil {
		return nil, 0, err
	}
	for len(all) < q.Limit {
		some, err := k.SearchLedger(ctx, q.Tenant, q.Connection, act.Search{
			Act: q.Act, Actor: q.Actor, Of: q.Trace, Since: q.Since, Until: q.Until, From: q.From, Limit: min(searchStep, q.Limit-len(all)),
		})
		all = append(all, some.Entries...)
		if err != nil || some.Next == 0 {
			return all, 0, err
		}
		if some.Next <= q.From {
			return nil, 0, fault.New(fault.Internal, "books.Search", "the keeper's entries are not in the order of their indexes")
		}
		q.From = some.Next
	}
	return all, q.From, nil
}

func (b *books) Entry(ctx context.Context, region string, index int64) (json.RawMessage, error) {
	k, err := b.keepers.Region(region)
	if err != nil {
		return nil, err
	}
	return k.ShowEntry(ctx, index)
}

func (b *books) Proof(ctx context.Context, region string, index int64) (json.RawMessage, error) {
	k, err := b.keepers.Region(region)
	if err != nil {
		return nil, err
	}
	return k.ProveEntry(ctx, index)
}

func (b *books) Export(ctx context.Context, region string, w io.Writer) error {
	k, err := b.keepers.Region(region)
	if err != nil {
		return err
	}
	return k.ExportLedger(ctx, w)
}

func (b *books) Status(ctx context.Context, region string) (api.BookStatus, error) {
	k, err := b.keepers.Region(region)
	if err != nil {
		return api.BookStatus{}, err
	}
	s, err := k.Status(ctx)
	return api.BookStatus{State: s.Ledger, Keys: s.LedgerKeys, Frozen: s.Frozen, ForGood: s.ForGood}, err
}

// Order refuses what is said to the keeper alone, also from programs that are
// not this command line. What can't be read is left to the keeper to refuse.
func (b *books) Order(ctx context.Context, region string, order []byte) (api.Ordered, error) {
	if o, _, err := operator.Look(order); err == nil {
		if why := notByGateway(o); why != "" {
			return api.Ordered{}, fault.New(fault.Denied, "books.Order", why+", which the gateway is not to know: it was not passed on").
				WithHint("This gateway has seen it now. Sign another, of another connection or with another secret, and hand that to the keeper itself: " +
					"sallyport order submit FILE --socket PATH, on the keeper's host.")
		}
	}
	k, err := b.keepers.Region(region)
	if err != nil {
		return api.Ordered{}, err
	}
	return giveOrder(ctx, k, order)
}

// giveOrder hands an order to a keeper.
func giveOrder(ctx context.Context, k *client.Remote, order []byte) (api.Ordered, error) {
	got, err := k.Order(ctx, order)
	if err != nil {
		return api.Ordered{}, err
	}
	a := api.Ordered{Text: &got.Text}
	if got.Secret != "" {
		a.Secret = &got.Secret
	}
	if got.Report != "" {
		a.Report = &got.Report
	}
	return a, nil
}

func (b *books) ReportSighting(ctx context.Context, region string, s api.Sighting) error {
	k, err := b.keepers.Region(region)
	if err != nil {
		return err
	}
	return k.ReportSighting(ctx, act.Sighting{Code: s.Code, At: *s.At, From: s.From, Note: s.Note})
}
