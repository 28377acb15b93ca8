package keeper

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/keeper/act"
	"github.com/sallyport-mail/sallyport/internal/keeper/operator"
	"github.com/sallyport-mail/sallyport/internal/keeper/seal"
	"github.com/sallyport-mail/sallyport/internal/ledger"
	"github.com/sallyport-mail/sallyport/internal/store"
	"github.com/sallyport-mail/sallyport/internal/testpeer"
)

// slowKEK is a KEK that takes its time, as one in a service does, and may be
// away.
type slowKEK struct {
	seal.KEK
	wait time.Duration
	away func() bool
}

func (k slowKEK) Wrap(ctx context.Context, clearKey seal.Secret, associated []byte) ([]byte, error) {
	time.Sleep(k.wait)
	if k.away != nil && k.away() {
		return nil, fault.New(fault.Later, "test", "the service is away").WithHint("Wait.")
	}
	return k.KEK.Wrap(ctx, clearKey, associated)
}

// kekFile writes a KEK file and opens it.
func kekFile(t testing.TB, path string) seal.KEK {
	t.Helper()
	file, err := seal.NewKEKFile("us", seal.NewSecret([]byte("a passphrase")), seal.Cost{Passes: 1, MemoryKB: 19 << 10, Lanes: 1})
	if err == nil {
		err = os.WriteFile(path, file, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	return readKEK(t, path)
}

func readKEK(t testing.TB, path string) seal.KEK {
	t.Helper()
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	kek, err := seal.OpenKEKFile("us", file, seal.NewSecret([]byte("a passphrase")))
	if err != nil {
		t.Fatal(err)
	}
	return kek
}

// rotating is what the child of TestRotationKilled is told.
type rotating struct {
	Dir      string
	Files    string // of the database
	URL      string
	Operator string // the line of the one who signed
	Order    []byte // "" after the first time
}

const rotatingEnv = "SALLYPORT_TEST_ROTATING"

// TestRotatingChild is the process that TestRotationKilled kills. It tells how
// far it is until then.
func TestRotatingChild(t *testing.T) {
	text, ok := os.LookupEnv(rotatingEnv)
	if !ok {
		t.SkipNow() // it is no test
	}
	var q rotating
	if err := json.Unmarshal([]byte(text), &q); err != nil {
		t.Fatal(err)
	}
	public, err := operator.ParsePublic(q.Operator)
	if err != nil {
		t.Fatal(err)
	}
	r := openRigAt(t, q.Dir, store.Config{Dir: q.Files, URL: q.URL}, readKEK(t, filepath.Join(q.Dir, "old")), func(c *Config) {
		c.KEKs = []seal.KEK{slowKEK{KEK: readKEK(t, filepath.Join(q.Dir, "new")), wait: time.Millisecond}, c.KEKs[0]}
		c.Operators = []operator.Public{public}
	})
	if len(q.Order) > 0 {
		if _, err := r.order(t, q.Order); err != nil {
			t.Fatal(err)
		}
	}
	for {
		fmt.Println("progress", r.rotation.progress())
		time.Sleep(5 * time.Millisecond)
	}
}

// killAt runs the child until it is that far, and kills it.
func killAt(t *testing.T, q rotating, far int) {
	t.Helper()
	text, err := json.Marshal(q)
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command(os.Args[0], "-test.run=^TestRotatingChild$", "-test.timeout=60s")
	c.Env = append(os.Environ(), rotatingEnv+"="+string(text))
	c.Stderr = os.Stderr
	out, err := c.StdoutPipe()
	if err == nil {
		err = c.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	defer c.Wait()
	defer c.Process.Kill()
	said := ""
	for b := make([]byte, 4096); ; {
		n, err := out.Read(b)
		said += string(b[:n])
		lines := strings.Split(said, "\n")
		if len(lines) > 1 {
			last := strings.Fields(lines[len(lines)-2])
			if len(last) >= 2 && last[0] == "progress" {
				if done, err := strconv.Atoi(last[1]); err == nil && done >= far {
					return
				}
			}
			said = lines[len(lines)-1]
		}
		if err != nil {
			if !errors.Is(err, io.EOF) {
				t.Error(err)
			}
			t.Fatalf("the child ended by itself: %s", said)
		}
	}
}

// manyTenants makes data keys, many at a time.
func (r *rig) manyTenants(t testing.TB, n int) {
	t.Helper()
	var all sync.WaitGroup
	for w := range 50 {
		all.Go(func() {
			for i := w; i < n; i += 50 {
				if _, err := r.seals.key(context.Background(), fmt.Sprintf("t%05d", i)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
}

// keks counts data keys by KEK.
func (r *rig) keks(t testing.TB, id string) int64 {
	t.Helper()
	left, _, err := r.rotation.under(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	return left
}

// A rotation that is killed twice goes on where it was, and in the end each
// data key is under the new KEK and opens what it opened.
func TestRotationKilled(t *testing.T) {
	const many = 1200
	s := newStaff(t)
	testpeer.EachConfig(t, func(t *testing.T, at store.Config) {
		dir := t.TempDir()
		at.Dir = filepath.Join(dir, "db")
		old, next := kekFile(t, filepath.Join(dir, "old")), kekFile(t, filepath.Join(dir, "new"))
		r := openRigAt(t, dir, at, old, s.known)
		r.manyTenants(t, many)
		r.bindTo(t, "mx.acme.example", "t00003/mailbox", "t01100/mailbox")
		total := r.keks(t, "all of them") // with the region's own
		r.set(t, "t00003/mailbox", "u", "of three")
		r.set(t, "t01100/mailbox", "u", "of eleven hundred")
		r.end()

		q := rotating{Dir: dir, Files: at.Dir, URL: at.URL, Operator: s.anna.Public().String(), Order: signOrder(t, operator.RotateKEK, next.ID(), nil, s.anna)}
		killAt(t, q, 200)
		q.Order = nil
		killAt(t, q, 700)

		r = openRigAt(t, dir, at, old, func(c *Config) { c.KEKs = []seal.KEK{slowKEK{KEK: next, wait: time.Millisecond}, old} })
		if left := r.keks(t, next.ID()); left < 100 || left > total-700 {
			t.Errorf("%d of %d are left after it was killed", left, many)
		}
		within(t, "the rotation ends", func() bool {
			for _, c := range []string{"t00003/mailbox", "t01100/mailbox"} { // used meanwhile
				if _, err := r.open(c); err != nil && !fault.Is(err, fault.Later) {
					t.Fatal(err)
				}
			}
			return r.rotation.progress() == ""
		})
		if left := r.keks(t, next.ID()); left != 0 {
			t.Errorf("%d are left", left)
		}
		r.end()

		// The old KEK is not needed any more.
		r = openRigAt(t, dir, at, next, func(c *Config) { c.Limit = 10_000 })
		for i := range many {
			if _, err := r.seals.key(t.Context(), fmt.Sprintf("t%05d", i)); err != nil {
				t.Fatal(err)
			}
		}
		lift(t, r)
		if got, err := r.open("t01100/mailbox"); err != nil || got.Password != "of eleven hundred" {
			t.Errorf("%+v: %v", got, err)
		}
		var told []string
		all, err := r.ledger.Search(t.Context(), ledger.Filter{Act: operator.RotateKEK, Actor: "keeper"})
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range all {
			told = append(told, e.Outcome)
		}
		// Its beginning, each time it was started, the second thousand, the end.
		if len(told) < 4 || len(told) > 6 || !strings.HasPrefix(told[0], "0 of ") || told[len(told)-1] != carried {
			t.Errorf("%q", told)
		}
	})
}

// lift sets the breaker back, should the openings of a test have tripped it.
func lift(t testing.TB, r *rig) {
	t.Helper()
	if err := r.Keeper.forget(t.Context(), rememberBreaker); err != nil {
		t.Fatal(err)
	}
	if err := r.openBreaker(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestRotation(t *testing.T) {
	s := newStaff(t)
	r := newRig(t, s.known)
	r.manyTenants(t, 250)
	total := r.keks(t, "all of them") // with the region's own
	old, next := r.kek, newKEK(t, "us")
	r.end()
	away := make(chan bool, 1)
	away <- true
	isAway := func() bool { is := <-away; away <- is; return is }
	r = r.again(t, func(c *Config) { c.KEKs = []seal.KEK{slowKEK{KEK: next, away: isAway}, old} })
	r.rotation.mu.Lock()
	r.rotation.wait = time.Millisecond
	r.rotation.mu.Unlock()
	if _, err := r.order(t, signOrder(t, operator.RotateKEK, old.ID(), nil, s.bert)); !fault.Is(err, fault.Conflict) || fault.HintOf(err) == "" {
		t.Errorf("to the one that is not in force: %v", err)
	}
	if r.keks(t, old.ID()) != 0 {
		t.Error("rows were moved without an order")
	}
	// A row that was edited stays, and is told of.
	r.edit(t, `UPDATE keeper_datakey SET blob = (SELECT blob FROM keeper_datakey WHERE tenant = 't00001') WHERE tenant = 't00002'`)
	got, err := r.order(t, signOrder(t, operator.RotateKEK, next.ID(), nil, s.bert))
	if err != nil || !strings.HasPrefix(got.Text, fmt.Sprint(total, " data keys")) {
		t.Fatalf("%+v: %v", got, err)
	}
	within(t, "it waits", func() bool { return strings.Contains(r.rotation.progress(), "away") })
	if _, err := r.order(t, signOrder(t, operator.RotateKEK, next.ID(), nil, s.bert)); !fault.Is(err, fault.Conflict) {
		t.Errorf("a second time: %v", err)
	}
	state, err := r.Status(t.Context(), someone(), act.Plain{})
	if err != nil || !strings.HasPrefix(state.Rotation, fmt.Sprintf("0 of %d, waiting", total)) || state.KEK != next.ID() {
		t.Errorf("%+v: %v", state, err)
	}
	<-away
	away <- false
	within(t, "it ends", func() bool { return r.rotation.progress() == "" })
	if left := r.keks(t, next.ID()); left != 1 || !r.hasAlarm(alarmRotation) {
		t.Errorf("%d are left", left)
	}
	all := r.entries(t)
	within(t, "the end is entered", func() bool {
		for _, e := range all {
			if e.Act == operator.RotateKEK && strings.Contains(e.Outcome, fmt.Sprintf("1 of %d data keys did not open", total)) {
				return true
			}
		}
		all = r.entries(t)
		return false
	})
	r.end()
	// A row under a KEK that was not given stops an order before it begins.
	r = r.again(t, func(c *Config) { c.KEKs = []seal.KEK{next} })
	if _, err := r.order(t, signOrder(t, operator.RotateKEK, next.ID(), nil, s.bert)); !fault.Is(err, fault.Conflict) || !strings.Contains(err.Error(), old.ID()) {
		t.Errorf("without the old one: %v", err)
	}
}
