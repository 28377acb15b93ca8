package keeper

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/keeper/act"
	"github.com/sallyport-mail/sallyport/internal/ledger"
)

// Kinds of alarms.
const (
	alarmRate    = "rate"
	alarmRefused = "refused"
	alarmDecoy   = "decoy"
	alarmBreaker = "breaker"
	alarmIssuer  = "issuer"
	alarmFrozen  = "frozen"
	alarmWitness = "witness"

	alarmDisk     = "disk"
	alarmRotation = "rotation"
	alarmImport   = "import"
	alarmRenewal  = "renewal"
	alarmStandby  = "standby" // the KEK of standbys is away
)

const (
	// mostAlarms are kept in memory; all that were told are in the ledger.
	mostAlarms = 100
	// mostOfKind are told one by one in a minute: whoever raises them names
	// tenants as he likes.
	mostOfKind = 30
	// alarmEvery bounds what a flood of the same enters: kind and tenant once a
	// minute.
	alarmEvery = time.Minute
	alarmAct   = "alarm"
)

// alarms are the last that were raised.
type alarms struct {
	mu    sync.Mutex
	list  []act.Alarm // oldest first
	told  map[string]time.Time
	kinds map[string]kindTold
}

// kindTold is how many of a kind were told since a moment.
type kindTold struct {
	since time.Time
	n     int
}

// alarm tells people: in the log, in the ledger, and in Status. It does not
// wait: whoever raises one is in the middle of an act.
func (k *Keeper) alarm(kind, tenant, text string) {
	a, due := k.alarms.raise(act.Alarm{At: k.now(), Kind: kind, Tenant: cleanName(tenant), Text: clipTo(text, maxOutcome)})
	if !due {
		k.c.Log.Debug("keeper: alarm, repeated", "kind", kind, "tenant", tenant, "text", text)
		return
	}
	k.c.Log.Warn("keeper: alarm", "kind", kind, "tenant", a.Tenant, "text", a.Text)
	k.out.add(ledger.Entry{Time: a.At, Source: ledger.Witnessed, Actor: "keeper", Act: alarmAct, Tenant: a.Tenant, Subject: a.Text, Purpose: kind})
}

// raise keeps an alarm, if it is due. In the place of one too many of its kind
// comes one that says so.
func (a *alarms) raise(one act.Alarm) (act.Alarm, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.told == nil || len(a.told) > 10*mostAlarms {
		a.told = map[string]time.Time{}
	}
	if a.kinds == nil {
		a.kinds = map[string]kindTold{}
	}
	key := one.Kind + " " + one.Tenant
	if last, known := a.told[key]; known && one.At.Sub(last) < alarmEvery && !one.At.Before(last) {
		return one, false
	}
	of := a.kinds[one.Kind]
	if age := one.At.Sub(of.since); age >= alarmEvery || age < 0 {
		of = kindTold{since: one.At}
	}
	of.n++
	a.kinds[one.Kind] = of
	switch {
	case of.n == mostOfKind+1:
		one.Tenant, one.Text = "", "there are more alarms of this kind than are told one by one; the last was: "+clipTo(one.Text, maxOutcome-100)
	case of.n > mostOfKind:
		return one, false
	default:
		a.told[key] = one.At
	}
	a.keep(one)
	return one, true
}

// keep makes room by the oldest of the kind that there are most of, so that a
// flood of one kind pushes no other out.
func (a *alarms) keep(one act.Alarm) {
	a.list = append(a.list, one)
	if len(a.list) <= mostAlarms {
		return
	}
	n := map[string]int{}
	for _, x := range a.list {
		n[x.Kind]++
	}
	most := one.Kind
	for _, x := range a.list {
		if n[x.Kind] > n[most] {
			most = x.Kind
		}
	}
	i := slices.IndexFunc(a.list, func(x act.Alarm) bool { return x.Kind == most })
	a.list = slices.Delete(a.list, i, i+1)
}

const (
	recalled     = 24 * time.Hour // how far back a start looks for alarms
	recalledFrom = 1 << 16        // entries, the newest
)

// recallAlarms finds what was raised before the keeper was started, so that a
// gateway that was away meanwhile still hears of it.
func (k *Keeper) recallAlarms(ctx context.Context) error {
	if k.ledger == nil {
		return nil
	}
	f := ledger.Filter{Act: alarmAct, Actor: "keeper", Since: k.now().Add(-recalled), From: max(0, k.ledger.Size()-recalledFrom)}
	for {
		found, err := k.ledger.Search(ctx, f)
		if fault.Is(err, fault.Conflict) { // an entry that was changed: verify names it
			k.c.Log.Warn("keeper: alarms of before the start could not be read", "error", err)
			return nil
		}
		if err != nil || len(found) == 0 {
			return err
		}
		for _, e := range found {
			if e.Source == ledger.Witnessed {
				k.alarms.keep(act.Alarm{At: e.Time, Kind: e.Purpose, Tenant: e.Tenant, Text: e.Subject})
			}
		}
		f.From = found[len(found)-1].Index + 1
	}
}

// recent are the alarms, newest first.
func (a *alarms) recent() []act.Alarm {
	a.mu.Lock()
	defer a.mu.Unlock()
	list := make([]act.Alarm, 0, len(a.list))
	for i := len(a.list) - 1; i >= 0; i-- {
		list = append(list, a.list[i])
	}
	return list
}
