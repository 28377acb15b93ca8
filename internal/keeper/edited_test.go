package keeper

import (
	"testing"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/keeper/act"
	"github.com/sallyport-mail/sallyport/internal/store"
)

// TestEditedState: whoever has the database makes no identity one that is
// shown. The refusal is entered and an alarm.
func TestEditedState(t *testing.T) {
	const edit store.KeeperSQL = `UPDATE keeper_identity SET state = $1 WHERE id = $2`
	eachStore(t, func(t *testing.T, r *rig) {
		r.boundAll(t, "acme", "other", "third")
		for tenant, states := range map[string][]act.IdentityState{
			"acme":  {act.Active, act.Retired},
			"other": {act.Active, act.Compromised},
			"third": nil, // issued, and never shown
		} {
			i := r.to(t, r.issued(t, tenant, ofClient, 0), states...)
			r.sql(t, edit, string(act.Active), i.ID)
			r.signers.dropAll()
			if err := r.shake(t, of(tenant, ofClient), i.SHA256); !fault.Is(err, fault.Denied) || fault.HintOf(err) == "" {
				t.Errorf("%s: a handshake: %v", tenant, err)
			}
			if got, err := r.TenantCertificate(t.Context(), someone(), act.Which{Context: of(tenant, ofClient)}); !fault.Is(err, fault.Denied) {
				t.Errorf("%s: its certificate: %+v %v", tenant, got, err)
			}
			if _, err := r.tryMove(t, i, act.Retiring); !fault.Is(err, fault.Denied) {
				t.Errorf("%s: a move: %v", tenant, err)
			}
			r.alarmed(t, alarmRefused, tenant)
			if _, after := r.outcome(t, act.MoveIdentity); after.Outcome == carried {
				t.Errorf("%s: %+v", tenant, after)
			}
			r.to(t, i, act.Compromised) // an end is always possible
		}
	})
}

// A marker is of one row: that of another identity of the same epoch, which is
// active, does not do.
func TestSwappedMarkers(t *testing.T) {
	r := newRig(t)
	r.boundAll(t, "acme")
	old := r.to(t, r.issued(t, "acme", ofClient, 0), act.Active)
	next := r.to(t, r.issued(t, "acme", ofClient, 0), act.Staged)
	r.sql(t, `UPDATE keeper_identity SET state = 'active', marker = (SELECT marker FROM keeper_identity WHERE id = $1) WHERE id = $2`, old.ID, next.ID)
	r.signers.dropAll()
	if err := r.shake(t, of("acme", ofClient), next.SHA256); !fault.Is(err, fault.Denied) {
		t.Errorf("%v", err)
	}
	if err := r.shake(t, of("acme", ofClient), old.SHA256); err != nil {
		t.Errorf("the one that nobody edited: %v", err)
	}
}
