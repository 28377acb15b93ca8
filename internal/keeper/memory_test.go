package keeper

import (
	"context"
	"errors"
	"maps"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/keeper/act"
	"github.com/sallyport-mail/sallyport/internal/keeper/breaker"
	"github.com/sallyport-mail/sallyport/internal/keeper/operator"
	"github.com/sallyport-mail/sallyport/internal/keeper/seal"
	"github.com/sallyport-mail/sallyport/internal/ledger"
	"github.com/sallyport-mail/sallyport/internal/store"
)

const (
	dropState store.KeeperSQL = `DELETE FROM keeper_state WHERE name = $1`
	editState store.KeeperSQL = `UPDATE keeper_state SET value = $2 WHERE name = $1`
)

// remembered are the rows as they lie there.
func (r *rig) remembered(t testing.TB) map[string]string {
	t.Helper()
	rows, err := r.memory.rows(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return rows
}

// putBack makes the rows what they were.
func putBack(tx store.KeeperTx, rows map[string]string) error {
	if _, err := tx.Exec(`DELETE FROM keeper_state WHERE name <> ''`); err != nil {
		return err
	}
	for name, value := range rows {
		if _, err := tx.Exec(upsertState, name, value); err != nil {
			return err
		}
	}
	return nil
}

// trip trips the breaker.
func (r *rig) trip(t testing.TB) {
	t.Helper()
	for range 2 * r.c.Limit {
		r.breaker.Open()
	}
	if s := r.breaker.Now().State; s != breaker.Tripped {
		t.Fatal(s)
	}
}

// Whoever writes the database brings no breaker back that was lifted, ends no
// freeze, and puts no older issuer there: the keeper starts frozen, its breaker
// tripped, and says which row it was.
func TestEditedMemory(t *testing.T) {
	s := newStaff(t)
	const watching, unfrozen = `{"state":"watching","since":"2026-01-01T00:00:00Z"}`, `{"overruled":["x"]}`
	cases := []struct {
		name, why string
		do        func(tx store.KeeperTx, before, after map[string]string) error
	}{
		{"the breaker edited", "breaker", statement(editState, rememberBreaker, watching)},
		{"the breaker deleted", "breaker", statement(dropState, rememberBreaker)},
		{"no JSON", "breaker", statement(editState, rememberBreaker, "nonsense")},
		{"a witness overruled", "frozen", statement(upsertState, rememberFrozen, unfrozen)},
		{"a campaign under another name", "frozen", statement(upsertState, rememberFrozen, watching)},
		{"a rotation", "rotation", statement(upsertState, rememberRotation, `{"to":"x","total":1}`)},
		{"an older issuer", "issuer", statement(editState, rememberIssuer, `{"serial":1}`)},
		{"the root deleted", "root", statement(dropState, rememberRoot)},
		{"swapped", "breaker, root", func(tx store.KeeperTx, _, after map[string]string) error {
			_, err := tx.Exec(editState, rememberBreaker, after[rememberRoot])
			if err == nil {
				_, err = tx.Exec(editState, rememberRoot, after[rememberBreaker])
			}
			return err
		}},
		{"the manifest deleted", "manifest is gone", statement(dropState, rememberManifest)},
		{"all deleted but the key", "manifest is gone", func(tx store.KeeperTx, _, after map[string]string) error {
			return putBack(tx, map[string]string{rememberLedgerKey: after[rememberLedgerKey]})
		}},
		{"the manifest edited", "manifest was edited", statement(editState, rememberManifest, "00ff")},
		{"the manifest of another row", "manifest was edited", statement(editState, rememberManifest, `{"from":0,"rows":{}}`)},
		{"all as they were", "older than the ledger", func(tx store.KeeperTx, before, _ map[string]string) error { return putBack(tx, before) }},
		{"all as they were, the entries hidden from searches", "older than the ledger", func(tx store.KeeperTx, before, _ map[string]string) error {
			_, err := tx.Exec(`UPDATE ledger_entry SET act = 'x', key = 'k' || idx WHERE act = $1`, actRemember)
			if err == nil {
				err = putBack(tx, before)
			}
			return err
		}},
		{"all as they were, the entries' texts removed", "older than the ledger", func(tx store.KeeperTx, before, _ map[string]string) error {
			_, err := tx.Exec(`UPDATE ledger_entry SET payload = NULL WHERE act = $1`, actRemember)
			if err == nil {
				err = putBack(tx, before)
			}
			return err
		}},
	}
	eachRig(t, func(t *testing.T, r *rig) {
		for _, c := range cases {
			before := r.remembered(t)
			r.trip(t)
			after := r.remembered(t)
			r.end()
			r.beside(t, func(tx store.KeeperTx) error { return c.do(tx, before, after) })
			for _, why := range []string{c.why, rememberFrozen} {
				r = r.again(t)
				size := r.ledger.Size()
				r.atRest(t, why)
				if !strings.Contains(r.frozen.reason(), memoryWas) || r.breaker.Now().State != breaker.Tripped {
					t.Errorf("%s: %s, and the breaker is %s", c.name, r.frozen.reason(), r.breaker.Now().State)
				}
				within(t, "its alarm is entered", func() bool { return r.said(t, size-5, why) })
				r.end()
				if why == c.why { // made safe, and then ended by hand
					r.beside(t, func(tx store.KeeperTx) error { _, err := tx.Exec(editState, rememberFrozen, unfrozen); return err })
				}
			}
			r = r.again(t)
			if _, err := r.order(t, signOrder(t, operator.Thaw, "", nil, s.anna, s.bert)); err != nil {
				t.Fatalf("%s: %v", c.name, err)
			}
			r.end()
			r = r.again(t)
			if why := r.frozen.reason(); why != "" || r.breaker.Now().State != breaker.Tripped {
				t.Errorf("%s, after the thaw: %q, and the breaker is %s", c.name, why, r.breaker.Now().State)
			}
			if _, err := r.order(t, signOrder(t, operator.LiftBreaker, "", nil, s.anna, s.bert)); err != nil {
				t.Errorf("%s: %v", c.name, err)
			}
		}
	}, s.known, func(c *Config) { c.Limit = 5 })
}

func statement(q store.KeeperSQL, args ...any) func(store.KeeperTx, map[string]string, map[string]string) error {
	return func(tx store.KeeperTx, _, _ map[string]string) error {
		_, err := tx.Exec(q, args...)
		return err
	}
}

// said reports whether an alarm with a text is in the ledger, from an entry on.
func (r *rig) said(t testing.TB, from int64, text string) bool {
	t.Helper()
	found, err := r.ledger.Search(t.Context(), ledger.Filter{Act: "alarm", From: max(from, 0)})
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range found {
		if e.Purpose == alarmFrozen && strings.Contains(e.Subject, text) {
			return true
		}
	}
	return false
}

// An older manifest does not come back when the log is cut to where it was the
// newest: the checkpoint beside the database is of the change itself.
func TestMemoryAndLogCut(t *testing.T) {
	eachRig(t, func(t *testing.T, r *rig) {
		early, err := r.ledger.Checkpoint(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		before, size, tail := r.remembered(t), early.Size, r.storedTail(t)
		r.trip(t)
		if r.frozen.known <= size {
			t.Fatalf("the newest checkpoint kept is of %d entries, and %d were there before", r.frozen.known, size)
		}
		r.end()
		r.beside(t, func(tx store.KeeperTx) error {
			if err := cutLedger(tx, size, tail); err != nil {
				return err
			}
			return putBack(tx, before)
		})
		r = r.again(t)
		r.atRest(t, "old copy")
	}, func(c *Config) { c.Limit = 5 })
}

// A kill between a manifest and its entry is no alarm: the next start enters it.
func TestMemoryAfterAKill(t *testing.T) {
	eachRig(t, func(t *testing.T, r *rig) {
		r.trip(t)
		r.end()
		db, err := store.OpenKeeper(t.Context(), r.at)
		if err != nil {
			t.Fatal(err)
		}
		c := r.c
		c.DB = db
		k, err := New(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		const value = `{"state":"watching","since":"2026-01-01T00:00:00Z"}`
		rows := maps.Clone(k.memory.now.Rows)
		rows[rememberBreaker] = digest([]byte(value))
		err = k.memory.commit(t.Context(), rows, func(tx store.KeeperTx) error {
			_, err := tx.Exec(upsertState, rememberBreaker, value)
			return err
		})
		if err := errors.Join(err, db.Close()); err != nil || k.memory.owed == "" {
			t.Fatal(err)
		}
		r = r.again(t)
		last, _, err := r.memory.lastSince(t.Context(), 0)
		if why := r.frozen.reason(); err != nil || why != "" || r.breaker.Now().State != breaker.Watching || last == k.memory.owed {
			t.Errorf("%q, the breaker is %s, %s is the last: %v", why, r.breaker.Now().State, last, err)
		}
		if found, err := r.ledger.Search(t.Context(), ledger.Filter{Act: actRemember}); err != nil || found[len(found)-2].Outcome != k.memory.owed {
			t.Errorf("%+v %v", found, err)
		}
	}, func(c *Config) { c.Limit = 5 })
}

// awayKEK is of a service that may be away.
type awayKEK struct {
	seal.KEK
	away *atomic.Bool
}

func (k awayKEK) Wrap(ctx context.Context, clearKey seal.Secret, associated []byte) ([]byte, error) {
	if k.away.Load() {
		return nil, fault.New(fault.Later, "test", "the service is away").WithHint("Wait.")
	}
	return k.KEK.Wrap(ctx, clearKey, associated)
}

func (k awayKEK) Unwrap(ctx context.Context, wrapped, associated []byte) (seal.Secret, error) {
	if k.away.Load() {
		return seal.Secret{}, fault.New(fault.Later, "test", "the service is away").WithHint("Wait.")
	}
	return k.KEK.Unwrap(ctx, wrapped, associated)
}

// While the KEK is away a keeper still writes down that it is frozen.
func TestFreezeWithoutKEK(t *testing.T) {
	var away atomic.Bool
	r := newRig(t, func(c *Config) { c.KEKs = []seal.KEK{awayKEK{c.KEKs[0], &away}} })
	away.Store(true)
	r.forget() // what is open
	if _, err := r.seals.key(t.Context(), memoryTenant); !fault.Is(err, fault.Later) {
		t.Fatalf("the KEK is not away: %v", err)
	}
	const why = "a witness says so"
	r.freezeNow(why)
	if err := r.remember(t.Context(), rememberFrozen, frozenState{Why: why}); err != nil {
		t.Fatal(err)
	}
	r.end()
	away.Store(false)
	r = r.again(t)
	r.atRest(t, why)
}

// A commit that took though its answer was lost is found out before anything is
// read or written; one that did not is none.
func TestMemoryInDoubt(t *testing.T) {
	const value = `{"state":"watching","since":"2026-01-01T00:00:00Z"}`
	for _, took := range []bool{true, false} {
		eachRig(t, func(t *testing.T, r *rig) {
			m := &r.memory
			m.mu.Lock()
			before, rows := m.now, maps.Clone(m.now.Rows)
			rows[rememberBreaker] = digest([]byte(value))
			lost := errors.New("lost")
			err := m.commit(t.Context(), rows, func(tx store.KeeperTx) error {
				if !took {
					return lost
				}
				_, err := tx.Exec(upsertState, rememberBreaker, value)
				return err
			})
			if took { // as it is when the answer does not come
				if err != nil {
					t.Fatal(err)
				}
				m.tried, m.now, m.owed = &attempt{m.now, m.owed}, before, ""
			} else if !errors.Is(err, lost) || m.tried == nil {
				t.Fatal(err)
			}
			m.mu.Unlock()
			var s breaker.Snapshot
			there, err := r.recall(t.Context(), rememberBreaker, &s)
			if err != nil || there != took {
				t.Errorf("took %v: %v, %v", took, there, err)
			}
			if err := r.remember(t.Context(), rememberAccount, accountKey{}); err != nil {
				t.Error(err)
			}
			r.end()
			r = r.again(t)
			if why := r.frozen.reason(); why != "" {
				t.Errorf("took %v: %s", took, why)
			}
		})
	}
}

// What is remembered in a database as it is in use is refused too.
func TestEditedMemoryInUse(t *testing.T) {
	r := newRig(t)
	r.edit(t, string(dropState), rememberIssuer)
	if _, err := r.recall(t.Context(), rememberIssuer, new(onlineIssuer)); !fault.Is(err, fault.Denied) || fault.HintOf(err) == "" {
		t.Errorf("%v", err)
	}
}

// The manifest follows the log, so that a start has few entries to read.
func TestMemoryIsTended(t *testing.T) {
	r := newRig(t)
	from := r.memory.now.From
	r.memory.tend(t.Context())
	if r.memory.now.From != from {
		t.Error("it was renewed at once")
	}
	batch := make([]ledger.Entry, 2000)
	for i := range batch {
		batch[i] = ledger.Entry{Source: ledger.Witnessed, Actor: "a", Act: "x"}
	}
	for range 1 + manifestEntries/len(batch) {
		if _, err := r.ledger.AppendEach(context.WithoutCancel(t.Context()), batch); err != nil {
			t.Fatal(err)
		}
	}
	r.memory.tend(t.Context())
	if r.memory.now.From < from+manifestEntries {
		t.Errorf("%d, after %d entries", r.memory.now.From, r.ledger.Size())
	}
	if s, err := r.Status(t.Context(), someone(), act.Plain{}); err != nil || s.Frozen != "" {
		t.Errorf("%+v %v", s, err)
	}
}
