package keeper

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/keeper/act"
	"github.com/sallyport-mail/sallyport/internal/keeper/operator"
	"github.com/sallyport-mail/sallyport/internal/keeper/seal"
	"github.com/sallyport-mail/sallyport/internal/store"
	"github.com/sallyport-mail/sallyport/internal/testpeer"
)

// A standby follows its connection to another partner. One that can't be opened
// then ends, so that the order is carried out.
func TestStandbyRebound(t *testing.T) {
	second := newFickle(t)
	eachStore(t, func(t *testing.T, r *rig) {
		defer second.turn(nil) // before the next keeper begins: it looks at once
		r.boundAll(t, "acme")
		one, next := r.to(t, r.issued(t, "acme", ofClient, 0), act.Active), r.standby(t, "acme", ofClient, 2)
		to := aBinding()
		to.Port = 2525
		if err := r.rebind(t.Context(), "acme", "mailbox", to, nil); err != nil {
			t.Fatal(err)
		}
		if r.lies(t, next.ID) != standbySealer || r.loadable(t) < 2 {
			t.Error("it does not lie apart any more")
		}
		r.to(t, next, act.Staged)
		third := r.standby(t, "acme", ofClient, 3)
		second.turn(gone())
		to.Port = 2526
		if err := r.rebind(t.Context(), "acme", "mailbox", to, nil); err != nil {
			t.Fatal(err)
		}
		if now := r.show(t, third.ID); now.State != act.Retired || now.Explanation != lostWords {
			t.Errorf("%+v", now)
		}
		for _, i := range []act.Identity{one, next} {
			if err := r.shake(t, of("acme", ofClient), i.SHA256); err != nil {
				t.Error(err)
			}
		}
	}, apart(second))
}

// A standby that ended is destroyed like any other; where its key lies in a
// token, its name is opened for that, and a KEK that is away is waited for.
func TestStandbyDestroyed(t *testing.T) {
	token := &tokenDriver{}
	second := newFickle(t)
	for name, set := range map[string]func(*Config){"software": func(*Config) {}, "token": func(c *Config) { c.Driver = token }} {
		t.Run(name, func(t *testing.T) {
			second.turn(nil)
			r := newRig(t, apart(second), set)
			r.boundAll(t, "acme")
			next := r.to(t, r.standby(t, "acme", ofClient, 0), act.Retired)
			r.sql(t, "UPDATE keeper_identity SET changed_at = $1", r.now().Add(-time.Hour).UnixMicro())
			look := func() int {
				if err := r.destroyEnded(t.Context()); err != nil {
					t.Fatal(err)
				}
				row, err := r.row(t.Context(), selectByID, next.ID)
				if err != nil {
					t.Fatal(err)
				}
				return len(row.handle)
			}
			second.turn(gone())
			if left := look(); (left > 0) != (name == "token") {
				t.Errorf("%d bytes are left while the KEK is away", left)
			}
			second.turn(nil)
			r.standbys.found(nil)
			if left := look(); left != 0 {
				t.Errorf("%d bytes are left", left)
			}
		})
	}
	if len(token.removed) != 1 || token.removed[0].Tenant != "standby:acme" || token.removed[0].Kind != seal.PrivateKey {
		t.Errorf("%+v", token.removed)
	}
}

