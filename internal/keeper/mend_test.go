package keeper

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/keeper/act"
	"github.com/sallyport-mail/sallyport/internal/keeper/operator"
	"github.com/sallyport-mail/sallyport/internal/store"
)

// An authority that was edited away is made anew by its root's key alone: a thaw
// waits for the row or for that.
func TestEditedAuthority(t *testing.T) {
	s := newStaff(t)
	r := newRig(t, s.known)
	root, old := r.Root(), r.remembered(t)[rememberRoot]
	r.end()
	kept := filepath.Join(r.dir, rootKeyFile)
	if err := os.Rename(kept, kept+".away"); err != nil {
		t.Fatal(err)
	}
	r.beside(t, func(tx store.KeeperTx) error { _, err := tx.Exec(dropState, rememberRoot); return err })
	thaw := func() error {
		_, err := r.order(t, signOrder(t, operator.Thaw, "", nil, s.anna, s.bert))
		return err
	}
	r = r.again(t)
	if err := thaw(); !fault.Is(err, fault.Conflict) || !strings.Contains(fault.HintOf(err), rememberRoot) {
		t.Errorf("without the root's key: %v", err)
	}
	r.end()
	r.beside(t, func(tx store.KeeperTx) error { _, err := tx.Exec(upsertState, rememberRoot, old); return err })
	r = r.again(t)
	if err := thaw(); err != nil {
		t.Fatalf("with the row: %v", err)
	}
	within(t, "it holds what it held", r.holding.Load)
	if !r.Root().Equal(root) {
		t.Error("the root is another")
	}
	r.end()
	r.beside(t, func(tx store.KeeperTx) error { _, err := tx.Exec(dropState, rememberRoot); return err })
	if err := os.Rename(kept+".away", kept); err != nil {
		t.Fatal(err)
	}
	r = r.again(t)
	if err := thaw(); err != nil {
		t.Fatalf("with the root's key: %v", err)
	}
	within(t, "it holds an authority", r.holding.Load)
	if now := r.Root(); now.Equal(root) || !samePublic(now.PublicKey, root.PublicKey) {
		t.Error("the root is not of that key")
	}
	if i := r.to(t, r.issuedAfter(t), act.Active); i.State != act.Active {
		t.Errorf("%+v", i)
	}
}

// issuedAfter is an identity of a connection that is bound for it.
func (r *rig) issuedAfter(t testing.TB) act.Identity {
	t.Helper()
	r.boundAll(t, "acme")
	return r.issued(t, "acme", ofClient, 0)
}

// A data key that was edited leaves the keeper frozen, and nothing is retired by
// a thaw that can't be written down.
func TestMemoryWithoutItsKey(t *testing.T) {
	s := newStaff(t)
	r := newRig(t, s.known)
	r.identities(t, "a active")
	const swap store.KeeperSQL = `UPDATE keeper_datakey SET blob = $2 WHERE tenant = $1`
	w, err := r.seals.row(t.Context(), memoryTenant)
	if err != nil {
		t.Fatal(err)
	}
	r.end()
	r.beside(t, func(tx store.KeeperTx) error { _, err := tx.Exec(swap, memoryTenant, []byte("x")); return err })
	r = r.again(t)
	r.atRest(t, memoryWas)
	if _, err := r.order(t, signOrder(t, operator.Thaw, "", nil, s.anna, s.bert)); !fault.Is(err, fault.Later) || fault.HintOf(err) == "" {
		t.Errorf("a thaw: %v", err)
	}
	if got := r.states(t); got != "a active" {
		t.Error(got)
	}
	r.end()
	r.beside(t, func(tx store.KeeperTx) error { _, err := tx.Exec(swap, memoryTenant, w.Blob); return err })
	r = r.again(t)
	if why := r.frozen.reason(); why != "" {
		t.Errorf("its row was put back: %s", why)
	}
}
