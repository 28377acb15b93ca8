package keeper

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/keeper/act"
	"github.com/sallyport-mail/sallyport/internal/keeper/seal"
	"github.com/sallyport-mail/sallyport/internal/store"
)

// fickle is a KEK that comes and goes, and counts what it is asked.
type fickle struct {
	seal.KEK
	mu     sync.Mutex
	asked  int
	answer error
	hangs  bool // until who asks has no time left
}

func newFickle(t testing.TB) *fickle { return &fickle{KEK: newKEK(t, "us")} }

func (f *fickle) turn(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.answer = err
}

func (f *fickle) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.asked
}

func (f *fickle) ask(ctx context.Context) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked++
	if f.hangs {
		<-ctx.Done()
		return fault.Wrap(fault.Later, "test", ctx.Err())
	}
	return f.answer
}

func (f *fickle) Wrap(ctx context.Context, clearKey seal.Secret, associated []byte) ([]byte, error) {
	if err := f.ask(ctx); err != nil {
		return nil, err
	}
	return f.KEK.Wrap(ctx, clearKey, associated)
}

func (f *fickle) Unwrap(ctx context.Context, blob, associated []byte) (seal.Secret, error) {
	if err := f.ask(ctx); err != nil {
		return seal.Secret{}, err
	}
	return f.KEK.Unwrap(ctx, blob, associated)
}

func gone() error { return fault.New(fault.Later, "test", "the service is gone").WithHint("Wait.") }

// apart gives a keeper a KEK of standbys.
func apart(keks ...seal.KEK) func(*Config) { return func(c *Config) { c.StandbyKEKs = keks } }

