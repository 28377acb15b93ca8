package keeper

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/sallyport-mail/sallyport/internal/keeper/wire"
	"github.com/sallyport-mail/sallyport/internal/ledger"
)

const (
	maxRefusals   = 1024 // that wait, and different ones a minute
	refusalsEvery = time.Minute
	// Tenants that are told apart of what one peer asks for: whoever asks in the
	// name of each customer has one entry for the others, and one alarm.
	maxRefusedTenants = 16
)

// refusals sums up the requests that came no further than the wire: whoever
// sends thousands of them must not write the log full.
type refusals struct {
	k     *Keeper
	queue chan wire.Refusal
	lost  atomic.Int64
}

// refusalKey is what is summed up; what else a refusal says is of the first.
type refusalKey struct {
	local               bool
	uid                 uint32
	certificate         string
	act, reason, tenant string
}

type refusalSum struct {
	entry ledger.Entry
	count int64
}

func (r *refusals) init(k *Keeper) { r.k, r.queue = k, make(chan wire.Refusal, maxRefusals) }

// Refused takes a refusal of wire's, and does not block.
func (k *Keeper) Refused(r wire.Refusal) {
	select {
	case k.refusals.queue <- r:
	default:
		k.refusals.lost.Add(1)
	}
}

// run enters sums each minute, and when ctx ends those that are left.
func (r *refusals) run(ctx context.Context) {
	sums := map[refusalKey]*refusalSum{}
	tick := time.NewTicker(refusalsEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			for len(r.queue) > 0 {
				r.sum(sums, <-r.queue)
			}
			r.write(sums)
			return
		case one := <-r.queue:
			r.sum(sums, one)
		case <-tick.C:
			r.write(sums)
		}
	}
}

func (r *refusals) sum(sums map[refusalKey]*refusalSum, one wire.Refusal) {
	key := refusalKey{one.Peer.Local, one.Peer.UID, one.Peer.Certificate, string(one.Act), one.Reason, one.Context.Tenant}
	if sums[key] == nil && key.tenant != "" && key.tenants(sums) >= maxRefusedTenants {
		key.tenant, one.Context.Tenant, one.Context.Connection = "", "", ""
	}
	have := sums[key]
	if have == nil && len(sums) >= maxRefusals {
		r.lost.Add(1)
		return
	}
	if have == nil {
		have = &refusalSum{entry: r.entry(one)}
		sums[key] = have
		r.k.alarm(alarmRefused, have.entry.Tenant, have.entry.Act+" by "+have.entry.Actor+" was refused: "+one.Reason)
	}
	have.count++
}

// tenants counts those of the same peer, act and reason.
func (k refusalKey) tenants(sums map[refusalKey]*refusalSum) int {
	n := 0
	for other := range sums {
		if other.tenant = k.tenant; other == k {
			n++
		}
	}
	return n
}

// entry is what the ledger is told. The names are a stranger's: they are made
// such as it takes.
func (r *refusals) entry(one wire.Refusal) ledger.Entry {
	e := ledger.Entry{
		Source: ledger.Witnessed, Actor: cleanName(one.Peer.String()), Act: cleanName(string(one.Act)),
		Tenant: cleanName(one.Context.Tenant), Connection: cleanName(one.Context.Connection), Purpose: clip(one.Context.Purpose),
		Trace: cleanName(one.Context.Trace), Outcome: clip(refused + one.Reason),
	}
	if e.Act == "" {
		e.Act = "connect"
	}
	return e
}

// write hands the sums to those outcomes that wait for a commit.
func (r *refusals) write(sums map[refusalKey]*refusalSum) {
	for _, s := range sums {
		s.entry.Count = s.count
		r.k.out.add(s.entry)
	}
	clear(sums)
	if n := r.lost.Swap(0); n > 0 {
		r.k.out.add(ledger.Entry{Source: ledger.Witnessed, Actor: "keeper", Act: "refused", Count: n, Outcome: "refused: more requests than are told apart"})
	}
}
