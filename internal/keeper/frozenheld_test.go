package keeper

import (
	"testing"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/keeper/act"
	"github.com/sallyport-mail/sallyport/internal/keeper/operator"
)

// A keeper that is frozen while it runs stops its own work, and is after a thaw
// as after a start: what came meanwhile is taken in, what was asked of an issuer
// is asked again, spares are made.
func TestFrozenWhileItRuns(t *testing.T) {
	s := newStaff(t)
	f := &fakeIssuer{fail: fault.New(fault.Later, "acme", "the CA is away")}
	r := newRig(t, s.known, func(c *Config) { c.Issuers, c.Pool = []Issuer{f}, 1 })
	f.authority = &r.authority
	r.boundAll(t, "acme")
	spares := func() int64 {
		n, err := r.spares(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	until(t, "a key is made ahead", func() bool { return spares() == 1 })
	own := r.to(t, r.issued(t, "acme", ofClient, 0), act.Active)
	wanted, err := r.IssueIdentity(t.Context(), someone(), act.Issue{Context: of("acme", ofClient), Issuer: "acme"})
	if err != nil {
		t.Fatal(err)
	}
	until(t, "the CA is asked", func() bool { return f.calls.Load() > 0 })

	for range 2 {
		r.freezeNow("a witness says so")
		until(t, "its work ends", func() bool { return !r.holding.Load() })
		r.atRest(t, "a witness says so")
		if err := r.shake(t, of("acme", ofClient), own.SHA256); !fault.Is(err, fault.Later) {
			t.Errorf("a handshake: %v", err)
		}
		r.edit(t, `DELETE FROM keeper_spare WHERE id <> ''`)
		p := p256(t)
		imported := r.pair(t, mx, p, time.Now().Add(-time.Hour), time.Now().Add(20*365*day))
		f.set(nil, false)
		if _, err := r.order(t, signOrder(t, operator.Thaw, "", map[string]string{"keep": "all"}, s.anna, s.bert)); err != nil {
			t.Fatal(err)
		}
		until(t, "it holds what it held", func() bool { return r.holding.Load() && r.shownBy(t, mx).Equal(imported) })
		until(t, "a key is made ahead", func() bool { return spares() == 1 })
		r.reached(t, wanted.ID, act.Issued)
		if err := r.shake(t, of("acme", ofClient), own.SHA256); err != nil {
			t.Errorf("a handshake after the thaw: %v", err)
		}
		if left := r.left(t); len(left) > 0 {
			t.Errorf("left to import: %q", left)
		}
	}
	r.end()
	r = r.again(t)
	if why := r.frozen.reason(); why != "" {
		t.Error(why)
	}
}

// What a thaw does not name is not shown any more, though it was a moment before
// the freeze.
func TestThawDropsWhatWasHeld(t *testing.T) {
	s := newStaff(t)
	r := newRig(t, s.known)
	r.boundAll(t, "acme")
	own := r.to(t, r.issued(t, "acme", ofClient, 0), act.Active)
	if err := r.shake(t, of("acme", ofClient), own.SHA256); err != nil {
		t.Fatal(err)
	}
	r.freezeNow("a witness says so")
	if _, err := r.order(t, signOrder(t, operator.Thaw, "", nil, s.anna, s.bert)); err != nil {
		t.Fatal(err)
	}
	if err := r.shake(t, of("acme", ofClient), own.SHA256); !fault.Is(err, fault.Denied) && !fault.Is(err, fault.Missing) {
		t.Errorf("%v", err)
	}
	until(t, "it holds", r.holding.Load)
	if i := r.to(t, r.issued(t, "acme", ofClient, own.Epoch+1), act.Active); i.State != act.Active {
		t.Errorf("%+v", i)
	}
}
