package test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sallyport-mail/sallyport/internal/keeper/seal"
	"github.com/sallyport-mail/sallyport/internal/testpeer"
)

// passphrase runs the verb on a keeper's folder.
func (k *keeperProcess) passphrase(stdin string, args ...string) (string, error) {
	cmd := exec.Command(binary(k.t), append([]string{"--data", k.dir, "keeper", "passphrase"}, args...)...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// opens is the id of the KEK when a passphrase opens its file.
func (k *keeperProcess) opens(phrase string) (string, error) {
	raw, err := os.ReadFile(filepath.Join(k.dir, "kek.json"))
	if err != nil {
		k.t.Fatal(err)
	}
	kek, err := seal.OpenKEKFile("us", raw, seal.NewSecret([]byte(phrase)))
	if err != nil {
		return "", err
	}
	return kek.ID(), nil
}

func (k *keeperProcess) phraseFile() string { return filepath.Join(k.dir, "kek.passphrase") }

func (k *keeperProcess) phrase() string {
	k.t.Helper()
	raw, err := os.ReadFile(k.phraseFile())
	if err != nil {
		k.t.Fatal(err)
	}
	return strings.TrimSpace(string(raw))
}

// put writes a file of the test's own.
func put(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "phrase")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestKeeperPassphrase gives the KEK of a keeper that runs another passphrase,
// by files and by standard input: it goes on, starts again with the new one, and
// has what it had.
func TestKeeperPassphrase(t *testing.T) {
	k := newKeeper(t, "us")
	old := k.phrase()
	id, err := k.opens(old)
	if err != nil {
		t.Fatal(err)
	}
	k.start()
	const second, third = "the second passphrase", "a third passphrase"
	for _, c := range []struct {
		name, stdin string
		args        []string
		text        string
	}{
		{"nothing said", "", nil, "--new-file"},
		{"too short", "short\n", []string{"--stdin"}, "12 bytes"},
		{"the same", old + "\n", []string{"--stdin"}, "the old one"},
		{"a wrong old one", "", []string{"--old-file", put(t, "not that passphrase"), "--new-file", put(t, second)}, "does not open"},
		{"no such file", "", []string{"--new-file", filepath.Join(k.dir, "none")}, "none"},
		{"as an argument", "", []string{second}, "unexpected argument"},
	} {
		out, err := k.passphrase(c.stdin, c.args...)
		var exit *exec.ExitError
		if !errors.As(err, &exit) || !strings.Contains(out, c.text) {
			t.Errorf("%s: %v %s", c.name, err, out)
		}
		if got, err := k.opens(old); err != nil || got != id || k.phrase() != old {
			t.Errorf("%s: the file was changed: %v", c.name, err)
		}
	}

	out, err := k.passphrase("", "--new-file", put(t, second+"\n"))
	if err != nil || strings.Contains(out, second) || strings.Contains(out, old) || !strings.Contains(out, "kek.passphrase") {
		t.Fatalf("%v %s", err, out)
	}
	if got, err := k.opens(second); err != nil || got != id || k.phrase() != second {
		t.Errorf("%s %v, and the keeper's file has %q", got, err, k.phrase())
	}
	if _, err := k.opens(old); err == nil {
		t.Error("the old one opens it still")
	}
	for _, name := range []string{"kek.json", "kek.passphrase"} {
		if info, err := os.Stat(filepath.Join(k.dir, name)); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v %v", name, info, err)
		}
	}
	r := k.remote()
	if s, err := r.Status(t.Context()); err != nil || s.KEK != id {
		t.Errorf("the keeper that runs: %+v %v", s, err)
	}
	r.Close()
	k.stop()
	k.start()

	// Both from standard input, where the settings name no file.
	settings := filepath.Join(k.dir, "keeper.toml")
	raw, err := os.ReadFile(settings)
	if err != nil {
		t.Fatal(err)
	}
	var kept []string
	for line := range strings.Lines(string(raw)) {
		if !strings.HasPrefix(line, "passphrase_file") {
			kept = append(kept, line)
		}
	}
	if err := os.WriteFile(settings, []byte(strings.Join(kept, "")), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err = k.passphrase(second+"\n"+third+"\n", "--stdin")
	if err != nil || !strings.Contains(out, "kek-passphrase") {
		t.Fatalf("%v %s", err, out)
	}
	if got, err := k.opens(third); err != nil || got != id || k.phrase() != second {
		t.Errorf("%s %v", got, err)
	}
	k.stop()
	if err := os.WriteFile(settings, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(k.phraseFile(), []byte(third), 0o600); err != nil {
		t.Fatal(err)
	}
	k.start()
}

// TestKeeperPassphraseKilled kills the verb before each call by which it makes
// a file durable or puts it in its place: the KEK file is always there whole,
// and the same command ends what was begun.
func TestKeeperPassphraseKilled(t *testing.T) {
	strace := testpeer.Need(t, "strace", "strace")[0]
	k := newKeeper(t, "us")
	id, err := k.opens(k.phrase())
	if err != nil {
		t.Fatal(err)
	}
	killed := 0
	const place = "rename,renameat,renameat2"
	points := []struct{ calls, path string }{
		{"fsync", "kek.json.new"}, {place, "kek.json.new"}, {"fsync", ""},
		{"fsync", "kek.passphrase.new"}, {place, "kek.passphrase.new"},
	}
	for n, point := range points {
		old, next := k.phrase(), fmt.Sprintf("passphrase number %d", n)
		from := put(t, next)
		cmd := exec.Command(strace, "-f", "-o", os.DevNull, "-P", filepath.Join(k.dir, point.path), "-e", "trace="+point.calls, "-e", "inject="+point.calls+":signal=KILL",
			binary(t), "--data", k.dir, "keeper", "passphrase", "--new-file", from)
		out, err := cmd.CombinedOutput()
		if err != nil && len(bytes.TrimSpace(out)) == 0 {
			killed++
		} else {
			t.Errorf("%v: it was not killed: %v %s", point, err, out)
		}
		_, byOld := k.opens(old)
		_, byNew := k.opens(next)
		if (byOld == nil) == (byNew == nil) {
			t.Fatalf("%v: the old one opens it: %v, the new one: %v", point, byOld, byNew)
		}
		if now := k.phrase(); now != old && now != next {
			t.Fatalf("%v: the file with the passphrase has %q", point, now)
		}
		if k.phrase() != next { // or it was all done
			if out, err := k.passphrase("", "--new-file", from); err != nil {
				t.Fatalf("%v: the second time: %v %s", point, err, out)
			}
		}
		if got, err := k.opens(next); err != nil || got != id || k.phrase() != next {
			t.Fatalf("%v: %s %v", point, got, err)
		}
	}
	if killed < len(points) {
		t.Errorf("killed %d times", killed)
	}
	k.start()
	if left, err := filepath.Glob(filepath.Join(k.dir, "*.new")); err != nil || len(left) > 0 {
		t.Errorf("left: %q %v", left, err)
	}
}
