package keeper

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/keeper/act"
	"github.com/sallyport-mail/sallyport/internal/keeper/seal"
	"github.com/sallyport-mail/sallyport/internal/keeper/wire"
	"github.com/sallyport-mail/sallyport/internal/ledger"
	"github.com/sallyport-mail/sallyport/internal/store"
)

// rig is a keeper on a database of its own, at work.
type rig struct {
	*Keeper
	dir string
	kek seal.KEK
	db  *store.KeeperDB
	end func() // stops it and closes the database

	at   store.Config
	with []func(*Config)
}

// newRig starts a keeper in a new folder; set may change its settings.
func newRig(t testing.TB, set ...func(*Config)) *rig {
	t.Helper()
	return openRig(t, t.TempDir(), newKEK(t, "us"), set...)
}

// newKEK is a cheap KEK of a region.
func newKEK(t testing.TB, region string) seal.KEK {
	t.Helper()
	file, err := seal.NewKEKFile(region, seal.NewSecret([]byte("a passphrase")), seal.Cost{Passes: 1, MemoryKB: 19 << 10, Lanes: 1})
	if err != nil {
		t.Fatal(err)
	}
	kek, err := seal.OpenKEKFile(region, file, seal.NewSecret([]byte("a passphrase")))
	if err != nil {
		t.Fatal(err)
	}
	return kek
}

// openRig starts a keeper in a folder that there is.
func openRig(t testing.TB, dir string, kek seal.KEK, set ...func(*Config)) *rig {
	t.Helper()
	return openRigAt(t, dir, store.Config{Dir: filepath.Join(dir, "db")}, kek, set...)
}

// again starts the keeper that was ended anew.
func (r *rig) again(t testing.TB, set ...func(*Config)) *rig {
	t.Helper()
	return openRigAt(t, r.dir, r.at, r.kek, append(slices.Clone(r.with), set...)...)
}

// openRigAt starts a keeper with its database anywhere.
func openRigAt(t testing.TB, dir string, at store.Config, kek seal.KEK, set ...func(*Config)) *rig {
	t.Helper()
	db, err := store.OpenKeeper(t.Context(), at)
	if err != nil {
		t.Fatal(err)
	}
	c := Config{DB: db, Dir: dir, Region: "us", Base: "gate.example", Hosts: []string{"mx.us.gate.example"}, KEKs: []seal.KEK{kek}, Pool: -1}
	for _, f := range set {
		f(&c)
	}
	k, err := New(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- k.Run(ctx) }()
	r := &rig{Keeper: k, dir: dir, kek: kek, db: db, at: at, with: set}
	ended := false
	r.end = func() {
		if ended {
			return
		}
		ended = true
		cancel()
		if err := errors.Join(<-done, db.Close()); err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(r.end)
	return r
}

// about is what a request of acme's mailbox states.
func about(purpose string) act.Context {
	return act.Context{Region: "us", Tenant: "acme", Connection: "mailbox", Purpose: purpose, Trace: "t1"}
}

func someone() wire.Peer { return wire.Peer{Local: true, UID: 1000, PID: 1} }

// entries are the ledger's, oldest first.
func (r *rig) entries(t testing.TB) []ledger.Entry {
	t.Helper()
	all, err := r.ledger.Search(t.Context(), ledger.Filter{Limit: 1000})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestEntryAroundAnAct(t *testing.T) {
	r := newRig(t)
	for _, c := range []struct {
		err      error
		frequent bool
		outcome  string
	}{
		{nil, false, "done"},
		{nil, true, "done"},
		{fault.New(fault.Denied, "x", "not you"), false, "refused: not you"},
		{fault.New(fault.Later, "x", "the partner is away"), false, "failed: the partner is away"},
	} {
		before := r.ledger.Size()
		var seen int64
		_, err := carryOut(t.Context(), r.Keeper, task{peer: someone(), name: act.OpenCredential, about: about("smtp-auth"), subject: "s", frequent: c.frequent},
			func(context.Context) (act.Done, error) { seen = r.ledger.Size(); return act.Done{}, c.err })
		if err != c.err || seen != before+1 {
			t.Errorf("%v, and %d entries when it was done, %d before", err, seen, before)
		}
		for end := time.Now().Add(5 * time.Second); r.ledger.Size() < before+2 && time.Now().Before(end); {
			time.Sleep(time.Millisecond)
		}
		for end := time.Now().Add(5 * time.Second); fault.Is(c.err, fault.Denied) && r.ledger.Size() < before+3 && time.Now().Before(end); {
			time.Sleep(time.Millisecond)
		}
		all := r.entries(t)
		first, after := all[before], all[before+1]
		if after.Of == nil && len(all) > int(before)+2 { // the alarm of a refusal may come first
			after = all[before+2]
		}
		if first.Outcome != begun || first.Source != ledger.Witnessed || first.Tenant != "acme" || first.Connection != "mailbox" || first.Purpose != "smtp-auth" ||
			first.Trace != "t1" || first.Subject != "s" || first.Actor != someone().String() || after.Of == nil || *after.Of != first.Index || after.Outcome != c.outcome {
			t.Errorf("%+v\n%+v", first, after)
		}
	}
	if got := r.alarms.recent(); len(got) != 1 || got[0].Kind != alarmRefused || got[0].Tenant != "acme" {
		t.Errorf("%+v", got)
	}
}

// Nothing is done when the ledger takes no entry.
func TestNoEntryNoAct(t *testing.T) {
	r := newRig(t)
	r.end()
	_, err := carryOut(context.Background(), r.Keeper, task{peer: someone(), name: act.OpenCredential, about: about("smtp-auth")},
		func(context.Context) (act.Done, error) { t.Error("it was done"); return act.Done{}, nil })
	if !fault.Is(err, fault.Later) || fault.HintOf(err) == "" {
		t.Errorf("%v", err)
	}
}

// A keeper started again has the ledger and the data keys that it had.
func TestStartedAgain(t *testing.T) {
	r := newRig(t)
	if err := r.enter(t.Context(), ledger.Entry{Act: "x"}); err != nil {
		t.Fatal(err)
	}
	place := seal.Place{Region: "us", Tenant: "acme", Connection: "mailbox", Purpose: "smtp-auth", Kind: seal.Password}
	dk, err := r.seals.key(t.Context(), "acme")
	if err != nil {
		t.Fatal(err)
	}
	blob, err := dk.Seal(place, seal.NewSecret([]byte("secret")))
	if err != nil {
		t.Fatal(err)
	}
	size := r.ledger.Size()
	r.end()
	r = openRig(t, r.dir, r.kek)
	if r.ledger.Size() != size+1 || r.entries(t)[size].Act != actRemember { // the manifest of the start
		t.Errorf("%d entries of %d", r.ledger.Size(), size)
	}
	if dk, err = r.seals.key(t.Context(), "acme"); err != nil {
		t.Fatal(err)
	}
	if got, err := dk.Open(place, blob); err != nil || string(got.Bytes()) != "secret" {
		t.Errorf("%s: %v", got.Bytes(), err)
	}
}
