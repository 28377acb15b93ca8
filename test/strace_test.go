package test

import (
	"bufio"
	"fmt"
	"io"
	"math"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/sallyport-mail/sallyport/internal/testpeer"
)

// tracedCalls are all by which a program can change files or talk, and those
// that make files durable. mmap is among them because a shared mapping would
// change a file behind our back.
const tracedCalls = "open,openat,creat,write,pwrite64,writev,pwritev,pwritev2,sendto,sendmsg,lseek," +
	"fsync,fdatasync,sync,syncfs,sync_file_range,msync,mmap,truncate,ftruncate,fallocate,copy_file_range,sendfile,splice," +
	"rename,renameat,renameat2,link,linkat,symlink,symlinkat,unlink,unlinkat,rmdir,mkdir,mkdirat"

// tracer is the command that runs a program and records its calls in a file.
func tracer(t testing.TB, record string) []string {
	t.Helper()
	strace := testpeer.Need(t, "strace", "strace")[0]
	return []string{strace, "-f", "--seccomp-bpf", "-yy", "-xx", "-ttt", "-T", "-s", "1048576", "-e", "signal=none", "-e", "trace=" + tracedCalls, "-o", record}
}

// never is the end of a call that was under way when the record ends.
const never = math.MaxInt64

// call is one system call. start and end are moments in microseconds: a call
// covers what ended before its start, and nothing later.
type call struct {
	name       string
	args       []string
	start, end int64
	ret        int64
	made       string // path of the descriptor that it returned
	wrote      []byte
	cut        bool // strace did not record all of it
}

// file is the path of the descriptor in argument i, "" for what is no file.
func (c *call) file(i int) string {
	_, name, ok := strings.Cut(c.args[i], "<")
	if !ok || strings.HasSuffix(name, "(deleted)") {
		return ""
	}
	return unhex(strings.TrimSuffix(name, ">"))
}

// path is a path argument i, resolved against the descriptor in argument i-1
// if that is one.
func (c *call) path(i int) string {
	name := unhex(strings.Trim(c.args[i], `"`))
	if strings.HasPrefix(name, "/") || i == 0 {
		return name
	}
	if dir := c.file(i - 1); dir != "" {
		name = dir + "/" + name
	}
	return name
}

func (c *call) number(i int) int64 {
	n, _ := strconv.ParseInt(c.args[i], 0, 64)
	return n
}

// data is what a write wrote.
func (c *call) data() ([]byte, error) {
	if c.cut {
		return nil, fmt.Errorf("strace cut what %s wrote", c.name)
	}
	if c.end == never {
		return c.wrote, nil
	}
	return c.wrote[:min(len(c.wrote), int(max(c.ret, 0)))], nil
}

// decode takes what a write wrote out of its argument, and the text away.
func (c *call) decode() {
	if !strings.Contains(c.name, "write") || len(c.args) < 2 {
		return
	}
	text := c.args[1]
	c.wrote = make([]byte, 0, len(text)/4)
	for {
		_, rest, ok := strings.Cut(text, `"`)
		if !ok {
			break
		}
		piece, after, _ := strings.Cut(rest, `"`)
		c.cut = c.cut || strings.HasPrefix(after, "...")
		c.wrote, text = append(c.wrote, unhex(piece)...), after
	}
	c.args[1] = ""
}

// unhex reads strace's -xx; what is not escaped stands for itself.
func unhex(s string) string {
	if !strings.HasPrefix(s, `\x`) || len(s)%4 != 0 {
		return s
	}
	b := make([]byte, len(s)/4)
	for i := range b {
		b[i] = nibble(s[4*i+2])<<4 | nibble(s[4*i+3])
	}
	return string(b)
}

func nibble(c byte) byte {
	if c >= 'a' {
		return c - 'a' + 10
	}
	return c - '0'
}

// readRecord reads a record of strace, in the order of the calls' starts.
func readRecord(t testing.TB, file string) []*call {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	calls, err := parseRecord(f)
	if err != nil {
		t.Fatal(err)
	}
	return calls
}

