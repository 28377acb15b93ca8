package keeper

import (
	"context"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/sallyport-mail/sallyport/internal/store"
)

const (
	adviceEvery = 6 * time.Hour
	advicePage  = 100
	adviceTime  = 30 * time.Second // of one question
	mostEnding  = 100
)

// runAdvice asks the issuers that advise when to renew, every six hours and a
// tenth more or less, so that not all keepers ask at once.
func (k *Keeper) runAdvice(ctx context.Context) {
	for sleep(ctx, adviceEvery*9/10+rand.N(adviceEvery/5)) {
		k.askAdvice(ctx)
	}
}

func (k *Keeper) askAdvice(ctx context.Context) {
	for _, i := range k.others.all() {
		advisor, ok := i.(Advisor)
		if !ok {
			continue
		}
		if err := k.advise(ctx, i.Name(), advisor); err != nil && ctx.Err() == nil {
			k.c.Log.Warn("keeper: the issuer's advice was not kept", "issuer", i.Name(), "error", err)
		}
	}
}

// advise asks one issuer about each active identity of it.
func (k *Keeper) advise(ctx context.Context, issuer string, by Advisor) error {
	for after := ""; ; {
		page, err := k.adviceOf(ctx, issuer, after)
		if err != nil || len(page) == 0 {
			return err
		}
		for _, r := range page {
			after = r.id
			if err := k.adviseOne(ctx, by, r); err != nil {
				return err
			}
		}
	}
}

// adviceOf is a page of those to be asked about.
func (k *Keeper) adviceOf(ctx context.Context, issuer, after string) ([]identity, error) {
	rows, err := k.door.Query(ctx, selectAdvice, issuer, after, advicePage)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var page []identity
	for rows.Next() {
		var r identity
		if err := rows.Scan(&r.id, &r.chain); err != nil {
			return nil, store.Fault("keeper.Advice", err)
		}
		page = append(page, r)
	}
	return page, store.Fault("keeper.Advice", rows.Err())
}

// adviseOne keeps what the issuer says. That it says nothing is no failure of
// ours: the identity is renewed by its age then.
func (k *Keeper) adviseOne(ctx context.Context, by Advisor, r identity) error {
	asked, cancel := context.WithTimeout(ctx, adviceTime)
	defer cancel()
	at, explanation, err := by.Advice(asked, chainOf(r.chain))
	if err != nil {
		k.c.Log.Warn("keeper: no advice on an identity", "identity", r.id, "error", err)
		return ctx.Err()
	}
	announced := int64(0)
	if !at.IsZero() {
		announced = at.UnixMicro()
	}
	return k.door.Change(ctx, func(tx store.KeeperTx) error {
		_, err := tx.Exec(updateAdvice, announced, clip(explanation), r.id)
		return err
	})
}

// warnEnding raises an alarm, day by day, for what is active and has less than
// a fifth of its life left: it should have been renewed at a third.
func (k *Keeper) warnEnding(ctx context.Context) error {
	now := k.now()
	if now.Sub(k.warned) < day && !now.Before(k.warned) {
		return nil
	}
	k.warned = now
	rows, err := k.door.Query(ctx, selectEnding, now.Add(30*day).UnixMicro(), mostEnding)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var r identity
		if err := rows.Scan(&r.id, &r.tenant, &r.connection, &r.purpose, &r.name, &r.notBefore, &r.notAfter); err != nil {
			return store.Fault("keeper.Ending", err)
		}
		left := moment(r.notAfter).Sub(now)
		if left < moment(r.notAfter).Sub(moment(r.notBefore))/5 {
			k.alarm(alarmRenewal, r.tenant, "the identity "+r.id+" ("+r.name+") of "+r.connection+" ends in "+strconv.Itoa(int(max(left, 0)/day))+" days and was not renewed")
		}
	}
	return store.Fault("keeper.Ending", rows.Err())
}