// Each KEK has its own rows and its own rotation: that of the region goes to its
// end while the KEK of standbys is away, and the other way round.
func TestStandbyRotation(t *testing.T) {
	s := newStaff(t)
	testpeer.EachConfig(t, func(t *testing.T, at store.Config) {
		dir := t.TempDir()
		at.Dir = filepath.Join(dir, "db")
		old, next := newKEK(t, "us"), newKEK(t, "us")
		oldApart, nextApart := newFickle(t), newFickle(t)
		r := openRigAt(t, dir, at, old, s.known, apart(oldApart))
		tenants := []string{"acme", "globex", "initech"}
		r.boundAll(t, tenants...)
		ready := map[string]act.Identity{}
		for _, tenant := range tenants {
			r.to(t, r.issued(t, tenant, ofClient, 0), act.Active)
			ready[tenant] = r.standby(t, tenant, ofClient, 2)
		}
		r.end()
		oldApart.turn(gone())
		r = r.again(t, func(c *Config) { c.KEKs = []seal.KEK{next, old} }, apart(nextApart, oldApart))
		r.apart.mu.Lock()
		r.apart.wait = time.Millisecond
		r.apart.mu.Unlock()
		total := r.keks(t, next.ID())
		got, err := r.order(t, signOrder(t, operator.RotateKEK, nextApart.ID(), nil, s.bert))
		if err != nil || !strings.HasPrefix(got.Text, "3 data keys go under") {
			t.Fatalf("%+v %v", got, err)
		}
		within(t, "it waits", func() bool { return strings.HasPrefix(r.rotations(), "standbys 0 of 3, waiting: ") })
		got, err = r.order(t, signOrder(t, operator.RotateKEK, next.ID(), nil, s.bert))
		if err != nil || !strings.HasPrefix(got.Text, fmt.Sprint(total, " data keys go under")) {
			t.Fatalf("%+v %v", got, err)
		}
		within(t, "the region's ends", func() bool { return r.rotation.progress() == "" })
		if r.keks(t, next.ID()) != 0 || !strings.HasPrefix(r.rotations(), "standbys 0 of 3") {
			t.Errorf("%d are left; %s", r.keks(t, next.ID()), r.rotations())
		}
		if _, err := r.order(t, signOrder(t, operator.RotateKEK, oldApart.ID(), nil, s.bert)); !fault.Is(err, fault.Conflict) || !strings.Contains(err.Error(), nextApart.ID()) {
			t.Errorf("to an old one: %v", err)
		}
		r.end()
		r = r.again(t, func(c *Config) { c.KEKs = []seal.KEK{next} }, apart(nextApart, oldApart)) // it goes on with what it remembers
		within(t, "it waits still", func() bool { return strings.HasPrefix(r.rotations(), "standbys 0 of 3, waiting: ") })
		r.end()
		oldApart.turn(nil)
		r = r.again(t, func(c *Config) { c.KEKs = []seal.KEK{next} }, apart(nextApart, oldApart))
		within(t, "that of standbys ends", func() bool { return r.rotations() == "" })
		r.end()
		r = r.again(t, func(c *Config) { c.KEKs = []seal.KEK{next} }, apart(nextApart))
		for _, i := range ready {
			if r.lies(t, i.ID) != standbySealer {
				t.Errorf("%+v", i)
			}
			r.to(t, i, act.Staged)
		}
		r.loadable(t)
	})
}

