package keeper

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/keeper/act"
	"github.com/sallyport-mail/sallyport/internal/keeper/seal"
	"github.com/sallyport-mail/sallyport/internal/ledger"
	"github.com/sallyport-mail/sallyport/internal/ledger/audit"
)

const (
	killEnv     = "SALLYPORT_KEEPER_KILL"
	killTenants = 8
)

// report is what the killed process told of something that it was told is done.
type report struct {
	ID string            `json:"id"`
	To act.IdentityState `json:"to"`
}

// TestKill kills a keeper in a storm of issues, moves, handshakes, orders and
// releases, again and again, opens what is left, and finds it whole.
func TestKill(t *testing.T) {
	dir := t.TempDir()
	kek, second := keptKEK(t, dir, "kek"), keptKEK(t, dir, "second")
	rounds := 4
	if testing.Short() {
		rounds = 1
	}
	last := map[string]act.IdentityState{}
	for round := range rounds {
		told := stormUntilKilled(t, dir, time.Duration(100+rand.IntN(700))*time.Millisecond)
		if len(told) == 0 {
			t.Fatal("the storm told nothing")
		}
		for _, r := range told {
			last[r.ID] = r.To
		}
		r := openRig(t, dir, kek, apart(second), func(c *Config) {
			c.Now = func() time.Time { return time.Now().Add(11 * time.Minute) }
		})
		n := r.loadable(t)
		r.sound(t, last)
		t.Logf("round %d: %d told, %d rows, %d entries", round, len(told), n, r.ledger.Size())
		r.end()
	}
}

