package keeper

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/keeper/act"
	"github.com/sallyport-mail/sallyport/internal/keeper/seal"
)

// The key of an identity that was made as a standby is sealed under a data key
// of its own, which a second KEK wraps: who has the region's KEK and all rows has
// what is in use, and not what follows it. It comes under the tenant's data key
// when it is taken into use.

// standbySealer is what a row says whose key is sealed there.
const standbySealer = "standby"

// standbyTenant is in whose name a tenant's standbys are sealed. A colon is in
// no tenant's name.
func standbyTenant(tenant string) string { return standbySealer + ":" + tenant }

// takesOut reports whether a row's key comes under the tenant's data key by a
// move.
func takesOut(r *identity, to act.IdentityState) bool { return r.sealer != "" && shown(to) }

const (
	standbyTime = 4 * time.Second  // an act waits for the KEK: less than who asks waits for the act
	standbyRest = 30 * time.Second // between two looks at a KEK that is away
	standbyLook = 5 * time.Minute  // and at one that is there
)

// standbys are under the second KEK. It may be away for long; nothing else
// waits for it.
type standbys struct {
	k *Keeper

	mu     sync.Mutex
	rest   time.Duration
	away   error     // why it can't be used, nil while it can
	looked time.Time // when that was found out
	told   time.Time // when people were
}

func (s *standbys) init(k *Keeper) { s.k, s.rest = k, standbyRest }

// configured reports whether there is a second KEK.
func (s *standbys) configured() bool { return len(s.k.c.StandbyKEKs) > 0 }

func (s *standbys) ring() ring { return standbyRing(s.k.c.StandbyKEKs) }

// twice refuses a KEK that is both: what it opened would open everything. A file
// that was not there at the start has its id later, so each use asks too.
func (s *standbys) twice() error {
	for _, a := range s.k.c.StandbyKEKs {
		for _, b := range s.k.c.KEKs {
			if id := a.ID(); id != "" && id == b.ID() {
				return fault.New(fault.Invalid, "keeper.Standby", "the KEK of standbys, "+id+", is the region's KEK too").
					WithHint("Give [kek_standby] another key, which whoever has the one does not have with it, or leave it out.")
			}
		}
	}
	return nil
}

// sealerOf is the data key that a row's key is sealed under.
func (k *Keeper) sealerOf(ctx context.Context, r *identity) (*seal.DataKey, error) {
	if r.sealer == "" {
		return k.seals.key(ctx, r.tenant)
	}
	return k.standbys.key(ctx, r.tenant)
}

// key opens the data key of a tenant's standbys for one act. It is not among the
// data keys that stay open: then whoever gets into the keeper's memory, where
// those in use are to be had, would find those of the next epoch beside them.
func (s *standbys) key(ctx context.Context, tenant string) (*seal.DataKey, error) {
	if err := s.lately(); err != nil {
		return nil, err
	}
	limit, cancel := context.WithTimeout(ctx, standbyTime)
	defer cancel()
	err := s.usable(limit)
	var dk *seal.DataKey
	if err == nil {
		dk, err = s.k.seals.unwrap(limit, s.ring(), standbyTenant(tenant))
	}
	switch {
	case err == nil:
		s.found(nil)
		return dk, nil
	case ctx.Err() != nil: // who asked has left
		return nil, err
	case limit.Err() != nil: // it hangs
		return nil, s.found(err)
	}
	// A service that the keeper's token may not use any more, and a wrong
	// passphrase, are told like a row that was edited: a KEK that does not wrap
	// either is away.
	if away := s.look(ctx); away != nil {
		return nil, away
	}
	return nil, err
}

// usable says what can be said of the KEK in force before it is used.
func (s *standbys) usable(ctx context.Context) error {
	if !s.configured() {
		return fault.New(fault.Later, "keeper.Standby", "this keeper was given none, and there are standbys under one").
			WithHint("Name it again as [kek_standby] of the keeper's settings. A replacement does not wait for it.")
	}
	// Nothing is wrapped by what has no name: a file that was not there yet.
	if s.k.c.StandbyKEKs[0].ID() == "" {
		if err := s.try(ctx); err != nil {
			return err
		}
	}
	return s.twice()
}

// try wraps nothing of worth.
func (s *standbys) try(ctx context.Context) error {
	_, err := s.k.c.StandbyKEKs[0].Wrap(ctx, seal.NewSecret(make([]byte, 32)), []byte("sallyport look at the kek of standbys"))
	return err
}

// takeOut opens the key of a row under the second KEK and seals it under the
// tenant's data key. The row is the caller's to change.
func (s *standbys) takeOut(ctx context.Context, r *identity) ([]byte, error) {
	next := *r
	next.sealer = ""
	from, err := r.place(s.k.c.Region, seal.PrivateKey)
	if err != nil {
		return nil, err
	}
	to, err := next.place(s.k.c.Region, seal.PrivateKey)
	if err != nil {
		return nil, err
	}
	apart, err := s.key(ctx, r.tenant)
	if err != nil {
		return nil, err
	}
	dk, err := s.k.seals.key(ctx, r.tenant)
	if err != nil {
		return nil, err
	}
	return moveSealed(apart, from, dk, to, r.handle)
}

// lately is why the KEK can't be used, where that was found out a moment ago:
// an act that can do without does not wait for it, nor do others behind it.
func (s *standbys) lately() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.away != nil && time.Since(s.looked) < s.rest {
		return s.away
	}
	return nil
}

// look finds out whether the KEK in force can be used.
func (s *standbys) look(ctx context.Context) error {
	limit, cancel := context.WithTimeout(ctx, standbyTime)
	defer cancel()
	err := s.usable(limit)
	if err == nil {
		err = s.try(limit)
	}
	if ctx.Err() != nil {
		return fault.Wrap(fault.Later, "keeper.Standby", ctx.Err()) // who asked has left: nothing was learnt
	}
	return s.found(err)
}

// found notes how the KEK is, and tells people when it went, each day that it
// stays away, and when it is back.
func (s *standbys) found(err error) error {
	var away error
	if err != nil {
		away = (&fault.Error{Kind: fault.Later, Op: "keeper.Standby",
			Err: errors.New("the KEK of standbys is away: " + fault.Sentence(err))}).WithHint(fault.HintOf(err))
	}
	now := time.Now()
	s.mu.Lock()
	was := s.away
	s.away, s.looked = away, now
	tell := away != nil && (was == nil || now.Sub(s.told) >= day)
	if tell {
		s.told = now
	}
	s.mu.Unlock()
	if tell {
		s.k.alarm(alarmStandby, "", fault.Sentence(away)+". Standbys are neither made nor used until it is back; a replacement gets a new identity instead")
	}
	if was != nil && away == nil {
		s.k.c.Log.Info("keeper: the KEK of standbys is back")
	}
	return away
}

// reason is "", or why it can't be used.
func (s *standbys) reason() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.away == nil {
		return ""
	}
	return fault.Sentence(s.away)
}

// run looks at the KEK until ctx ends, so that people know before it is needed.
func (s *standbys) run(ctx context.Context) {
	if !s.configured() {
		return
	}
	for {
		rest, due := s.due()
		if due {
			_ = s.look(ctx) // it is noted
		}
		if !sleep(ctx, rest) {
			return
		}
	}
}

// due reports whether it is time for a look, and how long to wait for the next
// thought of it.
func (s *standbys) due() (rest time.Duration, due bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rest, s.away != nil || s.looked.IsZero() || time.Since(s.looked) >= standbyLook
}
