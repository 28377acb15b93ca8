package store

import (
	"sync"
	"syscall"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
)

// diskEvery is how long the answer of one statfs is good for.
const diskEvery = 100 * time.Millisecond

// disk knows how much is free below the data directory.
type disk struct {
	dir     string
	reserve int64
	mu      sync.Mutex
	asked   time.Time
	left    int64 // free at that time, less what was given away since
	err     error
}

func newDisk(dir string, reserve int64) *disk { return &disk{dir: dir, reserve: reserve} }

// room gives size bytes away, or says that there are none.
func (d *disk) room(size int64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.look()
	if d.err != nil {
		return fault.Wrap(fault.Later, "store.Room", d.err)
	}
	if d.left-size < d.reserve {
		return fault.New(fault.Later, "store.Room", "not enough free space on the disk").
			WithHint("Free space on the disk of the data directory.")
	}
	d.left -= size
	return nil
}

func (d *disk) free() int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.look()
	return d.left
}

// look asks the file system again when the last answer is old. A file system
// without free inodes has no room either.
func (d *disk) look() {
	if time.Since(d.asked) < diskEvery {
		return
	}
	var st syscall.Statfs_t
	d.err = syscall.Statfs(d.dir, &st)
	d.asked = time.Now()
	d.left = int64(st.Bavail) * int64(st.Bsize)
	if st.Files > 0 && st.Ffree == 0 {
		d.left = 0
	}
}
