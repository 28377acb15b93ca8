package keeper

import (
	"context"
	"testing"
	"time"

	"github.com/sallyport-mail/sallyport/internal/keeper/act"
	"github.com/sallyport-mail/sallyport/internal/keeper/keys"
	"github.com/sallyport-mail/sallyport/internal/keeper/seal"
)

// The keys of identities that have ended are destroyed, and no others.
func TestDestroyEnded(t *testing.T) {
	eachStore(t, func(t *testing.T, r *rig) {
		r.boundAll(t, "acme")
		stolen := r.to(t, r.to(t, r.issued(t, "acme", ofClient, 0), act.Active), act.Compromised)
		active := r.to(t, r.issued(t, "acme", ofClient, 2), act.Active)
		length := func(i act.Identity) (n int) {
			if err := r.door.QueryRow(t.Context(), `SELECT length(handle) FROM keeper_identity WHERE id = $1`, i.ID).Scan(&n); err != nil {
				t.Fatal(err)
			}
			return n
		}
		look := func() {
			if err := r.destroyEnded(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		look()
		if length(stolen) == 0 {
			t.Error("destroyed at once, while a handshake may be under way")
		}
		r.sql(t, "UPDATE keeper_identity SET changed_at = $1", r.now().Add(-time.Hour).UnixMicro())
		look()
		if length(stolen) != 0 || length(active) == 0 {
			t.Errorf("%d and %d bytes are left", length(stolen), length(active))
		}
		before, after := r.outcome(t, "destroy-key")
		if before.Subject != stolen.ID || after.Outcome != carried {
			t.Errorf("%+v %+v", before, after)
		}
		n := r.ledger.Size()
		look()
		if r.ledger.Size() != n {
			t.Error("it was destroyed twice")
		}
		if err := r.shake(t, of("acme", ofClient), active.SHA256); err != nil {
			t.Error(err)
		}
	})
}

// The object of a token is destroyed with it.
func TestDestroyElsewhere(t *testing.T) {
	d := &tokenDriver{}
	r := newRig(t, func(c *Config) { c.Driver = d })
	r.boundAll(t, "acme")
	one := r.to(t, r.issued(t, "acme", ofClient, 0), act.Retired)
	r.sql(t, "UPDATE keeper_identity SET changed_at = $1", r.now().Add(-time.Hour).UnixMicro())
	if err := r.destroyEnded(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(d.removed) != 1 || d.removed[0] != (seal.Place{Region: "us", Tenant: "acme", Connection: "mailbox", Purpose: ofClient, Kind: seal.PrivateKey, Epoch: 1, Binding: seal.Binding(aBinding())}) {
		t.Errorf("%+v of %s", d.removed, one.ID)
	}
}

// tokenDriver is the software driver as if its keys lay elsewhere.
type tokenDriver struct {
	keys.Software
	removed []seal.Place
}

func (d *tokenDriver) Name() string { return "token" }

func (d *tokenDriver) Remove(_ context.Context, _ keys.Sealer, p seal.Place, _ []byte) error {
	d.removed = append(d.removed, p)
	return nil
}
