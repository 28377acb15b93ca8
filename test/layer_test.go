package test

import (
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// A layer is a file system that holds what a program made durable, and knows
// what it did besides. It is built from a record of the program's calls and
// can be asked what a disk may hold after a power cut: everything that was
// synced, and of the rest anything.
//
// It is harsher than most file systems: the name of a file is durable only
// when its directory was synced after it was given, a rename may be cut in
// two, and writes that were not synced survive in any selection, the last
// sectors of each perhaps not.
type layer struct {
	root  *inode
	under string // the directory that the layer stands for
}

// inode is a file or a directory. What has not been synced waits in order.
type inode struct {
	dir     map[string]*inode // durable names, nil for a file
	view    map[string]*inode // names as the program sees them
	names   []naming
	data    []byte // durable content
	changes []change
	size    int64 // as the program sees it
	pos     int64 // of plain writes
	append  bool
}

// naming gives a name to an inode, or takes it away (nil).
type naming struct {
	name string
	to   *inode
	end  int64
}

// change is a write, or a cut to a length when data is nil.
type change struct {
	off  int64
	data []byte
	end  int64
}

// sector is what a disk writes at once.
const sector = 512

func newDir() *inode { return &inode{dir: map[string]*inode{}, view: map[string]*inode{}} }

// newLayer stands for a directory, all of whose content, of which from is a
// copy, is durable.
func newLayer(under, from string) (*layer, error) {
	l := &layer{root: newDir(), under: under}
	err := filepath.WalkDir(from, func(name string, d fs.DirEntry, err error) error {
		if err != nil || name == from {
			return err
		}
		n := newDir()
		if !d.IsDir() {
			data, err := os.ReadFile(name)
			if err != nil {
				return err
			}
			n = &inode{data: data, size: int64(len(data))}
		}
		dir, base, ok := l.find(under + strings.TrimPrefix(name, from))
		if !ok {
			return fmt.Errorf("%s has no directory", name)
		}
		dir.dir[base], dir.view[base] = n, n
		return nil
	})
	return l, err
}

// find returns the directory of a path and the path's last name; false for
// what is outside of the layer or in a directory that is not there.
func (l *layer) find(name string) (dir *inode, base string, ok bool) {
	if !strings.HasPrefix(name, "/") { // PostgreSQL works in its directory
		name = l.under + "/" + name
	}
	rest, inside := strings.CutPrefix(path.Clean(name), l.under+"/")
	if !inside {
		return nil, "", false
	}
	dir = l.root
	parts := strings.Split(rest, "/")
	for _, p := range parts[:len(parts)-1] {
		if dir = dir.view[p]; dir == nil || dir.view == nil {
			return nil, "", false
		}
	}
	return dir, parts[len(parts)-1], true
}

// node is the inode at a path, nil when there is none.
func (l *layer) node(name string) *inode {
	if path.Clean(name) == l.under {
		return l.root
	}
	dir, base, ok := l.find(name)
	if !ok {
		return nil
	}
	return dir.view[base]
}

// run does what the record says until the moment of the cut.
func (l *layer) run(calls []*call, cut int64) error {
	for _, c := range calls {
		if c.start > cut {
			return nil
		}
		end := c.end
		if end > cut {
			end = never // its effect may be there or not
		} else if c.ret < 0 {
			continue
		}
		if err := l.do(c, end); err != nil {
			return fmt.Errorf("%s(%.200s): %w", c.name, strings.Join(c.args, ", "), err)
		}
	}
	return nil
}

func (l *layer) do(c *call, end int64) error {
	switch c.name {
	case "openat":
		return l.open(c.path(1), c.args[2], end)
	case "open":
		return l.open(c.path(0), c.args[1], end)
	case "write", "pwrite64", "writev", "pwritev", "pwritev2":
		return l.write(c, end)
	case "lseek":
		if n := l.node(c.file(0)); n != nil && c.ret >= 0 {
			n.pos = c.ret
		}
	case "fsync", "fdatasync":
		if n := l.node(c.file(0)); n != nil && end != never {
			n.sync(c.start)
		}
	case "ftruncate":
		return l.cutTo(c.file(0), c.number(1), end)
	case "truncate":
		return l.cutTo(c.path(0), c.number(1), end)
	case "fallocate":
		if n := l.node(c.file(0)); n != nil && c.args[1] == "0" {
			return l.cutTo(c.file(0), max(n.size, c.number(2)+c.number(3)), end)
		}
		return l.foreign(c.file(0))
	case "mmap":
		return l.mapped(c)
	case "sync", "syncfs", "sync_file_range", "msync", "sendto", "sendmsg", "sendfile", "splice":
		// They make nothing durable here, or do not write files.
	case "creat", "copy_file_range", "symlink", "symlinkat":
		return l.foreign(l.anyPath(c))
	default:
		return l.rename(c, end)
	}
	return nil
}

// anyPath finds a path in the arguments that is of the layer.
func (l *layer) anyPath(c *call) string {
	for i := range c.args {
		for _, name := range []string{c.file(i), c.path(i)} {
			if strings.HasPrefix(name, l.under+"/") {
				return name
			}
		}
	}
	return ""
}

// foreign fails for what the layer cannot follow.
func (l *layer) foreign(name string) error {
	if strings.HasPrefix(name, l.under+"/") {
		return fmt.Errorf("the layer does not know what this does to %s", name)
	}
	return nil
}

// mapped refuses shared mappings that may change a file, but for SQLite's
// index of the WAL, which is made anew after a crash.
func (l *layer) mapped(c *call) error {
	if len(c.args) < 5 || !strings.Contains(c.args[3], "MAP_SHARED") || !strings.Contains(c.args[2], "PROT_WRITE") {
		return nil
	}
	name := c.file(4)
	if strings.HasSuffix(name, "-shm") {
		return nil
	}
	return l.foreign(name)
}

func (l *layer) open(name, flags string, end int64) error {
	dir, base, ok := l.find(name)
	if !ok {
		return nil
	}
	n := dir.view[base]
	if n == nil && strings.Contains(flags, "O_CREAT") {
		n = &inode{}
		dir.give(base, n, end)
	}
	if n == nil || n.view != nil {
		return nil
	}
	n.pos, n.append = 0, strings.Contains(flags, "O_APPEND")
	if strings.Contains(flags, "O_TRUNC") && n.size > 0 {
		n.add(change{off: 0, end: end})
	}
	return nil
}

func (l *layer) write(c *call, end int64) error {
	n := l.node(c.file(0))
	if n == nil {
		return nil
	}
	data, err := c.data()
	if err != nil {
		return err
	}
	off := n.pos
	switch {
	case strings.HasPrefix(c.name, "pwrite"):
		off = c.number(3)
	case n.append:
		off = n.size
	}
	if !strings.HasPrefix(c.name, "pwrite") {
		n.pos = off + int64(len(data))
	}
	if len(data) > 0 {
		n.add(change{off: off, data: data, end: end})
	}
	return nil
}

func (l *layer) cutTo(name string, size, end int64) error {
	if n := l.node(name); n != nil {
		n.add(change{off: size, end: end})
	}
	return nil
}

// rename follows what changes names.
func (l *layer) rename(c *call, end int64) error {
	from, to, at := 0, 1, strings.HasSuffix(c.name, "at") || c.name == "renameat2"
	if at {
		from, to = 1, 3
	}
	was, old, inside := l.find(c.path(from))
	switch {
	case strings.HasPrefix(c.name, "unlink"), c.name == "rmdir":
		if inside {
			was.give(old, nil, end)
		}
		return nil
	case strings.HasPrefix(c.name, "mkdir"):
		if inside {
			was.give(old, newDir(), end)
		}
		return nil
	}
	now, name, ok := l.find(c.path(to))
	if !ok && !inside {
		return nil
	}
	if !ok || !inside {
		return fmt.Errorf("a name comes from elsewhere, or goes there")
	}
	n := was.view[old]
	now.give(name, n, end)
	if strings.HasPrefix(c.name, "rename") {
		was.give(old, nil, end)
	}
	return nil
}

func (n *inode) give(name string, to *inode, end int64) {
	if to == nil {
		delete(n.view, name)
	} else {
		n.view[name] = to
	}
	n.names = append(n.names, naming{name: name, to: to, end: end})
}

func (n *inode) add(c change) {
	if c.data == nil {
		n.size = c.off
	} else {
		n.size = max(n.size, c.off+int64(len(c.data)))
	}
	n.changes = append(n.changes, c)
}

// sync makes durable what had ended before the sync began.
func (n *inode) sync(begun int64) {
	n.changes = slices.DeleteFunc(n.changes, func(c change) bool {
		if c.end > begun {
			return false
		}
		n.data = c.apply(n.data)
		return true
	})
	if n.dir == nil {
		return
	}
	n.names = slices.DeleteFunc(n.names, func(g naming) bool {
		if g.end > begun {
			return false
		}
		g.apply(n.dir)
		return true
	})
}

func (g naming) apply(dir map[string]*inode) {
	if g.to == nil {
		delete(dir, g.name)
	} else {
		dir[g.name] = g.to
	}
}

func (c change) apply(data []byte) []byte {
	end := c.off + int64(len(c.data))
	if c.data == nil && end < int64(len(data)) {
		return data[:end:end]
	}
	if grow := end - int64(len(data)); grow > 0 {
		data = append(data, make([]byte, grow)...)
	}
	copy(data[c.off:], c.data)
	return data
}

// survival says what of the unsynced survives a cut.
type survival struct {
	rng  *rand.Rand
	odds float64 // that a change or a name survives
	torn bool    // a write that survives may do so in part
}

// restore writes what a disk may hold into an empty directory.
func (l *layer) restore(to string, s survival) error { return l.root.restore(to, s) }

func (n *inode) restore(to string, s survival) error {
	if n.dir == nil {
		return os.WriteFile(to, n.survives(s), 0o600)
	}
	if err := os.MkdirAll(to, 0o750); err != nil {
		return err
	}
	left := map[string]*inode{}
	for name, child := range n.dir {
		left[name] = child
	}
	for _, g := range n.names {
		if s.rng.Float64() < s.odds {
			g.apply(left)
		}
	}
	for name, child := range left {
		if strings.HasSuffix(name, "-shm") {
			continue
		}
		if err := child.restore(filepath.Join(to, name), s); err != nil {
			return err
		}
	}
	return nil
}

func (n *inode) survives(s survival) []byte {
	data := slices.Clone(n.data)
	for _, c := range n.changes {
		if s.rng.Float64() >= s.odds {
			continue
		}
		if s.torn && len(c.data) > sector {
			sectors := (len(c.data) + sector - 1) / sector
			c.data = c.data[:min(len(c.data), (1+s.rng.IntN(sectors))*sector)]
		}
		data = c.apply(data)
	}
	return data
}
