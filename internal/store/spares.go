package store

import (
	"os"
	"path/filepath"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"
)

const (
	// spareFolder is where files wait whose bodies were dropped.
	spareFolder = "+spare"
	maxSpares   = 64
	maxSpare    = 1 << 20 // bytes of one
)

// spares keeps files of dropped bodies to be written over. On ext4 making and
// removing a file for every message costs more than writing 100 KB: a new
// inode is looked for past all those that were freed in the last minutes.
//
// A file is written over only while nobody reads it: readers hold a shared
// lock (flock), the writer an exclusive one, and each looks after locking
// whether the name still leads to the file that it has opened.
type spares struct {
	dir  string
	mu   sync.Mutex
	free []string
	next int
}

// adopt takes over what an earlier process left.
func (s *spares) adopt() error {
	entries, err := os.ReadDir(s.dir)
	if os.IsNotExist(err) {
		return nil
	}
	for _, e := range entries {
		s.put(filepath.Join(s.dir, e.Name()))
	}
	return err
}

// put adds a name to the pool, or removes the file when the pool is full.
func (s *spares) put(path string) {
	s.mu.Lock()
	room := len(s.free) < maxSpares
	if room {
		s.free = append(s.free, path)
	}
	s.mu.Unlock()
	if !room {
		os.Remove(path)
	}
}

// keep takes a dropped body's file away from its name.
func (s *spares) keep(path string, size int64) {
	if to, ok := s.place(size); ok && os.Rename(path, to) == nil {
		s.put(to)
		return
	}
	os.Remove(path)
}

// place is a free name in the folder, when another file is wanted there.
func (s *spares) place(size int64) (string, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if size > maxSpare || len(s.free) >= maxSpares {
		return "", false
	}
	if s.next == 0 && os.MkdirAll(s.dir, 0o750) != nil {
		return "", false
	}
	s.next++
	return filepath.Join(s.dir, strconv.Itoa(os.Getpid())+"-"+strconv.Itoa(s.next)), true
}

// take opens a spare file to be written over from its beginning; nil when
// there is none. Its lock ends with its closing.
func (s *spares) take() *os.File {
	for {
		path := s.pop()
		if path == "" {
			return nil
		}
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			continue
		}
		if lockAs(f, path, unix.LOCK_EX) && alone(f) {
			return f
		}
		f.Close()
		os.Remove(path)
	}
}

func (s *spares) pop() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.free) == 0 {
		return ""
	}
	path := s.free[len(s.free)-1]
	s.free = s.free[:len(s.free)-1]
	return path
}

// lockAs locks an open file without waiting, and is true when path still
// leads to it.
func lockAs(f *os.File, path string, how int) bool {
	if unix.Flock(int(f.Fd()), how|unix.LOCK_NB) != nil {
		return false
	}
	mine, err1 := f.Stat()
	named, err2 := os.Stat(path)
	return err1 == nil && err2 == nil && os.SameFile(mine, named)
}

// alone is true of a file with one name: others are bodies of other tenants.
func alone(f *os.File) bool {
	var st unix.Stat_t
	return unix.Fstat(int(f.Fd()), &st) == nil && st.Nlink == 1
}
