package main

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

const (
	besidePrefix = ".sallyport-"
	besideYoung  = time.Minute // between making one and locking it there is a moment
)

// besideFile makes a file (mode 0600) that is to be moved to its place in a folder when it is whole,
// locked until it is closed. Those that a kill has left there go first.
func besideFile(dir string) (*os.File, error) {
	sweepBeside(dir)
	f, err := os.CreateTemp(dir, besidePrefix+"*")
	if err != nil {
		return nil, err
	}
	// Where a file system has no locks, nothing is ever swept.
	_ = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	return f, nil
}

// sweepBeside removes what is of no process that runs: a lock ends with its.
func sweepBeside(dir string) {
	there, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	for _, one := range there {
		path := filepath.Join(dir, one.Name())
		if strings.HasPrefix(one.Name(), besidePrefix) && one.Type().IsRegular() && isAbandoned(path) {
			os.Remove(path) // what is another user's stays
		}
	}
}

func isAbandoned(path string) bool {
	f, err := os.OpenFile(path, os.O_RDWR|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return false
	}
	defer f.Close()
	info, err := f.Stat()
	return err == nil && time.Since(info.ModTime()) > besideYoung && syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil
}