// keptKEK is a KEK that the next process opens too.
func keptKEK(t testing.TB, dir, name string) seal.KEK {
	t.Helper()
	path, pass := filepath.Join(dir, name), func() seal.Secret { return seal.NewSecret([]byte("a passphrase")) }
	file, err := os.ReadFile(path)
	if os.IsNotExist(err) {
		if file, err = seal.NewKEKFile("us", pass(), seal.Cost{Passes: 1, MemoryKB: 19 << 10, Lanes: 1}); err == nil {
			err = os.WriteFile(path, file, 0o600)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	kek, err := seal.OpenKEKFile("us", file, pass())
	if err != nil {
		t.Fatal(err)
	}
	return kek
}

// stormUntilKilled runs the storm in a process of its own, and kills it some
// time after its first word.
func stormUntilKilled(t *testing.T, dir string, life time.Duration) []report {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestKillStorm$")
	cmd.Env = append(os.Environ(), killEnv+"="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var told []report
	var strange strings.Builder
	for lines := bufio.NewScanner(out); lines.Scan(); {
		var r report
		if json.Unmarshal(lines.Bytes(), &r) != nil { // the last may have been cut
			strange.WriteString(lines.Text() + "\n")
			continue
		}
		if len(told) == 0 {
			time.AfterFunc(life, func() { cmd.Process.Kill() })
		}
		told = append(told, r)
	}
	if err := cmd.Wait(); err == nil || err.Error() != "signal: killed" {
		t.Fatalf("the storm ended by itself: %v\n%s", err, strange.String())
	}
	return told
}

// TestKillStorm is the process that TestKill kills; alone it does nothing.
func TestKillStorm(t *testing.T) {
	dir := os.Getenv(killEnv)
	if dir == "" {
		t.Skip("only as a child of TestKill")
	}
	r := openRig(t, dir, keptKEK(t, dir, "kek"), apart(keptKEK(t, dir, "second")), func(c *Config) { c.Pool = 2 })
	var all sync.WaitGroup
	for i := range killTenants {
		all.Go(func() { r.storm(t, fmt.Sprintf("tenant%d", i)) })
	}
	all.Wait()
}

// storm does what comes to mind with a tenant, and tells what is done.
func (r *rig) storm(t *testing.T, tenant string) {
	ids, newest := map[string]act.Identity{}, map[string]uint64{}
	before, err := r.list(t.Context(), act.IdentityQuery{Context: of(tenant, "list")})
	if err != nil {
		t.Error(err)
	}
	for _, i := range before.Identities {
		ids[i.ID], newest[i.Purpose] = i, i.Epoch
	}
	tell := func(i act.Identity, err error) {
		switch {
		case err == nil:
			ids[i.ID], newest[i.Purpose] = i, max(newest[i.Purpose], i.Epoch)
			line, err := json.Marshal(report{i.ID, i.State})
			if err != nil {
				t.Error(err)
			}
			os.Stdout.Write(append(line, '\n')) // one write, so that lines do not mix
		case !fault.Is(err, fault.Conflict) && !fault.Is(err, fault.Missing) && !fault.Is(err, fault.Denied):
			fmt.Println("strange:", err)
			t.Error(err)
		}
	}
	states := []act.IdentityState{act.Issued, act.Staged, act.Active, act.Active, act.Active, act.Retiring, act.Retired, act.Retired, act.Compromised}
	for !t.Failed() {
		_, err := r.BindConnection(t.Context(), someone(), act.Bind{Context: of(tenant, "binding"), Binding: aBinding()})
		if fault.Is(err, fault.Conflict) { // killed between two orders
			err = r.rebind(t.Context(), tenant, "mailbox", aBinding(), nil)
		}
		if err != nil {
			t.Error(err)
		}
		switch n := rand.IntN(20); {
		case n < 6:
			q := act.Issue{Context: of(tenant, ofClient), Standby: n%2 == 0}
			if n == 0 {
				q.Purpose = app
			}
			if n < 4 {
				q.Epoch = newest[q.Purpose] + 1
			}
			tell(r.IssueIdentity(t.Context(), someone(), q))
		case n == 19 && rand.IntN(10) == 0:
			if _, err := r.ReleaseConnection(t.Context(), someone(), act.Plain{Context: of(tenant, "binding")}); err != nil {
				t.Error(err)
			}
			for _, i := range ids {
				i.State = r.show(t, i.ID).State
				tell(i, nil)
			}
		case n == 18:
			to := aBinding()
			to.Port = uint16(1 + rand.IntN(3))
			err := r.rebind(t.Context(), tenant, "mailbox", to, nil)
			if err == nil {
				err = r.rebind(t.Context(), tenant, "mailbox", aBinding(), nil)
			}
			if err != nil {
				t.Error(err)
			}
		default:
			for _, i := range ids {
				tell(r.tryMove(t, i, states[rand.IntN(len(states))]))
				_ = r.shake(t, of(tenant, ofClient), i.SHA256) // often refused
				break
			}
		}
	}
}

// sound holds what is left against the rules.
func (r *rig) sound(t *testing.T, told map[string]act.IdentityState) {
	t.Helper()
	all, err := r.rows(t.Context(), selectPageOfAll, "", "", "", int64(0), "", 100_000)
	if err != nil {
		t.Fatal(err)
	}
	there := map[string]*identity{}
	active, shownAt, epochs := map[seat]int{}, map[seat]int{}, map[string]string{}
	for _, one := range all {
		there[one.id] = one
		at := seat{one.tenant, one.connection, one.purpose}
		if one.state == act.Active {
			active[at]++
		}
		if shown(one.state) {
			shownAt[at]++
		}
		if active[at] > 1 || shownAt[at] > mostShown {
			t.Errorf("%v: %d active, %d shown", at, active[at], shownAt[at])
		}
		if one.sealer != "" && shown(one.state) {
			t.Errorf("%s is %s and lies apart", one.id, one.state)
		}
		if one.state == act.Wanted {
			t.Errorf("%s is still wanted", one.id)
		}
		place := fmt.Sprint(at, one.epoch)
		if have, ok := epochs[place]; ok && have != one.name {
			t.Errorf("%s has the names %s and %s", place, have, one.name)
		}
		epochs[place] = one.name
	}
	for id, state := range told {
		one := there[id]
		switch {
		case one == nil:
			t.Errorf("%s, which was told of, is not there", id)
		case (state == act.Retired || state == act.Compromised) && one.state != state && one.state != act.Compromised:
			t.Errorf("%s was %s and is %s", id, state, one.state)
		}
	}
	r.entered(t, there)
}

// entered holds the ledger against the rows, and verifies it.
func (r *rig) entered(t *testing.T, there map[string]*identity) {
	t.Helper()
	begunFor := map[string]bool{}
	for from := int64(0); ; {
		page, err := r.ledger.Search(t.Context(), ledger.Filter{From: from, Limit: 1000})
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range page {
			from = e.Index + 1
			if e.Outcome == begun {
				begunFor[e.Act+" "+e.Subject] = true
			}
		}
		if len(page) == 0 {
			break
		}
	}
	for id, one := range there {
		if one.tenant != hostsTenant && !begunFor["issue-identity "+id] {
			t.Errorf("nothing was entered before %s was issued", id)
		}
	}
	if _, err := r.ledger.Checkpoint(t.Context()); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := r.ledger.Export(t.Context(), &b); err != nil {
		t.Fatal(err)
	}
	var own logKey
	if _, err := r.recall(t.Context(), rememberLedgerKey, &own); err != nil {
		t.Fatal(err)
	}
	got, err := audit.Verify(&b, audit.Options{Keys: own.Keys})
	if err != nil || !got.OK {
		t.Errorf("%+v %v", got, err)
	}
}
