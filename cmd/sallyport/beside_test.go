package main

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// What a killed backup or export has left beside its place goes with the next
// one there; what a running one writes does not, nor anything else.
func TestBesideIsSwept(t *testing.T) {
	dir := t.TempDir()
	leave := func(name string, age time.Duration) string {
		path := filepath.Join(dir, name)
		must(t, os.WriteFile(path, []byte("a part"), 0o600))
		old := time.Now().Add(-age)
		must(t, os.Chtimes(path, old, old))
		return path
	}
	killed, young, other := leave(".sallyport-1", time.Hour), leave(".sallyport-2", time.Second), leave(".other-1", time.Hour)
	running := leave(".sallyport-3", time.Hour)
	lock, err := os.Open(running)
	must(t, err)
	defer lock.Close()
	must(t, syscall.Flock(int(lock.Fd()), syscall.LOCK_EX))
	link := filepath.Join(dir, ".sallyport-link")
	must(t, os.Symlink(other, link))

	path := filepath.Join(dir, "us.tar")
	_, err = writeWhole(path, func(w io.Writer) error {
		sweepBeside(dir) // another's, at the same time
		_, err := io.WriteString(w, "whole")
		return err
	})
	must(t, err)
	if raw, err := os.ReadFile(path); err != nil || string(raw) != "whole" {
		t.Errorf("%q %v", raw, err)
	}
	if _, err := os.Stat(killed); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it is there still: %v", err)
	}
	for _, kept := range []string{young, other, running, link} {
		if _, err := os.Lstat(kept); err != nil {
			t.Error(err)
		}
	}
	if all, err := os.ReadDir(dir); err != nil || len(all) != 5 {
		t.Errorf("%v %v", all, err)
	}
}
