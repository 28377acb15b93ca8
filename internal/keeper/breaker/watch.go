package breaker

import (
	"sync"
	"time"

	"github.com/sallyport-mail/sallyport/internal/keeper/act"
)

// Rate is how often a connection can plausibly need an act: so many a minute,
// and as many at once.
type Rate struct {
	PerMinute int
	Burst     int
}

// Rates are those of the house. A handshake is one for each connection that
// is opened; an app's token lives an hour; people sign orders one by one. A
// change of a connection with two identities issues two and two standbys, moves
// six and has Entra shown two proofs: of ten changes in a row, one of which
// undoes the other, nobody need hear.
func Rates() map[act.Name]Rate {
	return map[act.Name]Rate{
		act.HandshakeAsTenant: {PerMinute: 600, Burst: 600},
		act.TenantCertificate: {PerMinute: 600, Burst: 600},
		act.AssertClient:      {PerMinute: 6, Burst: 20},
		act.ProvePossession:   {PerMinute: 2, Burst: 20},
		act.IssueIdentity:     {PerMinute: 2, Burst: 40},
		act.OpenCredential:    {PerMinute: 60, Burst: 120},
		act.SetCredential:     {PerMinute: 6, Burst: 20},
		act.RemoveCredential:  {PerMinute: 2, Burst: 10},
		act.BindConnection:    {PerMinute: 2, Burst: 10},
		act.ReleaseConnection: {PerMinute: 2, Burst: 10},
		act.MoveIdentity:      {PerMinute: 6, Burst: 60},
		act.Order:             {PerMinute: 10, Burst: 60}, // of the whole region
	}
}

// Watch tells when one asks for more. It refuses nothing: it is an alarm.
type Watch struct {
	rates map[act.Name]Rate
	now   func() time.Time

	mu    sync.Mutex
	asked map[watched]*tank
}

type watched struct {
	name               act.Name
	tenant, connection string
}

// tank is filled at the rate and emptied by acts.
type tank struct {
	level float64
	at    time.Time
	told  time.Time
}

// maxWatched bounds the memory; every connection of a region has a few.
const maxWatched = 200_000

// NewWatch makes a watch; rates nil means Rates().
func NewWatch(rates map[act.Name]Rate, now func() time.Time) *Watch {
	if rates == nil {
		rates = Rates()
	}
	if now == nil {
		now = time.Now
	}
	return &Watch{rates: rates, now: now, asked: map[watched]*tank{}}
}

// Note counts an act and reports whether an alarm is due: more than plausible,
// and not told within the last minute.
func (w *Watch) Note(name act.Name, tenant, connection string) (alarm bool) {
	r, ok := w.rates[name]
	if !ok {
		return false
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	now := w.now()
	key := watched{name, tenant, connection}
	t := w.asked[key]
	if t == nil {
		w.makeRoom(now)
		t = &tank{level: float64(r.Burst), at: now}
		w.asked[key] = t
	}
	t.fill(r, now)
	if t.level >= 1 {
		t.level--
		return false
	}
	if age := now.Sub(t.told); !t.told.IsZero() && age >= 0 && age < time.Minute {
		return false
	}
	t.told = now
	return true
}

func (t *tank) fill(r Rate, now time.Time) {
	if gone := now.Sub(t.at); gone > 0 {
		t.level = min(float64(r.Burst), t.level+gone.Minutes()*float64(r.PerMinute))
	}
	t.at = now // also of a clock that went back: it fills on from there
}

// makeRoom forgets those that are full again, and when there are none, all.
func (w *Watch) makeRoom(now time.Time) {
	if len(w.asked) < maxWatched {
		return
	}
	for key, t := range w.asked {
		r := w.rates[key.name]
		t.fill(r, now)
		if t.level >= float64(r.Burst) {
			delete(w.asked, key)
		}
	}
	if len(w.asked) >= maxWatched {
		clear(w.asked)
	}
}
