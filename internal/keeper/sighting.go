package keeper

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/keeper/act"
	"github.com/sallyport-mail/sallyport/internal/keeper/seal"
	"github.com/sallyport-mail/sallyport/internal/keeper/wire"
)

// tripwire is what a report code says, under seal: which decoy it is of. Who
// holds a code can report a use, and can learn nothing from it.
type tripwire struct {
	Tenant     string `json:"tenant"`
	Connection string `json:"connection"`
}

// sightingEvery bounds what the holder of a code can write into the ledger: a
// decoy's use is entered once a minute.
const sightingEvery = time.Minute

// sightings are when each decoy was last reported.
type sightings struct {
	mu   sync.Mutex
	last map[tripwire]time.Time
}

// due reports whether a sighting is to be entered.
func (s *sightings) due(w tripwire, now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	last, known := s.last[w]
	if known && now.Sub(last) < sightingEvery && !now.Before(last) {
		return false
	}
	if s.last == nil {
		s.last = map[tripwire]time.Time{}
	}
	s.last[w] = now // one for each decoy there was, and these are few
	return true
}

// failed forgets a sighting that was not entered: the partner tells it again.
func (s *sightings) failed(w tripwire) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.last, w)
}

func (k *Keeper) tripwirePlace() seal.Place {
	return seal.Place{Region: k.c.Region, Tenant: authorityTenant, Purpose: purposeSighting, Kind: seal.Token}
}

const purposeSighting = "sighting"

// reportCode is what a decoy's partner reports its use with. It needs no row:
// the code is the record, sealed.
func (k *Keeper) reportCode(ctx context.Context, w tripwire) (string, error) {
	dk, err := k.seals.key(ctx, authorityTenant)
	if err != nil {
		return "", err
	}
	plain, err := json.Marshal(w)
	if err != nil {
		return "", fault.Wrap(fault.Internal, "keeper.ReportCode", err)
	}
	blob, err := dk.Seal(k.tripwirePlace(), seal.NewSecret(plain))
	return k.c.Region + "." + encode(blob), err
}

// readCode is the other way round. Everything that is no code of this region
// is missing, in the same words.
func (k *Keeper) readCode(ctx context.Context, code string) (tripwire, error) {
	var w tripwire
	text, ours := strings.CutPrefix(code, k.c.Region+".")
	blob, err := decode(text)
	if !ours || err != nil {
		return w, noCode()
	}
	dk, err := k.seals.key(ctx, authorityTenant)
	if err != nil {
		return w, err
	}
	plain, err := dk.Open(k.tripwirePlace(), blob)
	if err != nil || json.Unmarshal(plain.Bytes(), &w) != nil {
		return w, noCode()
	}
	return w, nil
}

func noCode() error {
	return fault.New(fault.Missing, "keeper.ReportSighting", "no decoy has this report code").
		WithHint("Use the code that came with the decoy's order, whole: REGION.CODE. One whose decoy was released ends with it.")
}

// ReportSighting is of wire.Acts: a decoy's partner has seen it used. A code
// that is none is not entered, since anybody on the internet can send one.
func (k *Keeper) ReportSighting(ctx context.Context, p wire.Peer, q act.Sighting) (act.Done, error) {
	if err := k.readable("keeper.ReportSighting"); err != nil {
		return act.Done{}, err
	}
	w, err := k.readCode(ctx, q.Code)
	if err != nil {
		return act.Done{}, err
	}
	decoys, err := k.decoysOf(ctx, w.Tenant, w.Connection)
	if err != nil {
		return act.Done{}, err
	}
	if decoys == 0 {
		return act.Done{}, noCode()
	}
	if !k.sightings.due(w, k.now()) {
		k.c.Log.Warn("keeper: a decoy was seen again", "tenant", w.Tenant, "connection", w.Connection, "seen", seen(q))
		return act.Done{}, nil
	}
	about := act.Context{Region: k.c.Region, Tenant: w.Tenant, Connection: w.Connection, Purpose: purposeSighting, Trace: q.Trace}
	t := task{peer: p, name: act.ReportSighting, about: about, subject: clipTo(seen(q), maxOutcome), whenFrozen: true}
	done, err := carryOut(ctx, k, t, func(context.Context) (act.Done, error) {
		k.alarm(alarmDecoy, w.Tenant, "the decoy "+w.Tenant+"/"+w.Connection+" was used at its partner, "+seen(q)+": whoever did that has what was stolen from here")
		return act.Done{}, nil
	})
	if err != nil {
		k.sightings.failed(w)
	}
	return done, err
}

// seen is a report in words. Only what can do no harm in a terminal is taken of
// a stranger's text.
func seen(q act.Sighting) string {
	text := "at an unknown time"
	if y := q.At.Year(); !q.At.IsZero() && y >= 1970 && y <= 9999 {
		text = "at " + q.At.UTC().Format(time.RFC3339)
	}
	if from, err := netip.ParseAddr(q.From); err == nil {
		text += " from " + from.WithZone("").String()
	}
	if note := clipTo(cleanName(q.Note), maxNote); note != "" {
		text += " (" + note + ")"
	}
	return text
}

const maxNote = 200 // bytes

// encode writes a blob as one word of a URL, which decode reads in that form
// alone.
func encode(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

func decode(s string) ([]byte, error) { return base64.RawURLEncoding.Strict().DecodeString(s) }
