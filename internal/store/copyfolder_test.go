package store_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sallyport-mail/sallyport/internal/store"
	"github.com/sallyport-mail/sallyport/internal/testpeer"
)

// leave puts a folder there as a backup leaves it that was killed.
func leave(t *testing.T, parent, name string, age time.Duration) string {
	t.Helper()
	dir := filepath.Join(parent, name)
	must(t, os.MkdirAll(dir, 0o700))
	must(t, os.WriteFile(filepath.Join(dir, "keeper.db"), []byte("a copy"), 0o600))
	old := time.Now().Add(-age)
	must(t, os.Chtimes(dir, old, old))
	return dir
}

func there(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// What killed backups have left goes at the next start and at the next backup;
// what a running one has does not, nor anything else of that name.
func TestLeftCopies(t *testing.T) {
	testpeer.EachConfig(t, func(t *testing.T, c store.Config) {
		k, err := store.OpenKeeper(t.Context(), c)
		must(t, err)
		must(t, k.Close())
		running := leave(t, c.Dir, ".backup-running", 48*time.Hour)
		lock, err := os.Open(running)
		must(t, err)
		must(t, unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB))
		young := leave(t, c.Dir, ".backup-young", time.Second)
		file := filepath.Join(c.Dir, ".backup-file")
		must(t, os.WriteFile(file, nil, 0o600))
		elsewhere := leave(t, t.TempDir(), "elsewhere", 48*time.Hour)
		link := filepath.Join(c.Dir, ".backup-link")
		must(t, os.Symlink(elsewhere, link))
		kept := func(when string) {
			t.Helper()
			for _, path := range []string{filepath.Join(running, "keeper.db"), young, file, link, filepath.Join(elsewhere, "keeper.db")} {
				if !there(path) {
					t.Errorf("%s: %s is gone", when, path)
				}
			}
		}

		left := leave(t, c.Dir, ".backup-1", time.Hour)
		k, err = store.OpenKeeper(t.Context(), c)
		must(t, err)
		if there(left) {
			t.Error("the start has left it there")
		}
		kept("at a start")
		left = leave(t, c.Dir, ".backup-2", time.Hour)
		must(t, k.Backup(t.Context(), &bytes.Buffer{}, writeState, "n", "1"))
		must(t, k.Close())
		if there(left) {
			t.Error("the backup of a keeper that runs has left it there")
		}
		left = leave(t, c.Dir, ".backup-3", time.Hour)
		must(t, store.BackupKeeper(t.Context(), c, &bytes.Buffer{}, writeState, "n", "1"))
		if there(left) {
			t.Error("the backup beside it has left it there")
		}
		kept("at a backup")

		must(t, lock.Close()) // its process was killed
		k, err = store.OpenKeeper(t.Context(), c)
		must(t, err)
		must(t, k.Close())
		if there(running) {
			t.Error("what was locked until a kill is there still")
		}
	})
}

// The same of the gateway.
func TestLeftGatewayCopies(t *testing.T) {
	c := store.Config{Dir: t.TempDir()}
	left := leave(t, c.Dir, ".backup-1", time.Hour)
	s, err := store.Open(t.Context(), c)
	must(t, err)
	defer s.Close()
	to := t.TempDir()
	beside := leave(t, to, ".backup-2", time.Hour)
	must(t, s.Backup(t.Context(), filepath.Join(to, "copy.tar")))
	if there(left) || there(beside) {
		t.Error("what a killed backup has left is there still")
	}
	if all, err := os.ReadDir(to); err != nil || len(all) != 1 {
		t.Errorf("%v %v", all, err)
	}
}
