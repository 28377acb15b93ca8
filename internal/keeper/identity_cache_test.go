package keeper

import (
	"fmt"
	"testing"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/keeper/act"
)

// What was read before a change is not kept after it, and nothing is kept for
// longer than a minute or beyond a number.
func TestSigners(t *testing.T) {
	var s signers
	s.init()
	now := time.Now()
	one := func(i int) *known {
		return &known{identity: identity{tenant: fmt.Sprint("t", i), connection: "c", purpose: "p", sha256: fmt.Sprint(i), state: act.Active}, at: now}
	}
	_, epoch := s.get("1", now)
	s.drop("t1", "c")
	if s.keep(one(1), epoch); s.by["1"] != nil {
		t.Error("what was read before a change was kept after it")
	}
	first := s.keep(one(1), s.epoch)
	if got, _ := s.get("1", now.Add(time.Second)); got != first || s.keep(one(1), s.epoch) != first {
		t.Error("it was not kept")
	}
	for _, after := range []time.Duration{knownFresh, -time.Second} {
		s.keep(one(1), s.epoch)
		if got, _ := s.get("1", now.Add(after)); got != nil {
			t.Errorf("it is fresh after %v", after)
		}
	}
	if len(s.by)+len(s.of)+len(s.active) != 0 {
		t.Errorf("%d %d %d are left", len(s.by), len(s.of), len(s.active))
	}
	for i := range 2*mostKnown + 10 {
		s.keep(one(i), s.epoch)
	}
	if len(s.by) != 10 || len(s.of) != 10 || len(s.active) != 10 {
		t.Errorf("%d %d %d are kept", len(s.by), len(s.of), len(s.active))
	}
	s.drop(fmt.Sprint("t", 2*mostKnown+3), "c")
	if len(s.by) != 9 || len(s.of) != 9 || len(s.active) != 9 {
		t.Errorf("%d %d %d are left", len(s.by), len(s.of), len(s.active))
	}
}

// A key whose driver is not there waits; it is not missing.
func TestOtherDriver(t *testing.T) {
	r := newRig(t)
	r.boundAll(t, "acme")
	one := r.to(t, r.issued(t, "acme", ofClient, 0), act.Active)
	r.sql(t, "UPDATE keeper_identity SET driver = 'pkcs11' WHERE id = $1", one.ID)
	r.signers.drop("acme", "mailbox")
	if err := r.shake(t, of("acme", ofClient), one.SHA256); !fault.Is(err, fault.Later) || fault.HintOf(err) == "" {
		t.Errorf("%v", err)
	}
	if n, err := r.accepted(t.Context()); err != nil || n != 2 { // and the host's
		t.Errorf("%d may be shown: %v", n, err)
	}
}
