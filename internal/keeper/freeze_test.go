package keeper

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/keeper/act"
	"github.com/sallyport-mail/sallyport/internal/keeper/operator"
	"github.com/sallyport-mail/sallyport/internal/ledger"
	"github.com/sallyport-mail/sallyport/internal/ledger/audit"
	"github.com/sallyport-mail/sallyport/internal/store"
)

// identities puts rows there, as far as their states matter.
func (r *rig) identities(t testing.TB, states ...string) {
	t.Helper()
	for _, one := range states {
		id, state, _ := strings.Cut(one, " ")
		r.edit(t, `INSERT INTO keeper_identity (id, tenant, connection, purpose, epoch, name, state, issuer, driver, algorithm, handle, sealer, binding, chain, sha256,
			not_before, not_after, announced, explanation, marker, created_at, changed_at)
			VALUES ($1, 'acme', 'mailbox', 'smtp-client', 1, 'n', $2, 'builtin', 'software', 'ecdsa-p256', $3, '', '{}', '', '', 0, 0, 0, '', $3, 0, 0)`, id, state, []byte("x"))
	}
}

// states are the identities' by id.
func (r *rig) states(t testing.TB) string {
	t.Helper()
	rows, err := r.door.Query(t.Context(), `SELECT id, state FROM keeper_identity WHERE tenant = 'acme' ORDER BY id`)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	var all []string
	for rows.Next() {
		var id, state string
		if err := rows.Scan(&id, &state); err != nil {
			t.Fatal(err)
		}
		all = append(all, id+" "+state)
	}
	return strings.Join(all, ", ")
}

// atRest holds that a frozen keeper does nothing but tell how it stands.
func (r *rig) atRest(t testing.TB, why string) {
	t.Helper()
	ctx := t.Context()
	plain := act.Plain{Context: act.Context{Region: "us", Purpose: "x", Trace: "t"}}
	for name, do := range map[string]func() error{
		"open": func() error { _, err := r.open("acme/mailbox"); return err },
		"remove": func() error {
			_, err := r.RemoveCredential(ctx, someone(), act.Plain{Context: about(purposeAuth)})
			return err
		},
		"list":   func() error { _, err := r.ListCredentials(ctx, someone(), plain); return err },
		"events": func() error { return r.events(act.Event{Key: "k", Actor: "a", Act: "x"}) },
	} {
		if err := do(); !fault.Is(err, fault.Later) || fault.HintOf(err) == "" {
			t.Errorf("%s while frozen: %v", name, err)
		}
	}
	s, err := r.Status(ctx, someone(), plain)
	if err != nil || !strings.Contains(s.Frozen, why) || !slices.ContainsFunc(s.Alarms, func(a act.Alarm) bool { return a.Kind == alarmFrozen && strings.Contains(a.Text, why) }) {
		t.Errorf("%+v: %v", s, err)
	}
}

// readable holds that its ledger can be read all the same.
func (r *rig) readableStill(t testing.TB) {
	t.Helper()
	ctx := t.Context()
	_, err1 := r.SearchLedger(ctx, someone(), act.Search{})
	_, err2 := r.ShowEntry(ctx, someone(), act.Entry{})
	_, err3 := r.ProveEntry(ctx, someone(), act.Entry{})
	_, err4 := r.Checkpoint(ctx, someone(), act.Plain{})
	for _, err := range []error{err1, err2, err3, err4} {
		if err != nil {
			t.Error(err)
		}
	}
}

// soundStill is readableStill of a ledger that its export shows to be whole.
func (r *rig) soundStill(t testing.TB) {
	t.Helper()
	r.readableStill(t)
	if got := r.audit(t); !got.OK || got.Tail == nil {
		t.Errorf("%+v", got)
	}
}

