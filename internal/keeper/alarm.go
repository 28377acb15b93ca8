package keeper

import (
	"context"
	"sync"
	"time"

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

	alarmRotation = "rotation"
	alarmImport   = "import"
	alarmRenewal  = "renewal"
	alarmStandby  = "standby" // the KEK of standbys is away
)

// mostAlarms are kept in memory; all of them are in the ledger.
const mostAlarms = 100

// alarms are the last that were raised.
type alarms struct {
	mu   sync.Mutex
	list []act.Alarm // oldest first
	told map[string]time.Time
}

// alarmEvery bounds what a flood of the same enters: kind and tenant once a
// minute.
const alarmEvery = time.Minute

// alarm tells people: in the log, in the ledger, and in Status.
func (k *Keeper) alarm(kind, tenant, text string) {
	now := k.now()
	a := &k.alarms
	a.mu.Lock()
	if a.told == nil || len(a.told) > 10*mostAlarms {
		a.told = map[string]time.Time{}
	}
	key := kind + " " + tenant
	last, known := a.told[key]
	again := known && now.Sub(last) < alarmEvery && !now.Before(last)
	if !again {
		a.told[key] = now
		a.list = append(a.list, act.Alarm{At: now, Kind: kind, Tenant: tenant, Text: text})
		a.list = a.list[max(0, len(a.list)-mostAlarms):]
	}
	a.mu.Unlock()
	k.c.Log.Warn("keeper: alarm", "kind", kind, "tenant", tenant, "text", text, "repeated", again)
	if again {
		return
	}
	// By its own hand: whoever raised it is in the middle of an act.
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), outcomeTime)
		defer cancel()
		if err := k.enter(ctx, ledger.Entry{Act: "alarm", Tenant: tenant, Subject: clip(text), Purpose: kind}); err != nil {
			k.c.Log.Error("keeper: an alarm was not entered", "kind", kind, "error", err)
		}
	}()
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
