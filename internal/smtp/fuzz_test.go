package smtp

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// canned is a connection with bytes to read, in packets, and a place for what
// is written. Its end comes when all was read.
type canned struct {
	in     [][]byte
	out    bytes.Buffer
	closed bool
	mu     sync.Mutex
}

func (c *canned) Read(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.in) > 0 && len(c.in[0]) == 0 {
		c.in = c.in[1:]
	}
	if len(c.in) == 0 || c.closed {
		return 0, io.EOF
	}
	n := copy(p, c.in[0])
	c.in[0] = c.in[0][n:]
	return n, nil
}

func (c *canned) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return 0, net.ErrClosed
	}
	return c.out.Write(p)
}

func (c *canned) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	return nil
}

func (c *canned) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (c *canned) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (c *canned) SetDeadline(time.Time) error      { return nil }
func (c *canned) SetReadDeadline(time.Time) error  { return nil }
func (c *canned) SetWriteDeadline(time.Time) error { return nil }

// serveCanned runs a whole session over the packets and returns what was said.
func serveCanned(b Backend, rules Listener, packets ...[]byte) []byte {
	s := &Server{Backend: b}
	s.start()
	nc := &canned{}
	for _, p := range packets {
		nc.in = append(nc.in, bytes.Clone(p))
	}
	d := newDoor(s, newPipeListener(), rules)
	d.place(nc).serve()
	_ = s.Shutdown(context.Background())
	return nc.out.Bytes()
}

var fuzzRules = Listener{
	MaxSize: 1000, MaxRcpt: 3, MaxLine: 100, MaxErrors: 20, InsecureAuth: true,
	CommandTimeout: time.Minute, DataTimeout: time.Minute, TransactionTimeout: time.Hour,
}

// FuzzCommand serves arbitrary bytes: it ends, and says nothing but replies.
// How the bytes are cut into packets makes no difference to what is kept.
func FuzzCommand(f *testing.F) {
	f.Add([]byte("EHLO c.test\r\nMAIL FROM:<a@x.test> SIZE=5\r\nRCPT TO:<b@y.test>\r\nDATA\r\n..x\r\n.\r\nQUIT\r\n"), uint16(20))
	f.Add([]byte("EHLO c.test\r\nAUTH LOGIN\r\nYQ==\r\nYQ==\r\nMAIL FROM:<>\r\nRCPT TO:<b@y.test>\r\nBDAT 3\r\na\r\nBDAT 0 LAST\r\n"), uint16(70))
	f.Add([]byte("NOOP\nRSET\r\nHELO x\rEHLO y\r\nGET / HTTP/1.1\r\n"), uint16(4))
	f.Fuzz(func(t *testing.T, in []byte, cut uint16) {
		var kept [2][]message
		for i, packets := range [][][]byte{{in}, {in[:int(cut)%(len(in)+1)], in[int(cut)%(len(in)+1):]}} {
			b := &recorder{password: "a"}
			out := serveCanned(b, fuzzRules, packets...)
			checkReplies(t, out)
			kept[i] = b.kept()
			checkEnd(t, b)
		}
		// A bare LF in a command is answered when it is seen, and so does
		// depend on the packets.
		if !bytes.Contains(bytes.ReplaceAll(in, crlf, nil), crlf[1:]) {
			sameMessages(t, kept[0], kept[1])
		}
	})
}

// checkReplies reads everything the server said.
func checkReplies(t *testing.T, out []byte) {
	t.Helper()
	for len(out) > 0 {
		r, n, err := parseReply(out)
		if err != nil || n == 0 {
			t.Fatalf("no reply: %q, %v", out, err)
		}
		if r.Code == 421 && n < len(out) {
			t.Fatalf("went on after 421: %q", out[n:])
		}
		out = out[n:]
	}
}

// checkEnd: a session is closed once, at the end.
func checkEnd(t *testing.T, b *recorder) {
	t.Helper()
	events := b.seen()
	for i, e := range events {
		if (e == "close") != (i == len(events)-1) {
			t.Fatalf("events %q", events)
		}
	}
}

func sameMessages(t *testing.T, a, b []message) {
	t.Helper()
	if len(a) != len(b) {
		t.Fatalf("kept %d messages or %d", len(a), len(b))
	}
	for i := range a {
		if !bytes.Equal(a[i].body, b[i].body) || fmt.Sprint(a[i].env) != fmt.Sprint(b[i].env) {
			t.Fatalf("kept %+v %q or %+v %q", a[i].env, a[i].body, b[i].env, b[i].body)
		}
	}
}

// FuzzBDAT sends arbitrary chunks of declared size, with the transaction in
// any state: whatever is replied, the command behind them is understood.
func FuzzBDAT(f *testing.F) {
	f.Add([]byte("hello\r\n"), []byte("\r\n.\r\nQUIT\r\n"), uint8(0))
	f.Add([]byte("a\r"), []byte("\nb"), uint8(0))
	f.Add([]byte("a\nb"), []byte("RSET\r\n"), uint8(1))
	f.Add([]byte(""), []byte(strings.Repeat("x", 1001)), uint8(2))
	f.Fuzz(func(t *testing.T, one, two []byte, before uint8) {
		start := []string{"MAIL FROM:<a@x.test>\r\nRCPT TO:<b@y.test>\r\n", "MAIL FROM:<refuse@x.test>\r\nRCPT TO:<b@y.test>\r\n", "MAIL FROM:<a@x.test>\r\nRCPT TO:<refuse@y.test>\r\n", ""}[before%4]
		in := "EHLO c.test\r\n" + start + "BDAT " + strconv.Itoa(len(one)) + "\r\n" + string(one) + "BDAT " + strconv.Itoa(len(two)) + " LAST\r\n" + string(two) + "HELP\r\n"
		whole := one[:len(one):len(one)]
		whole = append(whole, two...)
		cut := len(in) - len(two)/2 - 8
		for _, packets := range [][][]byte{{[]byte(in)}, {[]byte(in[:cut]), []byte(in[cut:])}} {
			b := &recorder{}
			out := serveCanned(b, fuzzRules, packets...)
			checkReplies(t, out)
			if !bytes.HasSuffix(out, []byte("\r\n214 2.0.0 see RFC 5321\r\n")) {
				t.Fatalf("lost its way: %q", out)
			}
			bodies := b.kept()
			want := naiveScan(whole, false, fuzzRules.MaxLine)
			good := before%4 == 0 && !want.bad && !want.long && !bytes.HasSuffix(whole, crlf[:1]) && len(whole) <= int(fuzzRules.MaxSize)
			if good != (len(bodies) == 1) || good && !bytes.Equal(bodies[0].body, whole) {
				t.Fatalf("kept %d, said %q", len(bodies), out)
			}
		}
	})
}