// audit verifies an export by the other code.
func (r *rig) audit(t testing.TB) audit.Report {
	t.Helper()
	var b bytes.Buffer
	if err := r.ExportLedger(t.Context(), someone(), act.Plain{}, &b); err != nil {
		t.Fatal(err)
	}
	got, err := audit.Verify(&b, audit.Options{Keys: r.logKeys})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// copyTree copies a folder over another.
func copyTree(t testing.TB, from, to string) {
	t.Helper()
	if err := os.RemoveAll(to); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
}

// An old copy of the database, put back by hand, is told by the checkpoint
// beside it. Two people decide, and say which identities live on.
func TestOldCopyPutBack(t *testing.T) {
	s := newStaff(t)
	r := newRig(t, s.known)
	r.bindTo(t, "mx.acme.example", "acme/mailbox")
	r.set(t, "acme/mailbox", "u", "p")
	r.identities(t, "a active", "b staged", "c retired", "d compromised", "e wanted")
	r.end()
	old := filepath.Join(t.TempDir(), "old")
	copyTree(t, filepath.Join(r.dir, "db"), old)

	r = r.again(t)
	if _, err := r.open("acme/mailbox"); err != nil {
		t.Fatalf("nothing was done to it: %v", err)
	}
	r.edit(t, `UPDATE keeper_identity SET state = 'retired' WHERE id = 'b'`)
	r.end()
	copyTree(t, old, filepath.Join(r.dir, "db"))

	r = r.again(t)
	r.atRest(t, "old copy")
	r.readableStill(t)
	if got := r.audit(t); got.OK || len(got.Problems) != 1 || !strings.Contains(got.Problems[0].What, "an old copy was put in its place") {
		t.Errorf("%+v", got)
	}
	if _, err := r.order(t, signOrder(t, operator.RotateKEK, r.kek.ID(), nil, s.anna)); !fault.Is(err, fault.Later) {
		t.Errorf("another order: %v", err)
	}
	if _, err := r.order(t, signOrder(t, operator.Thaw, "", nil, s.anna)); !fault.Is(err, fault.Denied) {
		t.Errorf("one person: %v", err)
	}
	if _, err := r.order(t, signOrder(t, operator.Thaw, "", map[string]string{"keep": "a,c"}, s.anna, s.bert)); !fault.Is(err, fault.Invalid) {
		t.Errorf("keep a retired one: %v", err)
	}
	r.end()
	r = r.again(t)
	r.atRest(t, "not the one") // still, though it has grown
	got, err := r.order(t, signOrder(t, operator.Thaw, "", map[string]string{"keep": "a"}, s.anna, s.bert))
	if err != nil || !strings.Contains(got.Text, "2 identities") {
		t.Fatalf("%+v: %v", got, err)
	}
	if got := r.states(t); got != "a active, b retired, c retired, d compromised, e retired" {
		t.Error(got)
	}
	if _, err := r.open("acme/mailbox"); err != nil {
		t.Error(err)
	}
	found, err := r.ledger.Search(t.Context(), ledger.Filter{Act: operator.Thaw, Actor: "operators anna, bert"})
	if err != nil || len(found) != 4 || !strings.Contains(found[2].Subject, "keep=a") || found[3].Outcome != carried {
		t.Errorf("%+v: %v", found, err)
	}
	r.end()
	r = r.again(t)
	if why := r.frozen.reason(); why != "" {
		t.Errorf("after the thaw: %s", why)
	}
	r.soundStill(t)
}

// storedTail is what is signed of the ledger's end.
func (r *rig) storedTail(t *testing.T) (text string) {
	t.Helper()
	if err := r.c.DB.Keeper().QueryRow(t.Context(), `SELECT note FROM ledger_tail WHERE id = 1`).Scan(&text); err != nil {
		t.Fatal(err)
	}
	return text
}

// cutLedger makes a ledger as it was at a size, with the tail that it had.
func cutLedger(tx store.KeeperTx, size int64, tail string) error {
	for _, q := range []store.KeeperSQL{`DELETE FROM ledger_entry WHERE idx >= $1`, `DELETE FROM ledger_checkpoint WHERE size > $1`} {
		if _, err := tx.Exec(q, size); err != nil {
			return err
		}
	}
	_, err := tx.Exec(`UPDATE ledger_tail SET note = $1`, tail)
	return err
}

// The same on both databases, by rows that are gone; and by a log of the same
// length that is another.
func TestOlderLog(t *testing.T) {
	s := newStaff(t)
	eachRig(t, func(t *testing.T, r *rig) {
		enter := func(what string, n int) {
			for i := range n {
				if err := r.enter(t.Context(), ledger.Entry{Act: what, Subject: fmt.Sprint(i)}); err != nil {
					t.Fatal(err)
				}
			}
		}
		enter("x", 5)
		early, err := r.ledger.Checkpoint(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		tail := r.storedTail(t)
		enter("x", 5)
		r.identities(t, "a active")
		r.end()
		kept := filepath.Join(r.dir, newestFile)
		known, err := os.ReadFile(kept)
		if err != nil {
			t.Fatal(err)
		}

		// The end is cut off with its checkpoint, its tail is the older one again,
		// and others are appended where nobody looks.
		r.beside(t, func(tx store.KeeperTx) error { return cutLedger(tx, early.Size, tail) })
		if err := os.WriteFile(kept, known, 0o600); err != nil { // whatever the keeper that was fooled wrote
			t.Fatal(err)
		}
		r = r.again(t)
		r.atRest(t, "old copy")
		if got := r.audit(t); got.OK || len(got.Problems) != 1 || !strings.Contains(got.Problems[0].What, "an old copy was put in its place") || got.Tail == nil {
			t.Errorf("%+v", got)
		}
		r.end()
		if err := os.Remove(kept); err != nil {
			t.Fatal(err)
		}
		r = r.again(t)
		if why := r.frozen.reason(); why != "" {
			t.Fatal(why)
		}
		enter("y", 20)
		r.end()
		if err := os.WriteFile(kept, known, 0o600); err != nil {
			t.Fatal(err)
		}
		r = r.again(t)
		r.atRest(t, "not the one")
		r.readableStill(t)
		// Whoever has the export alone sees it too: what is kept beside the
		// database is in it.
		if got := r.audit(t); got.OK || !strings.Contains(got.Problems[0].What, "an old copy that has grown another way") {
			t.Errorf("%+v", got)
		}

		// Operators may first say that this log counts, and later what lives on.
		if _, err := r.order(t, signOrder(t, operator.Restore, "", nil, s.anna, s.bert)); err != nil {
			t.Fatal(err)
		}
		r.end()
		r = r.again(t)
		r.atRest(t, "not the one")
		if _, err := r.order(t, signOrder(t, operator.Thaw, "", map[string]string{"keep": "all"}, s.anna, s.bert)); err != nil {
			t.Fatal(err)
		}
		if got := r.states(t); got != "a active" {
			t.Error(got)
		}
		for _, damaged := range [][]byte{nil, []byte("nonsense"), bytes.Replace(known, []byte("\n1"), []byte("\n2"), 1)} {
			r.end()
			if err := os.WriteFile(kept, damaged, 0o600); err != nil {
				t.Fatal(err)
			}
			r = r.again(t)
			r.atRest(t, "not of its ledger")
		}
	}, s.known)
}

// The mark that somebody left who restored the folder.
func TestRestoredMark(t *testing.T) {
	s := newStaff(t)
	r := newRig(t, s.known)
	r.identities(t, "a active")
	r.end()
	mark := filepath.Join(r.dir, restoredFile)
	if err := os.WriteFile(mark, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	r = r.again(t)
	r.atRest(t, "restored")
	if _, err := r.order(t, signOrder(t, operator.Thaw, "", nil, s.bert, s.anna)); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(mark); !os.IsNotExist(err) || r.states(t) != "a retired" {
		t.Errorf("%v, %s", err, r.states(t))
	}
}

// A witness knows more than the database and all that lies beside it.
func TestWitnessKnowsMore(t *testing.T) {
	s := newStaff(t)
	seen := filepath.Join(t.TempDir(), "witness")
	r := newRig(t, s.known, func(c *Config) {
		c.MoreWitnesses = func(origin string, keys []string) ([]ledger.Witness, error) {
			w, err := ledger.NewFileWitness(seen, origin, keys)
			return []ledger.Witness{w}, err
		}
	})
	sign1 := func() {
		t.Helper()
		c, err := r.ledger.Checkpoint(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		within(t, "the witness agrees", func() bool { return r.ledger.Status().Witnesses[0].Size >= c.Size })
	}
	r.bindTo(t, "mx.acme.example", "acme/mailbox")
	r.set(t, "acme/mailbox", "u", "p")
	sign1()
	r.end()
	old := filepath.Join(t.TempDir(), "old")
	copyTree(t, r.dir, old) // with what lies beside it

	r = r.again(t)
	within(t, "it acts", func() bool { _, err := r.open("acme/mailbox"); return err == nil })
	sign1()
	r.end()
	copyTree(t, old, r.dir)
	r = r.again(t)
	if _, err := r.open("acme/mailbox"); !fault.Is(err, fault.Later) {
		t.Errorf("before the witness has answered: %v", err)
	}
	within(t, "it is frozen", func() bool { return r.frozen.reason() != "" })
	r.atRest(t, "")
	r.end()
	if err := os.Rename(seen, seen+".away"); err != nil {
		t.Fatal(err)
	}
	r = r.again(t) // it remembers
	r.atRest(t, "")
	if err := os.Rename(seen+".away", seen); err != nil {
		t.Fatal(err)
	}
	if _, err := r.order(t, signOrder(t, operator.Thaw, "", nil, s.anna, s.bert)); err != nil {
		t.Fatal(err)
	}
	r.end()
	r = r.again(t)
	within(t, "the witness is overruled", func() bool {
		_, err := r.open("acme/mailbox")
		return err == nil && r.ledger.Status().Witnesses[0].RolledBack
	})
	if why := r.frozen.reason(); why != "" {
		t.Error(why)
	}
}

// A ledger that was tampered with is named by audit, out of what the keeper
// still gives.
func TestTamperedLedger(t *testing.T) {
	s := newStaff(t)
	eachRig(t, func(t *testing.T, r *rig) {
		for i := range 20 {
			if err := r.enter(t.Context(), ledger.Entry{Act: "x", Subject: fmt.Sprint("subject ", i)}); err != nil {
				t.Fatal(err)
			}
		}
		e, err := r.ledger.Show(t.Context(), 7)
		if err != nil {
			t.Fatal(err)
		}
		var payload []byte
		if err := r.door.QueryRow(t.Context(), `SELECT payload FROM ledger_entry WHERE idx = 7`).Scan(&payload); err != nil {
			t.Fatal(err)
		}
		r.end()
		r = r.again(t)
		r.edit(t, `UPDATE ledger_entry SET payload = $1 WHERE idx = 7`, bytes.Replace(payload, []byte(e.Subject), []byte("subject 8"), 1))
		r.end()
		r = r.again(t)
		r.atRest(t, "the entry 7 is not what it was")
		for name, do := range map[string]func() error{
			"search": func() error { _, err := r.SearchLedger(t.Context(), someone(), act.Search{}); return err },
			"show":   func() error { _, err := r.ShowEntry(t.Context(), someone(), act.Entry{}); return err },
			"prove":  func() error { _, err := r.ProveEntry(t.Context(), someone(), act.Entry{}); return err },
			"sign":   func() error { _, err := r.Checkpoint(t.Context(), someone(), act.Plain{}); return err },
			"order":  func() error { _, err := r.order(t, signOrder(t, operator.Thaw, "", nil, s.anna, s.bert)); return err },
		} {
			if err := do(); !fault.Is(err, fault.Later) || fault.HintOf(err) == "" {
				t.Errorf("%s: %v", name, err)
			}
		}
		got := r.audit(t)
		if got.OK || len(got.Problems) == 0 || got.Problems[0].Index != 7 {
			t.Errorf("%+v", got)
		}
		if st, err := r.Status(t.Context(), someone(), act.Plain{}); err != nil || !strings.Contains(string(st.Ledger), "the entry 7") {
			t.Errorf("%s: %v", st.Ledger, err)
		}
	}, s.known)
}
