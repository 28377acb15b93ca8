package testpeer

import (
	"errors"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"
)

// maildir reads the messages of a Maildir that nobody has looked at, oldest
// first.
func maildir(t testing.TB, dir string) [][]byte {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(dir, "new"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(entries, func(a, b fs.DirEntry) int { return age(t, a).Compare(age(t, b)) })
	var all [][]byte
	for _, e := range entries {
		data, err := os.ReadFile(filepath.Join(dir, "new", e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, data)
	}
	return all
}

func age(t testing.TB, e fs.DirEntry) time.Time {
	t.Helper()
	info, err := e.Info()
	if err != nil {
		t.Fatal(err)
	}
	return info.ModTime()
}

// waitMail looks until there are n messages; a foreign program has no channel
// to wait on.
func waitMail(t testing.TB, n int, patience time.Duration, look func() [][]byte, log func() string) [][]byte {
	t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		got := look()
		if len(got) >= n {
			return got
		}
		if time.Now().After(end) {
			t.Fatalf("%d messages after %v, %d expected; the peer's log:\n%s", len(got), patience, n, log())
		}
	}
}

// unprivilegedID is a user's number.
func unprivilegedID(t testing.TB, name string) int {
	t.Helper()
	u, err := user.Lookup(name)
	if err != nil {
		t.Fatal(err)
	}
	id, err := strconv.Atoi(u.Uid)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func own(t testing.TB, path string, id int) {
	t.Helper()
	if err := os.Chown(path, id, id); err != nil {
		t.Fatal(err)
	}
}
