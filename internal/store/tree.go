package store

import (
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/sallyport-mail/sallyport/internal/fault"
)

const (
	// incoming is where a file is before its tenants are known; no tenant's
	// directory can have this name.
	incoming = "+incoming"
	// stampLen is how much of an id names the directory: the six characters
	// change every 17 minutes, so that bodies of one time share the sync of
	// one directory, and an old directory becomes empty and can go.
	stampLen = 6
	// maxKnown bounds the memory of directories that are known to be there.
	maxKnown = 20000
)

// tree is the directory of bodies: <tenant>/<time>/<id>.
type tree struct {
	root   string
	sync   dirSync
	spares spares

	mu    sync.Mutex
	known map[string]bool // directories that are durable
}

func newTree(dir string) *tree {
	root := filepath.Join(dir, "bodies")
	return &tree{root: root, known: map[string]bool{}, spares: spares{dir: filepath.Join(root, spareFolder)}}
}

// path is where a tenant's file is.
func (t *tree) path(tenant, id string) (string, error) {
	if tenant == "" {
		return "", noTenant()
	}
	if len(id) <= stampLen || strings.ContainsAny(id, "/.\x00") || len(tenant) > 80 {
		return "", fault.New(fault.Invalid, "store.path", fmt.Sprintf("no body can be called %q of %q", id, tenant))
	}
	return filepath.Join(t.root, directoryName(tenant), id[:stampLen], id), nil
}

// directoryName writes a tenant as a file name of its own: what is not a lower
// case letter, a digit, - or _ is escaped.
func directoryName(tenant string) string {
	var name strings.Builder
	for _, c := range []byte(tenant) {
		if c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-' || c == '_' {
			name.WriteByte(c)
		} else {
			fmt.Fprintf(&name, "%%%02X", c)
		}
	}
	return name.String()
}

// tenantOf reads a directory's name back.
func tenantOf(name string) (string, error) { return url.PathUnescape(name) }

// create opens a new file, or one to be written over, for a body whose tenants
// are not known yet.
func (t *tree) create(id string) (*os.File, error) {
	if f := t.spares.take(); f != nil {
		return f, nil
	}
	name := filepath.Join(t.root, incoming, id)
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o640)
	if errors.Is(err, fs.ErrNotExist) {
		if err = os.MkdirAll(filepath.Dir(name), 0o750); err == nil {
			f, err = os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o640)
		}
	}
	return f, Fault("store.create", err)
}

// settle gives a written file its names and makes file and names durable. The
// names come first: on a journaling file system the file's own sync then
// carries them, and that of the directory has little left to do.
func (t *tree) settle(f *os.File, refs []BodyRef) error {
	first := f.Name()
	if err := cut(f, refs[0].Size); err != nil {
		return Fault("store.Finish", err)
	}
	dirs := map[string]bool{}
	for i, ref := range refs {
		path, err := t.path(ref.Tenant, ref.ID)
		if err == nil {
			err = t.place(first, path, i == 0)
		}
		if err != nil {
			return err
		}
		if i == 0 {
			first = path
		}
		dirs[filepath.Dir(path)] = true
	}
	if err := unix.Fdatasync(int(f.Fd())); err != nil {
		return Fault("store.Finish", err)
	}
	for dir := range dirs {
		if err := t.sync.do(dir); err != nil {
			return Fault("store.Finish", err)
		}
	}
	return nil
}

// cut removes what a file that was written over had beyond its new end.
func cut(f *os.File, size int64) error {
	info, err := f.Stat()
	if err != nil || info.Size() == size {
		return err
	}
	return f.Truncate(size)
}

// place moves (or links) a file to its name. A directory that was swept away
// since it was known is made again.
func (t *tree) place(from, to string, move bool) error {
	put := os.Link
	if move {
		put = os.Rename
	}
	dir := filepath.Dir(to)
	if err := t.make(dir); err != nil {
		return err
	}
	err := put(from, to)
	if errors.Is(err, fs.ErrNotExist) {
		t.forget(dir)
		if err = t.make(dir); err == nil {
			err = put(from, to)
		}
	}
	return Fault("store.Finish", err)
}

// make creates a directory of bodies and makes its name durable. The first use
// of a process syncs its parents even when it is there already: whoever made
// it may not have come that far.
func (t *tree) make(dir string) error {
	t.mu.Lock()
	ok := t.known[dir]
	t.mu.Unlock()
	if ok {
		return nil
	}
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return Fault("store.Finish", err)
	}
	for parent := filepath.Dir(dir); len(parent) >= len(t.root); parent = filepath.Dir(parent) {
		if err := t.sync.do(parent); err != nil {
			return Fault("store.Finish", err)
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.known) >= maxKnown {
		clear(t.known)
	}
	t.known[dir] = true
	return nil
}

func (t *tree) forget(dir string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.known, dir)
}

// dirSync syncs directories; calls that come while one of the same directory
// runs share the next one.
type dirSync struct {
	mu      sync.Mutex
	flights map[string]*flight
}

// flight is one sync of a directory. It covers every change made before it
// took off.
type flight struct {
	done chan struct{}
	err  error
	next *flight // waits for this one to land
}

// do returns when a sync that began after the call has ended.
func (d *dirSync) do(dir string) error {
	mine, ahead := d.board(dir)
	if mine == nil {
		<-ahead.done
		return ahead.err
	}
	if ahead != nil {
		<-ahead.done
		d.mu.Lock()
		d.flights[dir] = mine
		d.mu.Unlock()
	}
	mine.err = syncDir(dir)
	d.mu.Lock()
	if mine.next == nil {
		delete(d.flights, dir)
	}
	d.mu.Unlock()
	close(mine.done)
	return mine.err
}

// board finds the flight to take: one's own, after the one ahead if there is
// one, or else (mine is nil) the one that somebody waits to start already.
func (d *dirSync) board(dir string) (mine, ahead *flight) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.flights == nil {
		d.flights = map[string]*flight{}
	}
	now := d.flights[dir]
	if now != nil && now.next != nil {
		return nil, now.next
	}
	mine = &flight{done: make(chan struct{})}
	if now == nil {
		d.flights[dir] = mine
		return mine, nil
	}
	now.next = mine
	return mine, now
}

func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}
