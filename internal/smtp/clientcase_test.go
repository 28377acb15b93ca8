package smtp

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-mail/sallyport/internal/mail"
)

// TestClients plays the servers of testdata/clients; its README has the format.
func TestClients(t *testing.T) {
	files, err := filepath.Glob("testdata/clients/*.dlg")
	if err != nil || len(files) < 10 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, file := range files {
		script, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		t.Run(filepath.Base(file), func(t *testing.T) {
			t.Parallel()
			c := readClientCase(t, string(script))
			c.check(t, c.run(t))
		})
	}
}

// clientCase is one file.
type clientCase struct {
	target Target
	env    mail.Envelope
	line   string   // of the content's body
	steps  []string // of the server
	times  int
	probe  bool
	want   map[string]string
}

// outcome is what came of it.
type outcome struct {
	dial  error
	res   Result
	err   error
	alive bool
}

func readClientCase(t *testing.T, script string) clientCase {
	c := clientCase{times: 1, line: ".", want: map[string]string{}, target: Target{Hello: "client.test"}}
	for _, line := range strings.Split(script, "\n") {
		word, arg, _ := strings.Cut(line, " ")
		switch word {
		case "", "#":
		case "T:":
			c.readTarget(t, arg)
		case "E:":
			words := strings.Fields(strings.Replace(arg, "<>", "-", 1))
			c.env = envelope(strings.TrimPrefix(words[0], "-"), words[1:]...)
		case "P:":
			c.readParams(t, arg)
		case "B:":
			c.line = arg
		case "AGAIN":
			c.times++
		case "PROBE":
			c.probe = true
		case "S:", "S=", "C:", "CLOSE":
			c.steps = append(c.steps, line)
		default:
			if !strings.HasSuffix(word, ":") {
				t.Fatalf("%s: no such instruction", line)
			}
			c.want[strings.TrimSuffix(word, ":")] = arg
		}
	}
	return c
}

func (c *clientCase) readTarget(t *testing.T, arg string) {
	switch arg {
	case "LMTP":
		c.target.LMTP = true
	case "required":
		c.target.TLS = TLSRequired
	case "opportunistic":
		c.target.TLS = TLSOpportunistic
	default:
		t.Fatalf("no target %q", arg)
	}
}

func (c *clientCase) readParams(t *testing.T, arg string) {
	for _, word := range strings.Fields(arg) {
		key, value, _ := strings.Cut(word, "=")
		switch key {
		case "utf8":
			c.env.Params.UTF8 = true
		case "body":
			c.env.Params.Body = value
		case "ret":
			c.env.Params.Ret = value
		case "envid":
			c.env.Params.EnvID = value
		case "notify":
			c.env.To[0].Notify = value
		case "orcpt":
			c.env.To[0].ORcpt = value
		default:
			t.Fatalf("no parameter %q", word)
		}
	}
}

// run plays the server on a loopback port and lets the client loose on it.
func (c *clientCase) run(t *testing.T) outcome {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	played := make(chan error, 1)
	go func() { played <- c.serve(l) }()
	o := c.talk(t, l.Addr().String())
	if err := <-played; err != nil {
		t.Errorf("server: %v", err)
	}
	return o
}

func (c *clientCase) talk(t *testing.T, addr string) (o outcome) {
	c.target.Address = addr
	client, err := Dial(t.Context(), c.target)
	if err != nil {
		o.dial = err
		return o
	}
	defer client.Close()
	body := []byte("Subject: x\r\n\r\n" + c.line + "\r\n")
	for range c.times {
		if c.probe {
			o.res, o.err = client.Probe(t.Context(), c.env.From, c.env.To)
		} else {
			o.res, o.err = client.Send(t.Context(), c.env, Content{Bytes: body, Size: int64(len(body))}, nil)
		}
	}
	o.alive = client.Alive()
	return o
}

// serve plays the steps and then waits for the client to close.
func (c *clientCase) serve(l net.Listener) error {
	nc, err := l.Accept()
	if err != nil {
		return err
	}
	defer nc.Close()
	if err := nc.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return err
	}
	r := bufio.NewReader(nc)
	for _, step := range c.steps {
		word, arg, _ := strings.Cut(step, " ")
		switch word {
		case "S:":
			_, err = io.WriteString(nc, arg+"\r\n")
		case "S=":
			_, err = io.WriteString(nc, unquoted(arg))
		case "C:":
			var line string
			line, err = r.ReadString('\n')
			if err == nil && line != arg+"\r\n" {
				err = fmt.Errorf("client said %q, want %q", line, arg)
			}
		case "CLOSE":
			return nil
		}
		if err != nil {
			return err
		}
	}
	rest, _ := io.ReadAll(r)
	if len(rest) > 0 {
		return fmt.Errorf("client went on with %q", rest)
	}
	return nil
}

func (c *clientCase) check(t *testing.T, o outcome) {
	t.Helper()
	if want, ok := c.want["dial"]; ok || o.dial != nil {
		got := "none"
		var e *DialError
		if errors.As(o.dial, &e) {
			got = e.Step + " " + strconv.Itoa(e.Reply.Code)
		}
		if got != want {
			t.Errorf("dial: %v (%s), want %q", o.dial, got, want)
		}
		return
	}
	got := map[string]string{
		"mail":  codes([]mail.Reply{o.res.Mail}),
		"rcpt":  codes(o.res.Rcpt),
		"data":  codes(o.res.Data),
		"sent":  strconv.FormatBool(o.res.Sent),
		"alive": strconv.FormatBool(o.alive),
	}
	for key, want := range c.want {
		if key == "error" {
			if want == "none" && o.err != nil || want != "none" && (o.err == nil || !strings.Contains(o.err.Error(), want)) {
				t.Errorf("error: %v, want %q", o.err, want)
			}
		} else if got[key] != want {
			t.Errorf("%s: %q, want %q (error %v)", key, got[key], want, o.err)
		}
	}
}

func codes(replies []mail.Reply) string {
	words := make([]string, len(replies))
	for i, r := range replies {
		words[i] = strconv.Itoa(r.Code)
	}
	return strings.Join(words, " ")
}