// standby issues the next identity as quiet time does.
func (r *rig) standby(t testing.TB, tenant, purpose string, epoch uint64) act.Identity {
	t.Helper()
	got, err := r.tryStandby(t, tenant, purpose, epoch)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func (r *rig) tryStandby(t testing.TB, tenant, purpose string, epoch uint64) (act.Identity, error) {
	t.Helper()
	return r.IssueIdentity(t.Context(), someone(), act.Issue{Context: of(tenant, purpose), Epoch: epoch, Standby: true})
}

// lies reports what a row's key is sealed under.
func (r *rig) lies(t testing.TB, id string) string {
	t.Helper()
	one, err := r.row(t.Context(), selectByID, id)
	if err != nil {
		t.Fatal(err)
	}
	return one.sealer
}

// Who has the keeper's rows and the region's KEK has what is in use, and not
// what follows it; that comes under the tenant's own key when it is used.
func TestStandbyApart(t *testing.T) {
	second := newFickle(t)
	eachStore(t, func(t *testing.T, r *rig) {
		r.boundAll(t, "acme")
		first := r.to(t, r.issued(t, "acme", ofClient, 0), act.Active)
		before := second.count()
		if err := r.shake(t, of("acme", ofClient), first.SHA256); err != nil || second.count() != before {
			t.Errorf("an ordinary identity asks the second KEK: %v", err)
		}
		next := r.standby(t, "acme", ofClient, 2)
		if !next.Apart || first.Apart || r.lies(t, next.ID) != standbySealer || r.lies(t, first.ID) != "" {
			t.Errorf("%+v beside %+v", next, first)
		}
		w, err := r.seals.row(t.Context(), "standby:acme")
		if err != nil || w.KEK != second.ID() {
			t.Errorf("%+v %v", w, err)
		}

		// The thief opens every row that the region's KEK leads to.
		row, err := r.row(t.Context(), selectByID, next.ID)
		if err != nil {
			t.Fatal(err)
		}
		own, err := r.seals.key(t.Context(), "acme")
		if err != nil {
			t.Fatal(err)
		}
		for _, sealer := range []string{"", standbySealer} {
			edited := *row
			edited.sealer = sealer
			p, err := edited.place("us", seal.PrivateKey)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := own.Open(p, row.handle); err == nil {
				t.Error("the tenant's data key opens a standby")
			}
		}
		if _, err := seal.OpenDataKey(t.Context(), r.kek, "us", "standby:acme", w); err == nil {
			t.Error("the region's KEK opens the data key of standbys")
		}

		for range 2 { // the key is opened for each act
			before = second.count()
			if _, err := r.load(t.Context(), row); err != nil || second.count() == before {
				t.Errorf("asked %d times: %v", second.count()-before, err)
			}
		}
		r.seals.mu.Lock()
		for tenant := range r.seals.open {
			if strings.HasPrefix(tenant, "standby:") {
				t.Errorf("the data key %s stays open", tenant)
			}
		}
		r.seals.mu.Unlock()

		next = r.to(t, next, act.Staged)
		if next.Apart || r.lies(t, next.ID) != "" {
			t.Errorf("in use and apart: %+v", next)
		}
		before = second.count()
		if err := r.shake(t, of("acme", ofClient), next.SHA256); err != nil {
			t.Error(err)
		}
		r.to(t, next, act.Issued, act.Staged, act.Active) // back in the drawer it is what it was
		if err := r.shake(t, of("acme", ofClient), next.SHA256); err != nil || second.count() != before {
			t.Errorf("one in use asks the second KEK: %v", err)
		}
		renewed := r.standby(t, "acme", ofClient, 3)
		r.to(t, first, act.Retired)
		r.to(t, renewed, act.Active) // also without a stage between
		if r.lies(t, renewed.ID) != "" || r.loadable(t) < 3 {
			t.Error("the third is not what it should be")
		}
		if _, err := r.IssueIdentity(t.Context(), someone(), act.Issue{Context: act.Context{Region: "us", Tenant: "acme", Connection: "acme.example", Purpose: "dkim", Trace: "t"}, Standby: true}); !fault.Is(err, fault.Invalid) {
			t.Errorf("a standby for messages: %v", err)
		}
	}, apart(second))
}

// What says where a key lies is not to be edited, nor are the keys to be swapped
// between the two rings. An end is always possible.
func TestStandbyEdited(t *testing.T) {
	eachStore(t, func(t *testing.T, r *rig) {
		const sealedAs store.KeeperSQL = `UPDATE keeper_identity SET sealer = $1 WHERE id = $2`
		r.boundAll(t, "acme", "globex")
		for _, tenant := range []string{"acme", "globex"} {
			r.to(t, r.issued(t, tenant, ofClient, 0), act.Active)
			r.standby(t, tenant, app, 0)
		}
		ordinary, next := r.issued(t, "acme", ofClient, 0), r.standby(t, "acme", ofClient, 2)
		whole := map[string]seal.Wrapped{}
		for _, tenant := range []string{"acme", "standby:acme", "standby:globex"} {
			w, err := r.seals.row(t.Context(), tenant)
			if err != nil {
				t.Fatal(err)
			}
			whole[tenant] = w
		}
		const key store.KeeperSQL = `UPDATE keeper_datakey SET kek = $1, blob = $2 WHERE tenant = 'standby:acme'`
		swap := func(kek string, blob []byte) func() { return func() { r.sql(t, key, kek, blob) } }
		at := whole["standby:acme"].KEK
		for name, c := range map[string]struct {
			edit, undo func()
			of         act.Identity
			kind       fault.Kind
		}{
			"a standby made ordinary":   {func() { r.sql(t, sealedAs, "", next.ID) }, func() { r.sql(t, sealedAs, standbySealer, next.ID) }, next, fault.Denied},
			"one made a standby":        {func() { r.sql(t, sealedAs, standbySealer, ordinary.ID) }, func() { r.sql(t, sealedAs, "", ordinary.ID) }, ordinary, fault.Denied},
			"something else":            {func() { r.sql(t, sealedAs, "region", next.ID) }, func() { r.sql(t, sealedAs, standbySealer, next.ID) }, next, fault.Denied},
			"another tenant's key":      {swap(at, whole["standby:globex"].Blob), swap(at, whole["standby:acme"].Blob), next, fault.Denied},
			"the tenant's own, renamed": {swap(at, whole["acme"].Blob), swap(at, whole["standby:acme"].Blob), next, fault.Denied},
			"the tenant's own":          {swap(whole["acme"].KEK, whole["acme"].Blob), swap(at, whole["standby:acme"].Blob), next, fault.Later},
		} {
			c.edit()
			for _, to := range []act.IdentityState{act.Staged, act.Active} {
				if _, err := r.tryMove(t, c.of, to); !fault.Is(err, c.kind) || fault.HintOf(err) == "" {
					t.Errorf("%s: %v", name, err)
				}
			}
			if why := r.standbys.reason(); why != "" {
				t.Errorf("%s: the KEK is said to be away: %s", name, why)
			}
			c.undo()
		}
		r.alarmed(t, alarmRefused, "acme")
		r.loadable(t)
		r.sql(t, sealedAs, "", next.ID)
		r.to(t, next, act.Compromised)
	}, apart(newFickle(t)))
}

// Nothing but standbys waits for the second KEK, whatever keeps it away.
func TestStandbyAway(t *testing.T) {
	for name, why := range map[string]error{
		"gone":                 gone(),
		"taken from us":        fault.New(fault.Denied, "test", "the transit service answered 403").WithHint("Give the keeper's token the policy."),
		"the key is not there": fault.New(fault.Missing, "test", "the transit service answered 404").WithHint("Check the mount."),
	} {
		t.Run(name, func(t *testing.T) {
			second := newFickle(t)
			r := newRig(t, apart(second))
			r.boundAll(t, "acme")
			one, next := r.to(t, r.issued(t, "acme", ofClient, 0), act.Active), r.standby(t, "acme", ofClient, 2)
			second.turn(why)
			made := r.loadableBut(t)
			for range 2 {
				if _, err := r.tryStandby(t, "acme", app, 0); !fault.Is(err, fault.Later) || !strings.Contains(err.Error(), "the KEK of standbys is away") || fault.HintOf(err) == "" {
					t.Errorf("made: %v", err)
				}
				if _, err := r.tryMove(t, next, act.Staged); !fault.Is(err, fault.Later) {
					t.Errorf("used: %v", err)
				}
			}
			if asked := second.count(); asked > 8 {
				t.Errorf("it was asked %d times", asked)
			}
			if now := r.show(t, next.ID); now.State != act.Issued || !now.Apart || r.loadableBut(t) != made {
				t.Errorf("it is %+v, and there are %d rows of %d", now, r.loadableBut(t), made)
			}
			s, err := r.Status(t.Context(), someone(), act.Plain{})
			if err != nil || !strings.Contains(s.StandbyAway, "away") || s.StandbyKEK != second.ID() || s.StandbyDriver != "file" {
				t.Errorf("%+v %v", s, err)
			}
			r.alarmed(t, alarmStandby, "")
			if r.hasAlarm(alarmRefused) {
				t.Errorf("a KEK that is away is told as a row that was edited: %+v", r.alarms.recent())
			}

			if err := r.shake(t, of("acme", ofClient), one.SHA256); err != nil {
				t.Error(err)
			}
			renewed := r.issued(t, "acme", ofClient, 0)
			third := r.to(t, r.issued(t, "acme", ofClient, 3), act.Staged, act.Active)
			r.to(t, one, act.Retired)
			r.to(t, renewed, act.Retired)
			if err := r.shake(t, of("acme", ofClient), third.SHA256); err != nil {
				t.Error(err)
			}
			r.end()
			r = r.again(t) // it need not be there at a start
			if err := r.shake(t, of("acme", ofClient), third.SHA256); err != nil {
				t.Error(err)
			}
			r.standbys.mu.Lock()
			r.standbys.rest = time.Millisecond
			r.standbys.mu.Unlock()
			second.turn(nil)
			within(t, "it is used when the KEK is back", func() bool { _, err := r.tryMove(t, next, act.Staged); return err == nil })
			if why := r.standbys.reason(); why != "" {
				t.Error(why)
			}
		})
	}
}

// loadableBut counts the rows of tenants.
func (r *rig) loadableBut(t testing.TB) (n int) {
	t.Helper()
	all, err := r.rows(t.Context(), selectPageOfAll, "", "", "", int64(0), "", 1000)
	if err != nil {
		t.Fatal(err)
	}
	for _, one := range all {
		if one.tenant != hostsTenant {
			n++
		}
	}
	return n
}

// One key for both is refused, wherever in the settings it stands.
func TestStandbyKEKIsAnother(t *testing.T) {
	db, err := store.OpenKeeper(t.Context(), store.Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	a, b, c := newKEK(t, "us"), newKEK(t, "us"), newKEK(t, "us")
	for name, keks := range map[string][2][]seal.KEK{
		"the one":      {{a}, {a}},
		"an old one":   {{b, a}, {a}},
		"then old one": {{a}, {c, a}},
	} {
		_, err := New(t.Context(), Config{DB: db, Dir: t.TempDir(), Region: "us", Base: "gate.example", KEKs: keks[0], StandbyKEKs: keks[1], Pool: -1})
		if !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), a.ID()) || fault.HintOf(err) == "" {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// What was made before there was a second KEK stays where it is and is used; what
// was made under one that the settings name no more waits, and nothing else does.
func TestStandbyComesAndGoes(t *testing.T) {
	second := newFickle(t)
	eachRig(t, func(t *testing.T, r *rig) {
		r.boundAll(t, "acme")
		first := r.to(t, r.issued(t, "acme", ofClient, 0), act.Active)
		early := r.standby(t, "acme", ofClient, 2)
		if early.Apart {
			t.Errorf("%+v", early)
		}
		r.end()
		r = r.again(t, apart(second))
		late := r.standby(t, "acme", ofClient, 3)
		r.to(t, early, act.Active)
		r.to(t, first, act.Retired)
		r.end()
		r = r.again(t, apart())
		if _, err := r.tryMove(t, late, act.Active); !fault.Is(err, fault.Later) || !strings.Contains(fault.HintOf(err), "[kek_standby]") {
			t.Errorf("without its KEK: %v", err)
		}
		if err := r.shake(t, of("acme", ofClient), early.SHA256); err != nil {
			t.Error(err)
		}
		if ordinary := r.standby(t, "acme", app, 0); ordinary.Apart {
			t.Errorf("%+v", ordinary)
		}
		r.to(t, late, act.Retired)
	})
}

// A KEK that hangs costs one act its time; the next is refused at once.
func TestStandbyHangs(t *testing.T) {
	second := newFickle(t)
	r := newRig(t, apart(second))
	r.boundAll(t, "acme")
	next := r.standby(t, "acme", ofClient, 0)
	second.mu.Lock()
	second.hangs = true
	second.mu.Unlock()
	for _, most := range []time.Duration{standbyTime + 3*time.Second, time.Second} {
		begun := time.Now()
		if _, err := r.tryMove(t, next, act.Active); !fault.Is(err, fault.Later) || time.Since(begun) > most {
			t.Errorf("after %v: %v", time.Since(begun), err)
		}
	}
	second.mu.Lock()
	second.hangs = false
	second.mu.Unlock()
}
