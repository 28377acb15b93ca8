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
	pages   int64 // bytes free within the road's file, the same
	err     error
	// within asks for the latter; nil where rows are not in a file of ours.
	within func() int64
}

func newDisk(dir string, reserve int64) *disk { return &disk{dir: dir, reserve: reserve} }

// rowMargin is what a message takes besides its body: items, events, indexes,
// and the rest of its last pages.
const rowMargin = 16 << 10

// room gives size bytes away, or says that there are none. Below the reserve a
// row may still have pages that are free within the road's file: that never
// shrinks by itself, and a disk that was filled with mail once would take none
// any more after all of it was delivered. Half of the reserve stays for what
// is written before it comes to those pages, the WAL.
func (d *disk) room(size int64, row bool) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.look()
	if d.err != nil {
		return fault.Wrap(fault.Later, "store.Room", d.err)
	}
	if row && d.left-size < d.reserve && d.left >= d.reserve/2 && d.pages >= size+rowMargin {
		d.pages -= size + rowMargin
		return nil
	}
	if row {
		size += rowMargin
	}
	if d.left-size < d.reserve {
		return fault.New(fault.Later, "store.Room", "not enough free space on the disk").
			WithHint("Free space on the disk of the data directory.")
	}
	d.left -= size
	return nil
}

// tight reports whether the reserve would not be whole any more if a full WAL
// were copied into its database and then grew again.
func (d *disk) tight() bool { return d.free() < d.reserve+2*passiveWAL }

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
	if d.pages = 0; d.within != nil && d.left < 2*d.reserve {
		d.pages = d.within()
	}
}
