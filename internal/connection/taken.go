package connection

import (
	"context"
	"fmt"
	"slices"

	"github.com/sallyport-mail/sallyport/internal/keeper/act"
)

// taken counts what partners made of the certificates that are for the same
// purposes: public CAs give up clientAuth, and which partner insists on it is
// found out one by one.
type taken struct{ ok, failing, untried int }

// Purposes says, by the purposes of the certificates that connections show now,
// how their partners took them when they were last tried; in words, in order.
func (r *Registry) Purposes(ctx context.Context) ([]string, error) {
	const op = "connection.Purposes"
	from, err := r.keepers(op)
	if err != nil {
		return nil, err
	}
	by := map[string]*taken{}
	for _, k := range from {
		list, err := k.ListIdentities(ctx, "", "")
		if err != nil {
			return nil, wrap(op, err)
		}
		for _, i := range list {
			r.countTaken(by, i)
		}
	}
	var words []string
	for purposes, t := range by {
		words = append(words, fmt.Sprintf("for %s: %d taken, %d failing, %d not tried yet", purposes, t.ok, t.failing, t.untried))
	}
	slices.Sort(words)
	return words, nil
}

func (r *Registry) countTaken(by map[string]*taken, i act.Identity) {
	if i.Purpose != PurposeClient || i.State != act.Active || len(i.Chain) == 0 {
		return
	}
	c, there := r.Get(i.Tenant, i.Connection)
	if !there {
		return
	}
	purposes := usages(i.Chain)
	t := by[purposes]
	if t == nil {
		t = &taken{}
		by[purposes] = t
	}
	switch {
	case c.Health.OK == nil:
		t.untried++
	case *c.Health.OK:
		t.ok++
	default:
		t.failing++
	}
}
