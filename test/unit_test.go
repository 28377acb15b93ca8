package test

import (
	"bufio"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-mail/sallyport/internal/keeper/act"
	"github.com/sallyport-mail/sallyport/internal/keeper/client"
	"github.com/sallyport-mail/sallyport/internal/testpeer"
)

// The services, of the gateway and of a keeper.
const (
	unitFile   = "../packaging/systemd/sallyport.service"
	keeperUnit = "../packaging/systemd/sallyport-keeper@.service"
)

// unit reads a service, with our binary where it will be installed.
func unit(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	verb := map[string]string{unitFile: "serve", keeperUnit: "keeper"}[file]
	if !strings.Contains(string(text), "ExecStart=/usr/local/bin/sallyport "+verb+" ") {
		t.Fatal("the unit starts another program")
	}
	return strings.ReplaceAll(string(text), "/usr/local/bin/sallyport", binary(t))
}

// TestUnit has systemd read the services: nothing in them is unknown, misspelt
// or missing.
func TestUnit(t *testing.T) {
	analyze := testpeer.Need(t, "systemd", "systemd-analyze")[0]
	verify := func(name, text string) (string, error) {
		file := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command(analyze, "verify", "--man=no", file).CombinedOutput()
		return strings.TrimSpace(string(out)), err
	}
	for _, path := range []string{unitFile, keeperUnit} {
		good, name := unit(t, path), filepath.Base(path)
		if out, err := verify(name, good); err != nil || out != "" {
			t.Errorf("systemd-analyze verify %s: %v\n%s", name, err, out)
		}
		spoilt := strings.Replace(good, "ProtectHome=", "ProtectHoem=", 1)
		if out, err := verify(name, spoilt); err == nil && out == "" {
			t.Error("a misspelt setting was not found: the check checks nothing")
		}
	}
}

// allowedBy are the system calls that a unit lets through.
func allowedBy(t *testing.T, analyze, file string) map[string]bool {
	t.Helper()
	allowed := map[string]bool{}
	for _, line := range regexp.MustCompile(`(?m)^SystemCallFilter=(~?)(.*)$`).FindAllStringSubmatch(unit(t, file), -1) {
		for _, word := range strings.Fields(line[2]) {
			for _, call := range callsOf(t, analyze, word) {
				allowed[call] = line[1] == ""
			}
		}
	}
	if len(allowed) < 100 || allowed["reboot"] {
		t.Fatalf("%d calls were understood of the unit", len(allowed))
	}
	// SQLite gives files to their folder's owner when it runs as root, and only
	// then; the units' users are not root.
	if os.Geteuid() == 0 {
		allowed["fchown"] = true
	}
	return allowed
}

// TestUnitAllowsOurCalls compares the system calls of a gateway at work with
// those that the unit lets through: one that it does not fails with EPERM.
func TestUnitAllowsOurCalls(t *testing.T) {
	analyze := testpeer.Need(t, "systemd", "systemd-analyze")[0]
	strace := testpeer.Need(t, "strace", "strace")[0]
	allowed := allowedBy(t, analyze, unitFile)

	// With the keeper that it runs itself.
	p := newProcess(t, "")
	record := filepath.Join(t.TempDir(), "calls")
	p.wrapper = []string{strace, "-f", "-qq", "-s", "0", "-e", "signal=none", "-o", record}
	sink := testpeer.StartSink(t, testpeer.SinkRules{})
	p.start()
	p.tenant("acme", "us", "acme.test", sink.Addr)
	for _, body := range []string{"small", strings.Repeat("a line of a large message\r\n", 8000)} {
		if err := converse(p.smtp, "x@example.org", "b@acme.test", nil, []byte("Subject: x\r\n\r\n"+body)); err != nil {
			t.Fatal(err)
		}
	}
	sink.Wait(t, 2, 60*time.Second)
	p.must("backup", filepath.Join(t.TempDir(), "backup.tar"))
	p.stop()
	made := callsIn(t, record)
	if !slices.Contains(made, "accept4") || !slices.Contains(made, "landlock_restrict_self") || !slices.Contains(made, "fsync") && !slices.Contains(made, "fdatasync") {
		t.Fatalf("the record is not of a gateway: %q", made)
	}
	for _, call := range made {
		if !allowed[call] {
			t.Errorf("the unit does not allow %s", call)
		}
	}
}

// TestUnitAllowsKeepersCalls does the same with a keeper: what it makes when
// it begins, keeps something, and ends.
func TestUnitAllowsKeepersCalls(t *testing.T) {
	analyze := testpeer.Need(t, "systemd", "systemd-analyze")[0]
	strace := testpeer.Need(t, "strace", "strace")[0]
	allowed := allowedBy(t, analyze, keeperUnit)
	k := newKeeper(t, "us")
	record := filepath.Join(t.TempDir(), "calls")
	k.wrapper = []string{strace, "-f", "-qq", "-s", "0", "-e", "signal=none", "-o", record}
	k.start()
	r := k.remote()
	if err := r.BindConnection(t.Context(), "acme", "mailbox", act.Binding{Host: "mail.test", Port: 25}); err != nil {
		t.Fatal(err)
	}
	if _, err := r.IssueIdentity(t.Context(), "acme", "mailbox", "smtp-client", act.Issue{}); err != nil {
		t.Fatal(err)
	}
	if err := r.SetCredential(t.Context(), "acme", "mailbox", client.Credential{User: "u", Password: "a password"}); err != nil {
		t.Fatal(err)
	}
	if err := r.ExportLedger(t.Context(), io.Discard); err != nil {
		t.Fatal(err)
	}
	k.stop()
	made := callsIn(t, record)
	if !slices.Contains(made, "accept4") || !slices.Contains(made, "landlock_restrict_self") {
		t.Fatalf("the record is not of a keeper: %q", made)
	}
	for _, call := range made {
		if !allowed[call] {
			t.Errorf("the unit does not allow %s", call)
		}
	}
}

// callsOf are the calls of a group and the groups in it.
func callsOf(t *testing.T, analyze, word string) []string {
	t.Helper()
	if !strings.HasPrefix(word, "@") {
		return []string{word}
	}
	out, err := exec.Command(analyze, "syscall-filter", word).Output()
	if err != nil {
		t.Fatalf("systemd-analyze syscall-filter %s: %v", word, err)
	}
	var all []string
	for _, line := range strings.Split(string(out), "\n") {
		name := strings.TrimSpace(line)
		if name != "" && name != word && !strings.HasPrefix(name, "#") {
			all = append(all, callsOf(t, analyze, name)...)
		}
	}
	return all
}

// callsIn are the names of the calls that strace recorded, each once.
func callsIn(t *testing.T, record string) []string {
	t.Helper()
	f, err := os.Open(record)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	name := regexp.MustCompile(`^\d+ +(?:<\.\.\. )?([a-z0-9_]+)[( ]`)
	seen := map[string]bool{}
	s := bufio.NewScanner(f)
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		if m := name.FindStringSubmatch(s.Text()); m != nil {
			seen[m[1]] = true
		}
	}
	if err := s.Err(); err != nil {
		t.Fatal(err)
	}
	var all []string
	for call := range seen {
		all = append(all, call)
	}
	slices.Sort(all)
	return all
}
