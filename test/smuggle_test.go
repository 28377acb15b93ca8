package test

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sallyport-mail/sallyport/internal/testpeer"
)

// TestSmuggling sends each sequence that some server has taken for the end of
// the data through the gateway, with a second message behind it. Whatever the
// gateway makes of it: the sink gets one message or none, and on the wire to
// it there is nothing that it could take for an end.
func TestSmuggling(t *testing.T) {
	sequences := endings(t)
	p := newProcess(t, "")
	sink := startWireSink(t)
	p.start()
	p.tenant("acme", "us", "acme.test", sink.addr)
	accepted := 0
	for i, s := range sequences {
		code := smuggle(t, p.smtp, i, s)
		if code == 250 {
			accepted++
		}
		t.Logf("%-24q %d", s, code)
	}
	honest := &letter{from: "a@example.org", to: "b@acme.test", number: "honest", body: []byte("Hello.\r\n")}
	honest.submit(t, p.smtp)
	waitFor(t, "all that was accepted has arrived", func() bool { return len(sink.all()) >= accepted+1 })
	for _, m := range sink.all() {
		if !strings.HasPrefix(m.from, "<outer-") && m.from != "<a@example.org>" {
			t.Errorf("a message from %s was smuggled in:\n%q", m.from, m.wire)
		}
		for _, s := range sequences {
			if bytes.Contains(m.wire, s) {
				t.Errorf("the sink was sent %q within a message:\n%q", s, m.wire)
			}
		}
	}
	if n := len(sink.all()); n != accepted+1 {
		t.Errorf("%d messages arrived, %d were accepted", n, accepted+1)
	}
}

// endings are the sequences of the data set, each once.
func endings(t *testing.T) [][]byte {
	t.Helper()
	raw, err := os.ReadFile(testpeer.DataSet(t, "smtp", "end-of-data-sequences.json"))
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Sets []struct {
			Sequences []struct{ Hex string }
		}
	}
	if err := json.Unmarshal(raw, &file); err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	var all [][]byte
	for _, set := range file.Sets {
		for _, s := range set.Sequences {
			if b, err := hex.DecodeString(s.Hex); err != nil {
				t.Fatal(err)
			} else if !seen[s.Hex] {
				seen[s.Hex] = true
				all = append(all, b)
			}
		}
	}
	if len(all) == 0 {
		t.Fatal("the data set has no sequences")
	}
	return all
}

// smuggle sends a message with a second one behind a sequence, and returns the
// reply to the content, 0 when there was none.
func smuggle(t *testing.T, addr string, i int, sequence []byte) (code int) {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	in := bufio.NewReader(c)
	answer(t, in)
	for _, line := range []string{"EHLO smuggler.example.org", fmt.Sprintf("MAIL FROM:<outer-%d@example.org>", i), "RCPT TO:<b@acme.test>", "DATA"} {
		fmt.Fprintf(c, "%s\r\n", line)
		if code := answer(t, in); code >= 400 {
			t.Fatalf("%s: %d", line, code)
		}
	}
	fmt.Fprintf(c, "Subject: outer\r\n\r\nhello%sMAIL FROM:<inner-%d@example.org>\r\nRCPT TO:<b@acme.test>\r\nDATA\r\nSubject: inner\r\n\r\nevil\r\n.\r\nQUIT\r\n", sequence, i)
	for code != 221 {
		line, err := in.ReadString('\n')
		if err != nil {
			break
		}
		fmt.Sscanf(line, "%d", &code)
		if code == 250 && !strings.Contains(line, "2.0.0") {
			t.Errorf("%q: a command within the data was obeyed: %s", sequence, line)
		}
		if code == 250 || code >= 400 {
			return code
		}
	}
	return 0
}

// answer reads a reply.
func answer(t *testing.T, in *bufio.Reader) (code int) {
	t.Helper()
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		fmt.Sscanf(line, "%d", &code)
		if len(line) < 4 || line[3] != '-' {
			return code
		}
	}
}

// wireSink is a server of few words that keeps what came between DATA and the
// final dot as it was on the wire.
type wireSink struct {
	addr string
	mu   sync.Mutex
	got  []wireMessage
}

type wireMessage struct {
	from string
	wire []byte
}

func startWireSink(t *testing.T) *wireSink {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &wireSink{addr: ln.Addr().String()}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go s.serve(c)
		}
	}()
	return s
}

func (s *wireSink) serve(c net.Conn) {
	defer c.Close()
	c.SetDeadline(time.Now().Add(time.Minute))
	in := bufio.NewReader(c)
	io.WriteString(c, "220 wire.test\r\n")
	from := ""
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return
		}
		verb, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch strings.ToUpper(verb) {
		case "EHLO":
			io.WriteString(c, "250-wire.test\r\n250 8BITMIME\r\n")
		case "MAIL":
			_, from, _ = strings.Cut(rest, ":")
			from, _, _ = strings.Cut(from, " ")
			io.WriteString(c, "250 ok\r\n")
		case "DATA":
			io.WriteString(c, "354 go on\r\n")
			if !s.content(in, from) {
				return
			}
			io.WriteString(c, "250 ok\r\n")
		case "QUIT":
			return
		default:
			io.WriteString(c, "250 ok\r\n")
		}
	}
}

// content reads to the final dot, the only one.
func (s *wireSink) content(in *bufio.Reader, from string) bool {
	wire := []byte("\r\n")
	for !bytes.HasSuffix(wire, []byte("\r\n.\r\n")) {
		b, err := in.ReadByte()
		if err != nil {
			return false
		}
		wire = append(wire, b)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.got = append(s.got, wireMessage{from, bytes.TrimSuffix(wire, []byte("\r\n.\r\n"))})
	return true
}

func (s *wireSink) all() []wireMessage {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]wireMessage(nil), s.got...)
}
