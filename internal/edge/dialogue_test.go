package edge

import (
	"bufio"
	"crypto/tls"
	"net"
	"strings"
	"testing"
	"time"
)

// caller is a client that says what it is told, right or wrong.
type caller struct {
	t    testing.TB
	conn net.Conn
	r    *bufio.Reader
	hand tls.Certificate // held out at STARTTLS
}

func call(t testing.TB, addr, from string) *caller {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}, Timeout: 5 * time.Second}
	conn, err := d.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	conn.SetDeadline(time.Now().Add(30 * time.Second))
	t.Cleanup(func() { conn.Close() })
	return &caller{t: t, conn: conn, r: bufio.NewReader(conn)}
}

func (c *caller) say(line string) {
	c.t.Helper()
	if _, err := c.conn.Write([]byte(line + "\r\n")); err != nil {
		c.t.Fatalf("%s: %v", line, err)
	}
}

// hear reads a reply and returns its last line.
func (c *caller) hear() string {
	c.t.Helper()
	for {
		line, err := c.r.ReadString('\n')
		if err != nil {
			c.t.Fatalf("reply: %v", err)
		}
		line = strings.TrimRight(line, "\r\n")
		if len(line) < 4 || line[3] != '-' {
			return line
		}
	}
}

func (c *caller) want(prefix string) string {
	c.t.Helper()
	got := c.hear()
	if !strings.HasPrefix(got, prefix) {
		c.t.Fatalf("heard %q, want %q", got, prefix)
	}
	return got
}

func (c *caller) ask(line, prefix string) string {
	c.t.Helper()
	c.say(line)
	return c.want(prefix)
}

// secure is the handshake behind STARTTLS's 220.
func (c *caller) secure() {
	c.t.Helper()
	config := &tls.Config{InsecureSkipVerify: true, GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		return &c.hand, nil
	}}
	t := tls.Client(c.conn, config)
	if err := t.Handshake(); err != nil {
		c.t.Fatalf("handshake: %v", err)
	}
	c.conn, c.r = t, bufio.NewReader(t)
}
