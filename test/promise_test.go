package test

import (
	"bytes"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
)

// promise is an id in a 250 to a client, and when its write began.
type promise struct {
	id string
	at int64
}

// accepting is the reply to content that promises.
var accepting = regexp.MustCompile(`(?m)^250 2\.0\.0 [^\r\n]*`)

// promises finds what a gateway's listener answered with 250.
func promises(calls []*call, listener string) ([]promise, error) {
	var all []promise
	err := talk(calls, "<TCP:["+listener+"->", func(c *call, data []byte) {
		for _, line := range accepting.FindAll(data, -1) {
			for _, id := range acceptedAs.FindAll(line, -1) {
				all = append(all, promise{string(id), c.start})
			}
		}
	})
	return all, err
}

// handedOver finds the messages whose bytes were written to a server before a
// moment, by the id in our Received field.
func handedOver(calls []*call, server string, before int64) (map[string]bool, error) {
	sent := map[string]bool{}
	err := talk(calls, "->"+server+"]>", func(c *call, data []byte) {
		if c.start <= before {
			ids(data, func(id string) { sent[id] = true })
		}
	})
	return sent, err
}

// talk shows what was written to sockets whose name holds words.
func talk(calls []*call, words string, see func(*call, []byte)) error {
	for _, c := range calls {
		if c.name != "write" && c.name != "writev" || !strings.Contains(c.args[0], words) {
			continue
		}
		whole := *c
		if c.end == never {
			whole.ret = never
		}
		data, err := whole.data()
		if err != nil {
			return err
		}
		see(c, data)
	}
	return nil
}

// ids calls see for each run of 26 characters of a ULID's alphabet.
func ids(data []byte, see func(string)) {
	const alphabet = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
	run := 0
	for i, b := range data {
		if strings.IndexByte(alphabet, b) < 0 {
			run = 0
			continue
		}
		// A neighbour of the row may be of the alphabet too, so that an id is
		// any 26 characters of a run.
		if run++; run >= 26 {
			see(string(data[i-25 : i+1]))
		}
	}
}

// span is when a call began and ended.
type span struct{ start, end int64 }

// within reports whether a sync covers what ended at a moment, and is over at
// another.
func within(syncs []span, from, to int64) bool {
	return slices.ContainsFunc(syncs, func(s span) bool { return s.start >= from && s.end <= to })
}

// journal is what a record says of the files by which a store commits: where
// each id was first written, and the syncs of each file.
type journal struct {
	wrote map[string]written
	syncs map[string][]span
}

type written struct {
	file string
	end  int64
}

// readJournal looks at the files that the store commits by.
func readJournal(calls []*call, commits func(file string) bool) (journal, error) {
	j := journal{map[string]written{}, map[string][]span{}}
	for _, c := range calls {
		if c.end == never || c.ret < 0 {
			continue
		}
		switch c.name {
		case "write", "pwrite64", "writev", "pwritev", "pwritev2":
			file := c.file(0)
			if !commits(file) {
				continue
			}
			data, err := c.data()
			if err != nil {
				return j, err
			}
			ids(data, func(id string) {
				if _, ok := j.wrote[id]; !ok {
					j.wrote[id] = written{file, c.end}
				}
			})
		case "fsync", "fdatasync":
			j.syncs[c.file(0)] = append(j.syncs[c.file(0)], span{c.start, c.end})
		}
	}
	return j, nil
}

// broken lists the promises that were given before their id was synced.
func (j journal) broken(given []promise) []string {
	var all []string
	for _, p := range given {
		w, ok := j.wrote[p.id]
		switch {
		case !ok || w.end > p.at:
			all = append(all, p.id+" was answered with 250 before it was written")
		case !within(j.syncs[w.file], w.end, p.at):
			all = append(all, p.id+" was answered with 250 before "+path.Base(w.file)+" was synced")
		}
	}
	return all
}

// bodyFile is a body that is a file, as a record tells of it. A file that is
// written over is another body.
type bodyFile struct {
	size      int
	lastWrite int64
	syncs     []span
	names     map[string]int64 // of tenants, each with the end of the call that gave it
}

// bodies is what a record says of a gateway's body files.
type bodies struct {
	byPath map[string]*bodyFile
	bySeq  map[string]*bodyFile // by load's sequence number
	dirs   map[string][]span    // syncs of directories
	made   map[string]int64     // directories made, with the end of the call
}

func readBodies(calls []*call, under string) (bodies, error) {
	b := bodies{map[string]*bodyFile{}, map[string]*bodyFile{}, map[string][]span{}, map[string]int64{}}
	for _, c := range calls {
		if c.end == never || c.ret < 0 {
			continue
		}
		if err := b.see(c, under); err != nil {
			return b, err
		}
	}
	return b, nil
}

func (b bodies) see(c *call, under string) error {
	switch c.name {
	case "openat":
		if name := c.path(1); strings.Contains(c.args[2], "O_WRONLY") && strings.HasPrefix(name, under) {
			b.byPath[name] = &bodyFile{names: map[string]int64{}}
		}
	case "write", "pwrite64", "writev":
		return b.write(c)
	case "ftruncate":
		if f := b.byPath[c.file(0)]; f != nil {
			f.lastWrite = max(f.lastWrite, c.end)
		}
	case "mkdirat":
		b.made[c.path(1)] = c.end
	case "renameat", "linkat":
		from, to := c.path(1), c.path(3)
		f := b.byPath[from]
		if f == nil {
			return nil
		}
		if c.name == "renameat" {
			delete(b.byPath, from)
		}
		b.byPath[to] = f
		if !strings.Contains(to, "/+") { // where files are that no body has
			f.names[to] = c.end
		}
	case "fsync", "fdatasync":
		if f := b.byPath[c.file(0)]; f != nil {
			f.syncs = append(f.syncs, span{c.start, c.end})
		} else {
			b.dirs[c.file(0)] = append(b.dirs[c.file(0)], span{c.start, c.end})
		}
	}
	return nil
}

func (b bodies) write(c *call) error {
	f := b.byPath[c.file(0)]
	if f == nil {
		return nil
	}
	data, err := c.data()
	if err != nil {
		return err
	}
	if _, rest, ok := bytes.Cut(data, []byte("Subject: ")); ok && f.size == 0 {
		seq, _, _ := bytes.Cut(rest, []byte("\r\n"))
		b.bySeq[string(seq)] = f
	}
	f.size += len(data)
	f.lastWrite = max(f.lastWrite, c.end)
	return nil
}

// broken says why the body of a promise was not durable in time, "" when it
// was. The root is durable before the gateway runs.
func (b bodies) broken(seq string, size int, at int64, root string) string {
	f := b.bySeq[seq]
	switch {
	case f == nil:
		return seq + " has no file"
	case f.size < size:
		return fmt.Sprintf("%s: only %d bytes of %d were written", seq, f.size, size)
	case !within(f.syncs, f.lastWrite, at):
		return seq + ": the file was not synced before the 250"
	case len(f.names) == 0:
		return seq + ": the file has no name of a tenant"
	}
	for name, named := range f.names {
		for dir := path.Dir(name); ; dir, named = path.Dir(dir), b.made[dir] {
			if named > 0 && !within(b.dirs[dir], named, at) {
				return seq + ": a name in " + dir + " was not synced before the 250"
			}
			if dir == root || dir == "/" {
				break
			}
		}
	}
	return ""
}
