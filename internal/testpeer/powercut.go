package testpeer

import (
	"bufio"
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// A power cut is simulated from a record: strace writes down every call of a
// process that changes files, and Trace.Cut builds the directory that a disk
// would hold if the power had failed at one line of it: what was synced, and
// of the rest as much as chance wants (see disk.go).

// traced are the calls that change files, or tell the outside something.
const traced = "trace=open,openat,close,write,pwrite64,writev,sendto,fsync,fdatasync,ftruncate,rename,renameat,renameat2,link,linkat,unlink,unlinkat,mkdir,mkdirat"

// Trace is a record of a process.
type Trace struct {
	root  string // the directory whose files count
	steps []step
}

// step is one moment of the record: a call beginning or ending.
type step struct {
	call *call
	end  bool
}

// call is one system call.
type call struct {
	name   string
	args   []string
	result int
}

// Strace makes the command that runs cmd under strace, recording into log. The
// test is skipped when strace is missing.
func Strace(ctx context.Context, t testing.TB, log string, cmd *exec.Cmd) *exec.Cmd {
	t.Helper()
	path := Need(t, "strace", "strace")[0]
	args := append([]string{"-f", "-qq", "-xx", "-s", "1000000", "-e", traced, "-e", "signal=none", "-o", log, "--"}, cmd.Args...)
	c := exec.CommandContext(ctx, path, args...)
	c.Env, c.Dir, c.Stdin, c.Stderr = cmd.Env, cmd.Dir, cmd.Stdin, cmd.Stderr
	return c
}

// ReadTrace reads a record. Only files below root count; root was empty when
// the process began.
func ReadTrace(log, root string) (*Trace, error) {
	f, err := os.Open(log)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	t := &Trace{root: root}
	return t, t.read(f)
}

// Lines of strace -f: a call that another thread's line interrupts ends with
// "<unfinished ...>" and goes on in a line of its own.
const unfinished = " <unfinished ...>"

func (t *Trace) read(r io.Reader) error {
	whole := regexp.MustCompile(`^(\d+) +(\w+)\((.*)$`)
	resumed := regexp.MustCompile(`^(\d+) +<\.\.\. (\w+) resumed>(.*)$`)
	open := map[string]*call{}
	begun := map[string]string{}
	lines := bufio.NewReaderSize(r, 1<<20)
	for {
		line, err := lines.ReadString('\n')
		if err == io.EOF {
			return nil // a last line without an end was cut by the kill
		}
		if err != nil {
			return err
		}
		line = strings.TrimSuffix(line, "\n")
		if m := resumed.FindStringSubmatch(line); m != nil && open[m[1]] != nil {
			c := open[m[1]]
			c.parse(begun[m[1]] + m[3])
			t.steps = append(t.steps, step{c, true})
			delete(open, m[1])
			continue
		}
		m := whole.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		c := &call{name: m[2], result: -1}
		t.steps = append(t.steps, step{c, false})
		if text, ok := strings.CutSuffix(m[3], unfinished); ok {
			c.parse(text)
			open[m[1]], begun[m[1]] = c, text
			continue
		}
		c.parse(m[3])
		t.steps = append(t.steps, step{c, true})
	}
}

// parse reads "arg, arg) = result"; of a call that has not ended the result
// is absent. With -xx no string holds a comma or a parenthesis.
func (c *call) parse(text string) {
	args, result, ended := strings.Cut(text, ")")
	c.args = strings.Split(args, ", ")
	for i, arg := range c.args {
		c.args[i] = unquote(arg)
	}
	if !ended {
		return
	}
	_, result, _ = strings.Cut(result, "= ")
	result, _, _ = strings.Cut(result, " ")
	if n, err := strconv.Atoi(result); err == nil {
		c.result = n
	}
}

func (c *call) number(i int) int64 {
	if i >= len(c.args) {
		return -1
	}
	n, err := strconv.ParseInt(c.args[i], 10, 64)
	if err != nil {
		return -1
	}
	return n
}

// unquote reads a string that strace wrote in hexadecimal.
func unquote(arg string) string {
	text, ok := strings.CutPrefix(arg, `"`)
	if !ok {
		return arg
	}
	text, _, _ = strings.Cut(text, `"`)
	b, err := hex.DecodeString(strings.ReplaceAll(text, `\x`, ""))
	if err != nil {
		return arg
	}
	return string(b)
}

// text is a string argument.
func (c *call) text(i int) string {
	if i >= len(c.args) {
		return ""
	}
	return c.args[i]
}

// Len is the number of moments at which the power can fail.
func (t *Trace) Len() int { return len(t.steps) }

// Told calls f with what the process had begun to write to file descriptors
// that are not files below root (standard output, sockets), up to a moment.
func (t *Trace) Told(at int, f func(fd int, text string)) {
	d := newDisk(t.root)
	for _, s := range t.steps[:at] {
		if !s.end && (s.call.name == "write" || s.call.name == "sendto") {
			if fd := int(s.call.number(0)); d.fds[fd] == nil {
				f(fd, s.call.text(1))
			}
		}
		if s.call.name == "close" || s.end && strings.HasPrefix(s.call.name, "open") {
			d.apply(s)
		}
	}
}

// Cut writes into dir what the disk holds when the power fails at a moment;
// chance decides about what was not synced.
func (t *Trace) Cut(at int, chance Chance, dir string) error {
	d := newDisk(t.root)
	for i, s := range t.steps[:at] {
		if err := d.apply(s); err != nil {
			return fmt.Errorf("step %d, %s: %w", i, s.call.name, err)
		}
	}
	return d.root.save(chance, dir)
}
