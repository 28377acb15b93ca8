package smtp

import (
	"bufio"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
)

// pipeListener gives a server connections that are pipes, so that a test can
// run on the clock of a synctest bubble.
type pipeListener struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newPipeListener() *pipeListener {
	return &pipeListener{conns: make(chan net.Conn), done: make(chan struct{})}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error {
	l.once.Do(func() { close(l.done) })
	return nil
}

func (l *pipeListener) Addr() net.Addr { return &net.TCPAddr{} }

func (l *pipeListener) dial() net.Conn {
	ours, theirs := net.Pipe()
	l.conns <- fromAfar{theirs}
	return ours
}

// fromAfar is a connection from 192.0.2.1.
type fromAfar struct{ net.Conn }

func (fromAfar) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 1000} }

// talk is one end of a dialogue in a test.
type talk struct {
	t  testing.TB
	nc net.Conn
	r  *bufio.Reader
}

func newTalk(t testing.TB, nc net.Conn) *talk {
	return &talk{t: t, nc: nc, r: bufio.NewReader(nc)}
}

// say writes in the background: a pipe has no buffer, and the other side may
// be writing itself.
func (k *talk) say(s string) {
	k.t.Helper()
	if _, err := io.WriteString(k.nc, s); err != nil {
		k.t.Fatalf("saying %q: %v", s, err)
	}
}

// hear reads one line and checks how it begins.
func (k *talk) hear(prefix string) string {
	k.t.Helper()
	line, err := k.r.ReadString('\n')
	if err != nil || !strings.HasPrefix(line, prefix) {
		k.t.Fatalf("heard %q (%v), want %q", line, err, prefix)
	}
	return line
}

// reply reads one whole reply of that code.
func (k *talk) reply(code string) {
	k.t.Helper()
	for line := ""; len(line) < 4 || line[3] == '-'; {
		line = k.hear(code)
	}
}

// ended checks that nothing more comes.
func (k *talk) ended() {
	k.t.Helper()
	rest, err := io.ReadAll(k.r)
	if len(rest) > 0 || err != nil {
		k.t.Fatalf("heard %q (%v), want the end", rest, err)
	}
}

// transaction goes as far as 354.
func (k *talk) transaction() {
	k.t.Helper()
	for _, step := range [][2]string{{"EHLO c.test", "250"}, {"MAIL FROM:<a@x.test>", "250"}, {"RCPT TO:<b@y.test>", "250"}, {"DATA", "354"}} {
		k.say(step[0] + "\r\n")
		k.reply(step[1])
	}
}
