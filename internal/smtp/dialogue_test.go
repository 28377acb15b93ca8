package smtp

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestDialogues plays the case files of testdata; their README has the format.
func TestDialogues(t *testing.T) {
	for _, pattern := range []string{"testdata/dialogues/*.dlg", "testdata/bdat/*.dlg"} {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %d files, %v", pattern, len(files), err)
		}
		for _, file := range files {
			script, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for _, mode := range []string{"whole", "bytewise"} {
				t.Run(filepath.Base(file)+"/"+mode, func(t *testing.T) {
					t.Parallel()
					play(t, string(script), mode == "bytewise")
				})
			}
		}
	}
}

// player is the client's side of a dialogue.
type player struct {
	t        *testing.T
	b        *recorder
	rules    Listener
	nc       net.Conn
	r        *bufio.Reader
	bytewise bool
	refused  int
}

func play(t *testing.T, script string, bytewise bool) {
	p := &player{t: t, b: &recorder{password: "secret"}, bytewise: bytewise}
	for i, line := range strings.Split(script, "\n") {
		line = strings.TrimSuffix(line, "\r")
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		if err := p.step(line); err != nil {
			t.Fatalf("line %d: %s: %v", i+1, line, err)
		}
	}
}

func (p *player) step(line string) error {
	word, arg, _ := strings.Cut(line, " ")
	if word == "L:" {
		return p.listener(arg)
	}
	if p.nc == nil {
		p.connect()
	}
	switch word {
	case "C:":
		return p.send(arg + "\r\n")
	case "C=":
		return p.send(unquoted(arg))
	case "S:":
		return p.expectLine(arg)
	case "S*":
		return p.expectReply(arg)
	case "TLS":
		return p.startTLS()
	case "EOF":
		return p.expectEnd()
	case "K:":
		if got := len(p.b.kept()); strconv.Itoa(got) != arg {
			return fmt.Errorf("%d kept", got)
		}
	case "B=":
		return p.expectBody(unquoted(arg))
	case "R:":
		return p.expectRefusal(arg)
	default:
		return fmt.Errorf("no such instruction")
	}
	return nil
}

func unquoted(s string) string {
	s, err := strconv.Unquote(`"` + strings.ReplaceAll(s, `"`, `\"`) + `"`)
	if err != nil {
		panic(err)
	}
	return s
}

// listener reads "Field=5 Flag": fields of Listener by name.
func (p *player) listener(arg string) error {
	rules := reflect.ValueOf(&p.rules).Elem()
	for _, word := range strings.Fields(arg) {
		if word == "TLS" {
			p.rules.TLS = serverTLS(p.t)
			continue
		}
		name, value, has := strings.Cut(word, "=")
		field := rules.FieldByName(name)
		switch {
		case !field.IsValid():
			return fmt.Errorf("no field %s", name)
		case !has:
			field.SetBool(true)
		default:
			n, err := strconv.ParseInt(value, 10, 64)
			if err != nil {
				return err
			}
			field.SetInt(n)
		}
	}
	return nil
}

func (p *player) connect() {
	addr, _ := startServer(p.t, p.b, p.rules)
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { _ = nc.Close() })
	if err := nc.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		p.t.Fatal(err)
	}
	p.nc, p.r = nc, bufio.NewReader(nc)
}

func (p *player) send(s string) error {
	if !p.bytewise || len(s) > 4096 {
		_, err := io.WriteString(p.nc, s)
		return err
	}
	for i := range len(s) {
		if _, err := io.WriteString(p.nc, s[i:i+1]); err != nil {
			return err
		}
	}
	return nil
}

func (p *player) expectLine(want string) error {
	got, err := p.r.ReadString('\n')
	if err != nil {
		return err
	}
	if !matches(want, strings.TrimSuffix(got, "\r\n")) {
		return fmt.Errorf("got %q", got)
	}
	return nil
}

// matches compares with "*" standing for any text.
func matches(want, got string) bool {
	parts := strings.Split(want, "*")
	if len(parts) == 1 {
		return want == got
	}
	if !strings.HasPrefix(got, parts[0]) {
		return false
	}
	got = got[len(parts[0]):]
	for _, part := range parts[1 : len(parts)-1] {
		i := strings.Index(got, part)
		if i < 0 {
			return false
		}
		got = got[i+len(part):]
	}
	return strings.HasSuffix(got, parts[len(parts)-1])
}

func (p *player) expectReply(code string) error {
	for {
		line, err := p.r.ReadString('\n')
		if err != nil {
			return err
		}
		if !strings.HasPrefix(line, code) {
			return fmt.Errorf("got %q", line)
		}
		if len(line) > 3 && line[3] == ' ' {
			return nil
		}
	}
}

func (p *player) startTLS() error {
	c := tls.Client(p.nc, &tls.Config{InsecureSkipVerify: true})
	if err := c.Handshake(); err != nil {
		return err
	}
	p.nc, p.r = c, bufio.NewReader(c)
	return nil
}

func (p *player) expectEnd() error {
	rest, err := io.ReadAll(p.r)
	if len(rest) > 0 {
		return fmt.Errorf("got %q", rest)
	}
	return err
}

func (p *player) expectBody(want string) error {
	kept := p.b.kept()
	if len(kept) == 0 {
		return fmt.Errorf("nothing kept")
	}
	if got := kept[len(kept)-1].body; !bytes.Equal(got, []byte(want)) {
		return fmt.Errorf("kept %q", got)
	}
	return nil
}

func (p *player) expectRefusal(want string) error {
	all := p.b.refusals()
	if len(all) <= p.refused {
		return fmt.Errorf("no refusal; so far %q", all)
	}
	got := all[p.refused]
	p.refused++
	if !matches(want, got) {
		return fmt.Errorf("got %q", got)
	}
	return nil
}
