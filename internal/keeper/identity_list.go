package keeper

import (
	"context"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/keeper/act"
	"github.com/sallyport-mail/sallyport/internal/keeper/wire"
	"github.com/sallyport-mail/sallyport/internal/store"
)

const (
	maxPage      = 200
	maxPageBytes = 400 << 10 // of chains as PEM: the client reads at most 1 MB
)

// ListIdentities lists identities in the order of their places. Decoys look
// like all others. A frozen keeper lists them too: whoever thaws it has to say
// which are kept.
func (k *Keeper) ListIdentities(ctx context.Context, p wire.Peer, q act.IdentityQuery) (act.IdentityList, error) {
	return carryOut(ctx, k, task{peer: p, name: act.ListIdentities, about: q.Context, subject: clip(q.Identity), frequent: true, whenFrozen: true},
		func(ctx context.Context) (act.IdentityList, error) { return k.list(ctx, q) })
}

func (k *Keeper) list(ctx context.Context, q act.IdentityQuery) (act.IdentityList, error) {
	if err := ours(q.Context); err != nil {
		return act.IdentityList{}, err
	}
	if q.Limit < 0 || q.Limit > maxPage {
		return act.IdentityList{}, fault.New(fault.Invalid, "keeper.List", "a page has 1 to 200 identities").WithHint("Leave the limit out.")
	}
	if q.Limit == 0 {
		q.Limit = maxPage
	}
	if q.Identity != "" {
		return k.listOne(ctx, q)
	}
	after, err := k.after(ctx, q.After)
	if err != nil {
		return act.IdentityList{}, err
	}
	all, err := k.page(ctx, q, after)
	if err != nil {
		return act.IdentityList{}, err
	}
	return cut(all, q.Limit), nil
}

// listOne is the one of an id, or none.
func (k *Keeper) listOne(ctx context.Context, q act.IdentityQuery) (act.IdentityList, error) {
	got := act.IdentityList{Identities: []act.Identity{}}
	r, err := k.row(ctx, selectByID, q.Identity)
	if fault.Is(err, fault.Missing) {
		return got, nil
	}
	if err == nil && (q.Tenant == "" || q.Tenant == r.tenant) && (q.Connection == "" || q.Connection == r.connection) {
		got.Identities = append(got.Identities, r.told())
	}
	return got, err
}

// after is the row that a page begins after; the id tells its place.
func (k *Keeper) after(ctx context.Context, id string) (*identity, error) {
	if id == "" {
		return &identity{}, nil
	}
	r, err := k.row(ctx, selectByID, id)
	if fault.Is(err, fault.Missing) {
		return nil, fault.New(fault.Invalid, "keeper.List", "a page begins after an identity that there is not").WithHint("Hand in what the page before gave as next.")
	}
	return r, err
}

// page reads one more than is asked for, to know whether there is a next one.
func (k *Keeper) page(ctx context.Context, q act.IdentityQuery, r *identity) ([]*identity, error) {
	args := []any{r.tenant, r.connection, r.purpose, int64(r.epoch), r.id, q.Limit + 1}
	tenant := q.Tenant
	if tenant == "" && q.Connection != "" {
		tenant = hostsTenant // what has no tenant is of our hosts
	}
	switch {
	case q.Connection != "":
		return k.rows(ctx, selectPageOfConnection, append(args, tenant, q.Connection)...)
	case tenant != "":
		return k.rows(ctx, selectPageOfTenant, append(args, tenant)...)
	}
	return k.rows(ctx, selectPageOfAll, args...)
}

// cut makes a page of bearable size.
func cut(all []*identity, limit int) act.IdentityList {
	got := act.IdentityList{Identities: []act.Identity{}}
	size := 0
	for i, r := range all {
		size += len(r.chain)
		if i == limit || i > 0 && size > maxPageBytes {
			got.Next = all[i-1].id
			return got
		}
		got.Identities = append(got.Identities, r.told())
	}
	return got
}

// accepted counts those that may be shown, for Status.
func (k *Keeper) accepted(ctx context.Context) (n int64, err error) {
	err = k.door.QueryRow(ctx, countShown).Scan(&n)
	return n, store.Fault("keeper.Identities", err)
}
