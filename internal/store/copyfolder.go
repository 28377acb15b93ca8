package store

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	copyPrefix = ".backup-"
	// copyYoung is the age below which a folder is left alone that nobody has
	// locked: between making and locking it there is a moment.
	copyYoung = time.Minute
)

// copyFolder makes a folder beside the data for a backup on its way, and locks
// it for as long as the backup is made. Those that a kill has left are removed
// first: what lies in them is a copy of the database.
func copyFolder(parent string, log *slog.Logger) (dir string, done func(), err error) {
	sweepCopies(parent, log)
	if dir, err = os.MkdirTemp(parent, copyPrefix); err != nil {
		return "", nil, err
	}
	f, err := os.Open(dir)
	if err == nil {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	}
	if err != nil { // a file system without locks: it is removed by its age
		log.Warn("store: the folder of a backup is not locked", "error", err)
	}
	return dir, func() {
		os.RemoveAll(dir)
		f.Close()
	}, nil
}

// copyDead is the age at which a folder is of no backup any more, though nobody
// can tell whether it is locked.
const copyDead = 24 * time.Hour

// sweepCopies removes the folders of backups that were killed. A lock ends with
// the process that has it, so what is locked is a backup's that runs.
func sweepCopies(parent string, log *slog.Logger) {
	there, err := os.ReadDir(parent)
	if err != nil {
		return
	}
	for _, one := range there {
		dir := filepath.Join(parent, one.Name())
		if !strings.HasPrefix(one.Name(), copyPrefix) || !isLeft(dir) {
			continue
		}
		if err := os.RemoveAll(dir); err != nil {
			log.Warn("store: what a backup has left cannot be removed", "folder", dir, "error", err)
			continue
		}
		log.Info("store: removed what a backup has left", "folder", dir)
	}
}

// isLeft reports whether a folder is a killed backup's.
func isLeft(dir string) bool {
	info, err := os.Lstat(dir)
	if err != nil || !info.IsDir() {
		return false
	}
	age := time.Since(info.ModTime())
	if age < copyYoung {
		return false
	}
	f, err := os.Open(dir)
	if err != nil {
		return false
	}
	defer f.Close()
	switch unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) {
	case nil:
		return true
	case unix.EWOULDBLOCK:
		return false
	}
	return age > copyDead
}