func parseRecord(r io.Reader) ([]*call, error) {
	in := bufio.NewReaderSize(r, 1<<20)
	open := map[string]*call{} // by thread
	partial := map[string]string{}
	var calls []*call
	for {
		line, err := in.ReadString('\n')
		if err == io.EOF {
			return calls, nil // a last line without an end was never finished
		}
		if err != nil {
			return nil, err
		}
		thread, now, text, ok := stamp(strings.TrimSuffix(line, "\n"))
		if !ok {
			return nil, fmt.Errorf("strace wrote %.100q", line)
		}
		switch {
		case strings.HasPrefix(text, "+++"), strings.HasPrefix(text, "---"):
		case strings.HasPrefix(text, "<... "):
			c := open[thread]
			if c == nil {
				return nil, fmt.Errorf("strace resumes nothing: %.100q", line)
			}
			_, rest, _ := strings.Cut(text, " resumed>")
			delete(open, thread)
			if err := c.finish(partial[thread]+rest, now); err != nil {
				return nil, err
			}
		default:
			name, rest, _ := strings.Cut(text, "(")
			c := &call{name: name, start: now, end: never, ret: -1}
			calls = append(calls, c)
			if args, ok := strings.CutSuffix(rest, " <unfinished ...>"); ok {
				open[thread], partial[thread] = c, args
				c.args = split(args)
				c.decode()
				continue
			}
			if err := c.finish(rest, now); err != nil {
				return nil, err
			}
		}
	}
}

// stamp reads "thread time rest".
func stamp(line string) (thread string, now int64, text string, ok bool) {
	thread, rest, _ := strings.Cut(line, " ")
	at, text, _ := strings.Cut(strings.TrimLeft(rest, " "), " ")
	seconds, fraction, ok := strings.Cut(at, ".")
	return thread, micros(seconds, fraction), text, ok
}

func micros(seconds, fraction string) int64 {
	s, _ := strconv.ParseInt(seconds, 10, 64)
	f, _ := strconv.ParseInt(fraction, 10, 64)
	return s*1e6 + f
}

// closing is where the arguments end, result what follows it:
// "13</path> <0.000123>", or "-1 ENOENT (No such file or directory) <0.000123>".
var (
	closing = regexp.MustCompile(`\)\s*= `)
	result  = regexp.MustCompile(`^(-?\d+|0x[0-9a-f]+|\?)(<(?:[^<>]|<[^>]*>)*>)?(?:\(deleted\))?(?: [^<]*)?(?: <(\d+)\.(\d{6})>)?$`)
)

// finish reads the arguments and the result. now is when the line was begun.
func (c *call) finish(text string, now int64) error {
	at := closing.FindStringIndex(text)
	if at == nil {
		return fmt.Errorf("strace wrote %.100q", text)
	}
	c.args = split(text[:at[0]])
	c.decode()
	m := result.FindStringSubmatch(text[at[1]:])
	if m == nil {
		return fmt.Errorf("the result of %s is %.100q", c.name, text[at[1]:])
	}
	if m[1] == "?" {
		return nil // the process ended within it
	}
	c.ret, _ = strconv.ParseInt(m[1], 0, 64)
	c.made = unhex(strings.Trim(m[2], "<>"))
	c.end = max(now, c.start+micros(orZero(m[3]), orZero(m[4])))
	return nil
}

func orZero(s string) string {
	if s == "" {
		return "0"
	}
	return s
}

// split separates arguments; in -xx no string holds a comma, but arrays and
// structures do.
func split(text string) []string {
	var args []string
	depth, from := 0, 0
	for i := 0; i < len(text); i++ {
		switch text[i] {
		case '[', '{':
			depth++
		case ']', '}':
			depth--
		case ',':
			if depth == 0 {
				args = append(args, text[from:i])
				from = i + 2
			}
		}
	}
	return append(args, text[min(from, len(text)):])
}
