package testpeer

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestCut holds the simulated disk against records written by hand.
func TestCut(t *testing.T) {
	const root = "/data"
	for name, c := range map[string]struct {
		record []string
		safe   string // what each cut leaves
		likely string // what some cut leaves after it
	}{
		"synced": {record: []string{
			`openat(AT_FDCWD, "/data/f", O_WRONLY|O_CREAT, 0640) = 7`,
			`openat(AT_FDCWD, "/data", O_RDONLY) = 8`,
			`write(7, "safe", 4) = 4`, `fsync(7) = 0`, `fsync(8) = 0`,
		}, safe: "safe"},
		"the number is a socket's now": {record: []string{
			`openat(AT_FDCWD, "/data/f", O_WRONLY|O_CREAT, 0640) = 7`,
			`openat(AT_FDCWD, "/data", O_RDONLY) = 8`,
			`write(7, "safe", 4) = 4`, `fsync(7) = 0`, `fsync(8) = 0`,
			`close(7) = 0`, `write(7, "query", 5) = 5`, `fsync(7) = -1`,
		}, safe: "safe"},
		"the sync began before the write": {record: []string{
			`openat(AT_FDCWD, "/data/f", O_WRONLY|O_CREAT, 0640) = 7`,
			`openat(AT_FDCWD, "/data", O_RDONLY) = 8`,
			`fsync(8) = 0`, `write(7, "old.", 4) = 4`, `fdatasync(7 <unfinished ...>`,
			`pwrite64(7, "new.", 4, 4) = 4`, `<... fdatasync resumed>) = 0`,
		}, safe: "old.", likely: "new."},
	} {
		t.Run(name, func(t *testing.T) {
			log := filepath.Join(t.TempDir(), "log")
			if err := os.WriteFile(log, []byte(record(c.record)), 0o600); err != nil {
				t.Fatal(err)
			}
			trace, err := ReadTrace(log, root)
			if err != nil {
				t.Fatal(err)
			}
			seen := false
			for seed := range uint64(30) {
				dir := filepath.Join(t.TempDir(), fmt.Sprint(seed))
				if err := trace.Cut(trace.Len(), rand.New(rand.NewPCG(seed, 0)), dir); err != nil {
					t.Fatal(err)
				}
				data, err := os.ReadFile(filepath.Join(dir, "f"))
				if err != nil {
					t.Fatal(err)
				}
				rest, ok := strings.CutPrefix(string(data), c.safe)
				if !ok || rest != "" && rest != c.likely {
					t.Fatalf("a cut leaves %q", data)
				}
				seen = seen || rest == c.likely
			}
			if !seen {
				t.Errorf("no cut leaves %q", c.safe+c.likely)
			}
		})
	}
}

// record is what strace -f -xx writes: strings in hexadecimal.
func record(calls []string) string {
	var b strings.Builder
	for _, call := range calls {
		thread := 1
		if strings.Contains(call, "pwrite64") {
			thread = 2
		}
		pieces := strings.Split(call, `"`)
		for k := 1; k < len(pieces); k += 2 {
			pieces[k] = `"` + strings.ReplaceAll(fmt.Sprintf("% x", " "+pieces[k]), " ", `\x`)[4:] + `"`
		}
		fmt.Fprintf(&b, "%d %s\n", thread, strings.Join(pieces, ""))
	}
	return b.String()
}
