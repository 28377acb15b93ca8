package keeper

import (
	"os"
	"strings"
	"testing"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/keeper/act"
)

// That an identity was compromised or retired is signed at once.
func TestEndIsSigned(t *testing.T) {
	r := newRig(t)
	r.boundAll(t, "acme")
	for _, to := range []act.IdentityState{act.Retired, act.Compromised} {
		i := r.issued(t, "acme", ofClient, 0)
		r.to(t, i, to)
		size := r.ledger.Size()
		within(t, "it is signed", func() bool { return r.ledger.Status().Checkpoint.Size >= size })
	}
}

// TestMoves walks the whole table, and everything that is not in it.
func TestMoves(t *testing.T) {
	r := newRig(t)
	r.boundAll(t, "acme")
	all := []act.IdentityState{act.Wanted, act.Issued, act.Staged, act.Active, act.Retiring, act.Retired, act.Compromised}
	one := r.issued(t, "acme", ofClient, 0)
	for _, from := range all {
		for _, to := range all {
			row, err := r.row(t.Context(), selectByID, one.ID)
			if err != nil {
				t.Fatal(err)
			}
			marker, err := r.mark(t.Context(), row, from, false)
			if err != nil {
				t.Fatal(err)
			}
			r.sql(t, "UPDATE keeper_identity SET state = $1, marker = $2 WHERE id = $3", string(from), marker, one.ID)
			r.signers.drop("acme", "mailbox")
			got, err := r.tryMove(t, one, to)
			may := mayMove(from, to) == nil && !(from == act.Wanted && to == act.Issued)
			switch {
			case may && (err != nil || got.State != to || r.show(t, one.ID).State != to):
				t.Errorf("%s to %s: %+v %v", from, to, got, err)
			case !may && (!fault.Is(err, fault.Conflict) || fault.HintOf(err) == "" || r.show(t, one.ID).State != from):
				t.Errorf("%s to %s: %v, and it is %s", from, to, err, r.show(t, one.ID).State)
			}
			if before, after := r.outcome(t, act.MoveIdentity); may && (before.Subject != one.ID+" "+string(from)+"→"+string(to) || after.Outcome != carried) || !may && !strings.HasPrefix(after.Outcome, failed) {
				t.Errorf("%s to %s: %+v %+v", from, to, before, after)
			}
		}
	}
}

func TestTwoGates(t *testing.T) {
	eachStore(t, func(t *testing.T, r *rig) {
		r.boundAll(t, "acme")
		a := r.to(t, r.issued(t, "acme", ofClient, 0), act.Active)
		b := r.to(t, r.issued(t, "acme", ofClient, 2), act.Staged)
		c := r.issued(t, "acme", ofClient, 0)
		for _, s := range []act.IdentityState{act.Staged, act.Active} {
			if _, err := r.tryMove(t, c, s); !fault.Is(err, fault.Conflict) {
				t.Errorf("a third becomes %s: %v", s, err)
			}
		}
		r.to(t, b, act.Active)
		if r.show(t, a.ID).State != act.Retiring || r.show(t, b.ID).State != act.Active {
			t.Errorf("%s and %s", r.show(t, a.ID).State, r.show(t, b.ID).State)
		}
		if before, _ := r.outcome(t, act.MoveIdentity); before.Subject != b.ID+" staged→active, "+a.ID+" active→retiring" {
			t.Error(before.Subject)
		}
		r.to(t, a, act.Active) // undone
		if r.show(t, a.ID).State != act.Active || r.show(t, b.ID).State != act.Retiring {
			t.Errorf("%s and %s", r.show(t, a.ID).State, r.show(t, b.ID).State)
		}
		r.to(t, b, act.Retired)
		r.to(t, c, act.Active)
		if r.show(t, a.ID).State != act.Retiring {
			t.Error(r.show(t, a.ID).State)
		}
	})
}

// TestLifeDocumented compares docs/states.md with the table.
func TestLifeDocumented(t *testing.T) {
	var want strings.Builder
	want.WriteString("| from | to |\n|---|---|\n")
	for _, s := range life() {
		want.WriteString("| " + string(s.from) + " | " + string(s.to) + " |\n")
	}
	doc, err := os.ReadFile("../../docs/states.md")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(doc), want.String()) {
		t.Errorf("docs/states.md has not this table:\n%s", want.String())
	}
}