// The pool's keys have lain under the region's KEK: a standby is none of them.
func TestStandbyOfNoPool(t *testing.T) {
	r := newRig(t, apart(newFickle(t)), func(c *Config) { c.Pool = 1 })
	r.boundAll(t, "acme")
	spare := func() int64 {
		n, err := r.spares(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	until(t, "a spare key is there", func() bool { return spare() == 1 })
	var id string
	if err := r.door.QueryRow(t.Context(), `SELECT id FROM keeper_spare`).Scan(&id); err != nil {
		t.Fatal(err)
	}
	r.to(t, r.standby(t, "acme", app, 0), act.Active)
	var left string
	if err := r.door.QueryRow(t.Context(), `SELECT id FROM keeper_spare`).Scan(&left); err != nil || left != id {
		t.Errorf("the spare key %s was taken: %s %v", id, left, err)
	}
	r.loadable(t)
}

// A backup holds them as sealed as they were; restored, thawed and kept they are
// used with both KEKs.
func TestStandbyRestored(t *testing.T) {
	s := newStaff(t)
	second := newFickle(t)
	r := newRig(t, apart(second), s.known)
	r.boundAll(t, "acme")
	one := r.to(t, r.issued(t, "acme", ofClient, 0), act.Active)
	next, other := r.standby(t, "acme", ofClient, 2), r.standby(t, "acme", app, 0)
	var b bytes.Buffer
	if err := backup(t.Context(), r.db, &b); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	at := store.Config{Dir: filepath.Join(dir, "db")}
	if err := Restore(t.Context(), &b, at); err != nil {
		t.Fatal(err)
	}
	before := second.count()
	n := openRigAt(t, dir, at, r.kek, r.with...)
	n.atRest(t, "backup of")
	if second.count() != before {
		t.Error("a frozen keeper asks the second KEK")
	}
	if _, err := n.order(t, signOrder(t, operator.Thaw, "", map[string]string{"keep": one.ID + "," + next.ID}, s.anna, s.bert)); err != nil {
		t.Fatal(err)
	}
	within(t, "it is at work", func() bool { return n.holding.Load() })
	n.to(t, next, act.Staged)
	if err := n.shake(t, of("acme", ofClient), next.SHA256); err != nil || n.show(t, other.ID).State != act.Retired {
		t.Errorf("%+v %v", n.show(t, other.ID), err)
	}
}

// dyingEnv names the call of the second KEK at which the process of
// TestStandbyKilled ends.
const dyingEnv = "SALLYPORT_TEST_STANDBY"

// dying is a KEK at one of whose calls, before or after it is answered, the
// process is killed.
type dying struct {
	seal.KEK
	after bool
	left  atomic.Int64 // calls until then, 0: it does not die yet
}

func (d *dying) around(do func()) {
	last := d.left.Load() > 0 && d.left.Add(-1) == 0
	if last && !d.after {
		die()
	}
	do()
	if last && d.after {
		die()
	}
}

func die() {
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {} // until it arrives
}

func (d *dying) Wrap(ctx context.Context, clearKey seal.Secret, associated []byte) (blob []byte, err error) {
	d.around(func() { blob, err = d.KEK.Wrap(ctx, clearKey, associated) })
	return blob, err
}

func (d *dying) Unwrap(ctx context.Context, blob, associated []byte) (s seal.Secret, err error) {
	d.around(func() { s, err = d.KEK.Unwrap(ctx, blob, associated) })
	return s, err
}

// TestStandbyDyingChild is the process that TestStandbyKilled kills: it makes a
// standby and takes it into use.
func TestStandbyDyingChild(t *testing.T) {
	text, ok := os.LookupEnv(dyingEnv)
	if !ok {
		t.SkipNow() // it is no test
	}
	parts := strings.SplitN(text, " ", 4)
	n, err := strconv.Atoi(parts[0])
	if err != nil {
		t.Fatal(err)
	}
	dir := parts[2]
	d := &dying{KEK: readKEK(t, filepath.Join(dir, "second")), after: parts[1] == "after"}
	r := openRigAt(t, dir, store.Config{Dir: filepath.Join(dir, "db"), URL: parts[3]}, readKEK(t, filepath.Join(dir, "first")), apart(d))
	within(t, "it has looked at its KEK", func() bool { _, due := r.standbys.due(); return !due })
	d.left.Store(int64(n))
	r.to(t, r.standby(t, "acme", ofClient, 2), act.Staged)
}

// TestStandbyKilled kills the keeper at each step of making a standby and taking
// it out of where it lies. What is left is whole, and the work can be done again.
func TestStandbyKilled(t *testing.T) {
	testpeer.EachConfig(t, func(t *testing.T, at store.Config) {
		n := 1
		for killedAt(t, at, n, "after") && (at.URL != "" || killedAt(t, at, n, "before")) { // those take long there
			n++
		}
		if n < 4 { // wrapped, opened for the new key, opened for its use
			t.Errorf("the second KEK was asked %d times", n-1)
		}
	})
}

// killedAt kills it at a call of the second KEK, looks at what is left and does
// the work again; false when there was no such call.
func killedAt(t *testing.T, at store.Config, n int, when string) bool {
	t.Helper()
	if at.URL != "" {
		at.URL = testpeer.SharedPostgres(t).Database(t)
	}
	dir := t.TempDir()
	at.Dir = filepath.Join(dir, "db")
	first, second := kekFile(t, filepath.Join(dir, "first")), kekFile(t, filepath.Join(dir, "second"))
	r := openRigAt(t, dir, at, first, apart(second))
	r.boundAll(t, "acme")
	one := r.to(t, r.issued(t, "acme", ofClient, 0), act.Active)
	r.end()

	c := exec.Command(os.Args[0], "-test.run=^TestStandbyDyingChild$", "-test.timeout=60s")
	c.Env = append(os.Environ(), fmt.Sprintf("%s=%d %s %s %s", dyingEnv, n, when, dir, at.URL))
	said, err := c.Output()
	var ended *exec.ExitError
	killed := errors.As(err, &ended) && ended.String() == "signal: killed"
	if err != nil && !killed {
		t.Fatalf("%v\n%s", err, said)
	}

	r = openRigAt(t, dir, at, first, apart(second), func(c *Config) {
		c.Now = func() time.Time { return time.Now().Add(11 * time.Minute) }
	})
	r.loadable(t)
	if err := r.shake(t, of("acme", ofClient), one.SHA256); err != nil {
		t.Error(err)
	}
	all, err := r.rows(t.Context(), selectConnection, "acme", "mailbox")
	if err != nil {
		t.Fatal(err)
	}
	var next *act.Identity
	for _, row := range all {
		if row.id == one.ID {
			continue
		}
		if in := row.state == act.Issued || row.state == act.Wanted; in != (row.sealer == standbySealer) {
			t.Errorf("%d %s: it is %s and sealed as %q", n, when, row.state, row.sealer)
		}
		next = new(row.told())
	}
	if next == nil {
		next = new(r.standby(t, "acme", ofClient, 2))
	}
	if next.State == act.Issued {
		next = new(r.to(t, *next, act.Staged))
	}
	if err := r.shake(t, of("acme", ofClient), next.SHA256); err != nil {
		t.Errorf("%d %s: %v", n, when, err)
	}
	r.end()
	return killed
}
