package testpeer

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Chance decides what an unsynced disk keeps; math/rand's Rand is one.
type Chance interface{ IntN(n int) int }

// disk is a file system that keeps no more than POSIX promises: bytes are safe
// after fsync or fdatasync of the file, a name after fsync of its directory.
// Everything else may or may not be there after a power cut, whole pieces of
// 512 bytes and single names in any combination.
type disk struct {
	path string
	root *node
	fds  map[int]*opened
}

// opened is an open file of the process.
type opened struct {
	node *node
	at   int64
}

// node is a file or a directory: what is safe, and what waits for a sync.
type node struct {
	names   map[string]*node // of a directory, as the process sees it; nil for a file
	safe    map[string]*node // names after a power cut
	renames []entry

	data   []byte // of a file, after a power cut
	writes []edit

	flying map[*call]int // syncs that have begun: how much was waiting then
}

// entry is one name that appeared or (nil) went away.
type entry struct {
	name string
	node *node
}

// edit is a write, or a change of length.
type edit struct {
	at    int64
	data  string
	write bool
}

func newNode(dir bool) *node {
	n := &node{flying: map[*call]int{}}
	if dir {
		n.names, n.safe = map[string]*node{}, map[string]*node{}
	}
	return n
}

func newDisk(path string) *disk {
	return &disk{path: path, root: newNode(true), fds: map[int]*opened{}}
}

// apply follows one moment of the record: a call takes effect when it ends, a
// sync covers what had taken effect when it began.
func (d *disk) apply(s step) error {
	c := s.call
	if c.name == "fsync" || c.name == "fdatasync" {
		d.sync(s)
		return nil
	}
	if c.name == "close" && !s.end {
		// As it begins: once it has ended, the number may be another file's,
		// or that of a socket, whose making is not in the record.
		delete(d.fds, int(c.number(0)))
		return nil
	}
	if !s.end || c.result < 0 {
		return nil
	}
	switch c.name {
	case "open":
		d.open(c.text(0), c.text(1), c.result)
	case "openat":
		d.open(c.text(1), c.text(2), c.result)
	case "write", "pwrite64":
		d.write(c)
	case "ftruncate":
		if o := d.fds[int(c.number(0))]; o != nil {
			o.node.writes = append(o.node.writes, edit{at: c.number(1)})
		}
	case "mkdir":
		d.link(c.text(0), newNode(true))
	case "mkdirat":
		d.link(c.text(1), newNode(true))
	case "rename":
		d.move(c.text(0), c.text(1))
	case "renameat", "renameat2":
		d.move(c.text(1), c.text(3))
	case "link":
		d.link(c.text(1), d.find(c.text(0)))
	case "linkat":
		d.link(c.text(3), d.find(c.text(1)))
	case "unlink":
		d.unlink(c.text(0))
	case "unlinkat":
		d.unlink(c.text(1))
	}
	return nil
}

// sync makes safe what was there when it began.
func (d *disk) sync(s step) {
	o := d.fds[int(s.call.number(0))]
	if o == nil {
		return
	}
	n := o.node
	if !s.end {
		n.flying[s.call] = len(n.writes) + len(n.renames)
		return
	}
	covers := n.flying[s.call]
	delete(n.flying, s.call)
	if s.call.result < 0 {
		return
	}
	if n.names != nil {
		covers = min(covers, len(n.renames))
		for _, e := range n.renames[:covers] {
			e.apply(n.safe)
		}
		n.renames = n.renames[covers:]
	} else {
		covers = min(covers, len(n.writes))
		for _, e := range n.writes[:covers] {
			n.data = e.apply(n.data)
		}
		n.writes = n.writes[covers:]
	}
	for other, waited := range n.flying {
		n.flying[other] = max(0, waited-covers)
	}
}

func (e entry) apply(names map[string]*node) {
	if e.node == nil {
		delete(names, e.name)
	} else {
		names[e.name] = e.node
	}
}

func (e edit) apply(data []byte) []byte {
	end := int(e.at) + len(e.data)
	if !e.write && end < len(data) {
		return data[:end:end]
	}
	if end > len(data) {
		data = append(data, make([]byte, end-len(data))...)
	}
	copy(data[e.at:], e.data)
	return data
}

func (d *disk) open(path, flags string, fd int) {
	delete(d.fds, fd)
	n := d.find(path)
	if n == nil && strings.Contains(flags, "O_CREAT") {
		n = newNode(false)
		d.link(path, n)
	}
	if n == nil || d.find(path) != n {
		return
	}
	if strings.Contains(flags, "O_TRUNC") {
		n.writes = append(n.writes, edit{})
	}
	d.fds[fd] = &opened{node: n}
}

func (d *disk) write(c *call) {
	o := d.fds[int(c.number(0))]
	if o == nil || o.node.names != nil {
		return
	}
	data := c.text(1)
	data = data[:min(c.result, len(data))]
	at := o.at
	if c.name == "pwrite64" {
		at = c.number(3)
	} else {
		o.at += int64(len(data))
	}
	o.node.writes = append(o.node.writes, edit{at: at, data: data, write: true})
}

// parent finds the directory of a path below the root, and the last name.
func (d *disk) parent(path string) (*node, string) {
	rel, err := filepath.Rel(d.path, path)
	if err != nil || !filepath.IsLocal(rel) || rel == "." {
		return nil, ""
	}
	n := d.root
	names := strings.Split(rel, string(filepath.Separator))
	for _, name := range names[:len(names)-1] {
		if n = n.names[name]; n == nil || n.names == nil {
			return nil, ""
		}
	}
	return n, names[len(names)-1]
}

func (d *disk) find(path string) *node {
	if path == d.path {
		return d.root
	}
	dir, name := d.parent(path)
	if dir == nil {
		return nil
	}
	return dir.names[name]
}

func (d *disk) link(path string, n *node) {
	if dir, name := d.parent(path); dir != nil && n != nil {
		dir.change(entry{name, n})
	}
}

func (d *disk) unlink(path string) {
	if dir, name := d.parent(path); dir != nil {
		dir.change(entry{name, nil})
	}
}

func (d *disk) move(from, to string) {
	n := d.find(from)
	d.unlink(from)
	d.link(to, n)
}

func (n *node) change(e entry) {
	e.apply(n.names)
	n.renames = append(n.renames, e)
}

// sector is what a disk writes whole.
const sector = 512

// save writes what is left after the power cut. Of what was not synced
// nothing is kept, or all, or each piece by the toss of a coin.
func (n *node) save(chance Chance, path string) error {
	mode := chance.IntN(3)
	keep := func() bool { return mode == 2 || mode == 1 && chance.IntN(2) == 0 }
	if n.names == nil {
		return os.WriteFile(path, n.remains(keep), 0o600)
	}
	if err := os.MkdirAll(path, 0o700); err != nil {
		return err
	}
	for _, e := range n.renames {
		if keep() {
			e.apply(n.safe)
		}
	}
	for name, child := range n.safe {
		if strings.HasSuffix(name, "-shm") {
			continue // a wal-index is memory; SQLite builds it anew
		}
		if err := child.save(chance, filepath.Join(path, name)); err != nil {
			return err
		}
	}
	return nil
}

func (n *node) remains(keep func() bool) []byte {
	data := slices.Clone(n.data)
	for _, e := range n.writes {
		if !e.write {
			if keep() {
				data = e.apply(data)
			}
			continue
		}
		for off := 0; off < len(e.data); off += sector {
			if keep() {
				piece := edit{at: e.at + int64(off), data: e.data[off:min(off+sector, len(e.data))], write: true}
				data = piece.apply(data)
			}
		}
	}
	return data
}
