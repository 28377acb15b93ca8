package keeper

import (
	"crypto/x509"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/keeper/act"
	"github.com/sallyport-mail/sallyport/internal/keeper/operator"
)

// jumping is a clock that a test sets ahead and back.
type jumping struct{ by atomic.Int64 }

func (j *jumping) set(c *Config) {
	c.Now = func() time.Time { return time.Now().Round(0).Add(j.ahead()) }
}
func (j *jumping) ahead() time.Duration  { return time.Duration(j.by.Load()) }
func (j *jumping) jump(by time.Duration) { j.by.Store(int64(by)) }
func jumps() (there [4]time.Duration)    { return [4]time.Duration{0, 24 * time.Hour, 0, -24 * time.Hour} }
func (r *rig) valid(t testing.TB, i act.Identity, at time.Time) {
	t.Helper()
	for n, der := range i.Chain {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		if at.Before(c.NotBefore) || at.After(c.NotAfter) {
			t.Errorf("certificate %d is for %v to %v, not %v", n, c.NotBefore, c.NotAfter, at)
		}
	}
}

// TestClockJumps has a keeper whose clock is a day ahead or behind do what it
// does: also a keeper that began ahead, with all it made then.
func TestClockJumps(t *testing.T) {
	s := newStaff(t)
	for name, first := range map[string]time.Duration{"began ahead": 24 * time.Hour, "began in time": 0} {
		t.Run(name, func(t *testing.T) {
			j := &jumping{}
			j.jump(first)
			r := newRig(t, j.set, s.known)
			r.boundAll(t, "acme")
			one := r.to(t, r.issued(t, "acme", ofClient, 0), act.Active)
			checked := int64(0)
			for _, by := range jumps() {
				j.jump(by)
				if err := r.shake(t, of("acme", ofClient), one.SHA256); err != nil {
					t.Errorf("%v: a handshake: %v", by, err)
				}
				if by >= first-24*time.Hour { // before that its issuer's certificate has not begun
					next := r.issued(t, "acme", ofClient, 0)
					r.valid(t, next, time.Now())
					r.to(t, next, act.Retired)
				}
				if err := r.mayAct(); err != nil {
					t.Errorf("%v: %v", by, err)
				}
				c, err := r.ledger.Checkpoint(t.Context())
				if err != nil || c.Size <= checked {
					t.Errorf("%v: checkpoint of %d after %d: %v", by, c.Size, checked, err)
				}
				checked = c.Size
				r.end()
				r = r.again(t)
				if err := r.mayAct(); err != nil {
					t.Errorf("%v: started again: %v", by, err)
				}
			}
			j.jump(0)
			raw := signOrder(t, operator.ChangeBinding, "", map[string]string{"tenant": "acme", "connection": "mailbox", "host": "mx.other.example", "port": "25", "tenants": "1"}, s.anna, s.bert)
			if _, err := r.order(t, raw); err != nil {
				t.Errorf("an order: %v", err)
			}
			for _, by := range jumps() { // it counts once, whatever the clock says
				j.jump(by)
				if _, err := r.order(t, raw); err == nil {
					t.Errorf("%v: an order counts twice", by)
				}
			}
		})
	}
}

// An issuer is asked again after its pause although the clock was set back.
func TestAwaitedAndClock(t *testing.T) {
	var a awaited
	a.init()
	now := time.Date(2026, 5, 4, 3, 2, 1, 0, time.UTC)
	a.add("one", await{at: now.Add(issuePause)})
	if ready, next := a.take(now); len(ready) != 0 || next != issuePause {
		t.Errorf("%v in %v", ready, next)
	}
	if ready, _ := a.take(now.Add(-24 * time.Hour)); len(ready) != 1 {
		t.Error("it waits for a day")
	}
}

// A request that an issuer puts off goes on although the clock jumps ahead, and
// ends once it was put off for a day.
func TestPutOffAndClock(t *testing.T) {
	j := &jumping{}
	f := &fakeIssuer{fail: fault.New(fault.Later, "acme", "the CA is away")}
	r := newRig(t, j.set, func(c *Config) { c.Issuers = []Issuer{f} })
	r.boundAll(t, "acme")
	got, err := r.IssueIdentity(t.Context(), someone(), act.Issue{Context: of("acme", ofClient), Issuer: "acme"})
	if err != nil {
		t.Fatal(err)
	}
	until(t, "it was asked", func() bool { return f.calls.Load() > 0 })
	j.jump(25 * time.Hour)
	r.tryAwaited(t.Context(), got.ID, await{})
	if now := r.show(t, got.ID); now.State != act.Wanted {
		t.Errorf("given up: %+v", now)
	}
	r.tryAwaited(t.Context(), got.ID, await{waited: otherWanted})
	if now := r.show(t, got.ID); now.State != act.Retired {
		t.Errorf("asked for ever: %+v", now)
	}
}
