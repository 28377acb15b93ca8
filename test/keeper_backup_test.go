package test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestKeeperBackup loses gateway and keeper, and goes on from their backups:
// the keeper starts frozen, mail waits, and two people's order lets it flow.
func TestKeeperBackup(t *testing.T) {
	t.Run("sqlite", func(t *testing.T) { loseAndRestore(t, "sqlite") })
	t.Run("sqlite to postgres", func(t *testing.T) { loseAndRestore(t, postgresURL(t)) })
}

func loseAndRestore(t *testing.T, store string) {
	cloud := startCloud(t, 1)
	k := newKeeper(t, "us")
	anna, bert := newOperator(t, k, "anna"), newOperator(t, k, "bert")
	k.start()
	p := newProcess(t, "")
	p.appendSettings("\n[[keeper]]\nregion = \"us\"\nsocket = " + strconv.Quote(k.socket) + "\n")
	p.start()
	cloud.connect(p, func(int) string { return "us" })
	one := cloud.list[0]
	n := 0
	post := func() {
		t.Helper()
		n++
		raw := fmt.Sprintf("Message-ID: <%d@example.org>\r\nSubject: x\r\n\r\nx\r\n", n)
		if err := converse(p.smtp, "x@example.org", "ann@"+one.Domain, nil, []byte(raw)); err != nil {
			t.Fatal(err)
		}
	}
	came := func() int { return len(cloud.Arrivals(one.EntraTenant)) }
	post()
	waitFor(t, "the first message", func() bool { return came() == 1 })
	var active identity
	for _, i := range object[[]identity](p, "identity", "list", "--tenant", "t1") {
		if i.Purpose == "smtp-client" && i.State == "active" {
			active = i
		}
	}

	// Both are copied while they run.
	gatewayCopy, keeperCopy := filepath.Join(t.TempDir(), "gateway.tar"), filepath.Join(t.TempDir(), "keeper.tar")
	p.must("backup", gatewayCopy)
	k.backup(keeperCopy)
	if k.restored() {
		t.Error("the keeper that was copied is frozen")
	}
	post()
	waitFor(t, "mail after the copy was made", func() bool { return came() == 2 })

	// Both are lost, but for what is not in a backup.
	p.kill()
	k.kill()
	lost := k.dir + ".lost"
	if err := os.Rename(k.dir, lost); err != nil {
		t.Fatal(err)
	}
	p.dir = filepath.Join(t.TempDir(), "restored")
	p.must("restore", gatewayCopy)
	k.restore(keeperCopy, store)
	for _, name := range []string{"keeper.toml", "kek.json", "kek.passphrase"} {
		raw, err := os.ReadFile(filepath.Join(lost, name))
		if err != nil {
			t.Fatal(err)
		}
		if name == "keeper.toml" {
			raw = []byte(strings.Replace(string(raw), "'sqlite'", "'"+store+"'", 1))
		}
		if err := os.WriteFile(filepath.Join(k.dir, name), raw, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	k.start()
	if !k.restored() {
		t.Error("the restored keeper is not frozen")
	}
	p.start()
	post()
	waitFor(t, "the route to be down", func() bool { return !p.check("destinations").OK })
	if check := p.check("keepers"); check.OK || !strings.Contains(check.Detail, "us: frozen: the database comes from the backup of") {
		t.Errorf("doctor: %+v", check)
	}
	k.stop() // it stays frozen over a restart
	k.start()
	if !k.restored() || came() != 2 {
		t.Errorf("frozen: %t; %d messages came", k.restored(), came())
	}

	// One person is not enough, nor is one twice.
	order := filepath.Join(t.TempDir(), "thaw.json")
	p.must("order", "make", "thaw", "--region", "us", "--set", "keep="+active.ID, "--key", anna, "--out", order)
	if _, said, code := p.cli("order", "submit", order); code != 1 || !strings.Contains(said, "sign") {
		t.Errorf("by one person: %d, %s", code, said)
	}
	if !k.restored() {
		t.Fatal("one person has thawed it")
	}
	p.must("order", "sign", order, "--key", bert, "--yes")
	const far = 8 * time.Second
	waitFor(t, "a probe that is far off", func() bool {
		for _, d := range object[[]destinationView](p, "queue", "destinations") {
			if d.State == "down" && d.NextTry != nil && time.Until(*d.NextTry) > far {
				return true
			}
		}
		return false
	})
	began := time.Now()
	p.must("order", "submit", order)
	waitFor(t, "the message that waited", func() bool { return came() == 3 })
	if took := time.Since(began); took > far-time.Second {
		t.Errorf("the route has waited %s for its probe", took)
	}
	post()
	waitFor(t, "a message after that", func() bool { return came() == 4 })
	for _, a := range cloud.Arrivals(one.EntraTenant) {
		if a.Certificate != active.Name {
			t.Errorf("it came as %s, not %s", a.Certificate, active.Name)
		}
	}
	if why := k.frozen(); why != "" {
		t.Error(why)
	}
	p.must("ledger", "verify", "--region", "us")
}

type destinationView struct {
	State   string
	NextTry *time.Time `json:"next_try"`
}

// newOperator makes a person's key, names the person in the keeper's settings,
// and returns the key's file.
func newOperator(t *testing.T, k *keeperProcess, name string) string {
	t.Helper()
	file, line := operatorKey(t, name)
	k.appendSettings(fmt.Sprintf("\n[[operator]]\nname = %q\nkey = %q\n", name, line))
	return file
}

// operatorKey makes a person's key: its file, and the key for the settings.
func operatorKey(t testing.TB, name string) (file, line string) {
	t.Helper()
	file = filepath.Join(t.TempDir(), name+".key")
	out, err := exec.Command(binary(t), "operator", "new", name, "--out", file, "--json").Output()
	if err != nil {
		t.Fatal(err)
	}
	var made struct{ Public string }
	if err := json.Unmarshal(out, &made); err != nil || made.Public == "" {
		t.Fatal(err, string(out))
	}
	return file, made.Public
}

func (k *keeperProcess) appendSettings(text string) {
	k.t.Helper()
	f, err := os.OpenFile(filepath.Join(k.dir, "keeper.toml"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		k.t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString(text); err != nil {
		k.t.Fatal(err)
	}
}

// frozen is why the keeper does nothing.
func (k *keeperProcess) frozen() string {
	k.t.Helper()
	r := k.remote()
	defer r.Close()
	s, err := r.Status(k.t.Context())
	if err != nil {
		k.t.Fatal(err)
	}
	return s.Frozen
}

func (k *keeperProcess) restored() bool { return strings.Contains(k.frozen(), "from the backup") }

// backup copies the keeper, and holds what it says and writes against what a
// backup must be.
func (k *keeperProcess) backup(file string) {
	k.t.Helper()
	said, err := exec.Command(binary(k.t), "keeper", "backup", file, "--data", k.dir).CombinedOutput()
	if err != nil {
		k.t.Fatalf("%v: %s", err, said)
	}
	for _, word := range []string{"kek.json", "kek.passphrase", "keeper.toml", "root.key"} {
		if !strings.Contains(string(said), word) {
			k.t.Errorf("it is not said that %s has to be kept too: %s", word, said)
		}
	}
	info, err := os.Stat(file)
	if err != nil || info.Mode() != 0o600 {
		k.t.Errorf("%v, %v", info.Mode(), err)
	}
	raw, err := os.ReadFile(file)
	if err != nil {
		k.t.Fatal(err)
	}
	for _, name := range []string{"kek.json", "kek.passphrase", "root.key"} {
		secret, err := os.ReadFile(filepath.Join(k.dir, name))
		if err != nil {
			k.t.Fatal(err)
		}
		if containsAny(raw, name, strings.TrimSpace(string(secret))) {
			k.t.Errorf("the backup holds %s", name)
		}
	}
	before := string(raw)
	if said, err := exec.Command(binary(k.t), "keeper", "backup", file, "--data", k.dir).CombinedOutput(); err == nil || !strings.Contains(string(said), "there already") {
		k.t.Errorf("over a file: %v, %s", err, said)
	}
	if raw, err := os.ReadFile(file); err != nil || string(raw) != before {
		k.t.Error("the file has been written over")
	}
	if left, err := os.ReadDir(filepath.Dir(file)); err != nil || len(left) != 1 {
		k.t.Errorf("%v, %v", left, err)
	}
}

// restore fills the folder, once.
func (k *keeperProcess) restore(file, store string) {
	k.t.Helper()
	said, err := exec.Command(binary(k.t), "keeper", "restore", file, "--data", k.dir, "--store", store).CombinedOutput()
	if err != nil || strings.Contains(string(said), "@") {
		k.t.Fatalf("%v: %s", err, said)
	}
	if said, err := exec.Command(binary(k.t), "keeper", "restore", file, "--data", k.dir, "--store", store).CombinedOutput(); err == nil || !strings.Contains(string(said), "not empty") && !strings.Contains(string(said), "has tables already") {
		k.t.Errorf("into a place that is not empty: %v, %s", err, said)
	}
}
