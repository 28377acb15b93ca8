package smtp

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/sallyport-mail/sallyport/internal/mail"
)

// discard is a backend that reads and forgets.
type discard struct{}

type discarding struct{}

func (discard) Connect(context.Context, *Conn) (Session, *mail.Reply) { return discarding{}, nil }

func (discarding) Hello(context.Context) *mail.Reply                               { return nil }
func (discarding) Mail(context.Context, mail.Address, mail.FromParams) *mail.Reply { return nil }
func (discarding) Rcpt(context.Context, mail.Recipient) *mail.Reply                { return nil }
func (discarding) Reset()                                                          {}
func (discarding) Refused(string, mail.Reply)                                      {}
func (discarding) Close()                                                          {}

func (discarding) Data(_ context.Context, r io.Reader) mail.Reply {
	if _, err := r.(io.WriterTo).WriteTo(io.Discard); err != nil {
		return mail.Reply{Code: 451}
	}
	return mail.Reply{Code: 250, Enhanced: "2.0.0", Text: "forgotten"}
}

// tenKB is a message of usual shape.
func tenKB() []byte {
	b := []byte("From: a@example.org\r\nTo: b@acme.test\r\nSubject: ten kilobytes\r\n\r\n")
	line := strings.Repeat("0123456789", 7) + "\r\n"
	for len(b) < 10<<10 {
		b = append(b, line...)
	}
	return b
}

var benchRules = Listener{
	MaxSize: 50 << 20, MaxRcpt: 100, MaxLine: 2000, MaxErrors: 10, MaxConns: 1000,
	CommandTimeout: 300e9, DataTimeout: 180e9, TransactionTimeout: 600e9, MinDataRate: 100,
}

// BenchmarkServerNewConn10K is the server's share of a message on a connection
// of its own, with a client as frugal as possible.
func BenchmarkServerNewConn10K(b *testing.B) {
	addr, _ := startServer(b, discard{}, benchRules)
	content := append(tenKB(), ".\r\n"...)
	b.SetParallelism(10)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if err := sendBare(addr, content); err != nil {
				b.Error(err)
				return
			}
		}
	})
}

// BenchmarkServerReused10K is the same on a connection for all.
func BenchmarkServerReused10K(b *testing.B) {
	addr, _ := startServer(b, discard{}, benchRules)
	content := append(tenKB(), ".\r\n"...)
	b.SetParallelism(10)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		t, err := dialBare(addr)
		if err != nil {
			b.Error(err)
			return
		}
		defer t.nc.Close()
		for pb.Next() {
			if err := t.message(content); err != nil {
				b.Error(err)
				return
			}
		}
	})
}

// bare is a client without a check too many.
type bare struct {
	nc net.Conn
	r  *bufio.Reader
}

func dialBare(addr string) (*bare, error) {
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	t := &bare{nc, bufio.NewReaderSize(nc, 512)}
	return t, t.exchange("", 1, "EHLO client.test\r\n", 9)
}

func (t *bare) exchange(first string, n int, then string, m int) error {
	if first != "" {
		if _, err := io.WriteString(t.nc, first); err != nil {
			return err
		}
	}
	for range n {
		if _, err := t.r.ReadSlice('\n'); err != nil {
			return err
		}
	}
	if then == "" {
		return nil
	}
	return t.exchange(then, m-1, "", 0)
}

func (t *bare) message(content []byte) error {
	if err := t.exchange("MAIL FROM:<a@example.org>\r\nRCPT TO:<b@acme.test>\r\nDATA\r\n", 3, "", 0); err != nil {
		return err
	}
	if _, err := t.nc.Write(content); err != nil {
		return err
	}
	return t.exchange("", 1, "", 0)
}

func sendBare(addr string, content []byte) error {
	t, err := dialBare(addr)
	if err != nil {
		return err
	}
	defer t.nc.Close()
	if err := t.message(content); err != nil {
		return err
	}
	return t.exchange("QUIT\r\n", 1, "", 0)
}

// BenchmarkClient10K is our client's share, against a peer that answers by
// rote.
func BenchmarkClient10K(b *testing.B) {
	addr := rote(b)
	body := tenKB()
	prefix := []byte("Received: from a by b; Thu, 1 Jan 1970 00:00:00 +0000\r\n")
	env := envelope("a@example.org", "b@acme.test")
	ready := func(context.Context) error { return nil }
	b.SetParallelism(10)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			c, err := Dial(b.Context(), Target{Address: addr, Hello: "client.test"})
			if err != nil {
				b.Error(err)
				return
			}
			res, err := c.Send(b.Context(), env, Content{Prefix: prefix, Bytes: body, Size: int64(len(prefix) + len(body))}, ready)
			if err != nil || len(res.Data) != 1 || res.Data[0].Code != 250 {
				b.Error(res, err)
			}
			_ = c.Quit()
		}
	})
}

// BenchmarkClientReused10K is the same on a connection for all.
func BenchmarkClientReused10K(b *testing.B) {
	addr := rote(b)
	body := tenKB()
	env := envelope("a@example.org", "b@acme.test")
	b.SetParallelism(10)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		c, err := Dial(b.Context(), Target{Address: addr, Hello: "client.test"})
		if err != nil {
			b.Error(err)
			return
		}
		defer c.Close()
		for pb.Next() {
			res, err := c.Send(b.Context(), env, Content{Bytes: body, Size: int64(len(body))}, nil)
			if err != nil || len(res.Data) != 1 || res.Data[0].Code != 250 {
				b.Error(res, err)
				return
			}
		}
	})
}

// rote is a server that reads nothing with understanding: a reply for each
// packet that ends as it should.
func rote(b *testing.B) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			go byRote(nc)
		}
	}()
	return l.Addr().String()
}

func byRote(nc net.Conn) {
	defer nc.Close()
	buf := make([]byte, 32<<10)
	reply := "220 rote\r\n"
	for {
		if _, err := io.WriteString(nc, reply); err != nil {
			return
		}
		n := 0
		for {
			m, err := nc.Read(buf[n:])
			if err != nil {
				return
			}
			n += m
			if reply = roteReply(buf[:n]); reply != "" {
				break
			}
		}
	}
}

func roteReply(p []byte) string {
	switch {
	case bytes.HasPrefix(p, []byte("EHLO")):
		return "250-rote\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 SIZE 100000000\r\n"
	case bytes.HasPrefix(p, []byte("MAIL")):
		return "250 2.1.0 ok\r\n250 2.1.5 ok\r\n354 go\r\n"
	case bytes.HasPrefix(p, []byte("QUIT")):
		return "221 2.0.0 bye\r\n"
	case bytes.HasSuffix(p, []byte("\r\n.\r\n")):
		return "250 2.0.0 kept\r\n"
	}
	return ""
}

// BenchmarkContent is the scan of content alone.
func BenchmarkContent(b *testing.B) {
	content := append(tenKB(), ".\r\n"...)
	p := make([]byte, len(content))
	b.SetBytes(int64(len(content)))
	for b.Loop() {
		copy(p, content)
		s := lineScan{dots: true, maxLine: 2000}
		if got := s.scan(p); !got.end || got.err != nil {
			b.Fatal(got.err)
		}
	}
}

// BenchmarkStuffing is the scan of a body on its way out.
func BenchmarkStuffing(b *testing.B) {
	content := tenKB()
	var parts [][]byte
	b.SetBytes(int64(len(content)))
	for b.Loop() {
		var s stuffing
		var err error
		if parts, err = s.parts(parts[:0], content); err != nil {
			b.Fatal(err)
		}
	}
}

// TestSilentConnectionsAreCheap counts the memory of connections that never
// say anything.
func TestSilentConnectionsAreCheap(t *testing.T) {
	const many = 400
	var open atomic.Int64
	b := &recorder{connect: func(*Conn) *mail.Reply { open.Add(1); return nil }}
	addr, _ := startServer(t, b, Listener{})
	clients := make([]net.Conn, many)
	before := memoryInUse()
	for i := range clients {
		clients[i] = greeted(t, addr)
	}
	if each := (memoryInUse() - before) / many; each > 16<<10 {
		t.Errorf("%d bytes for a silent connection and its client", each)
	}
	for _, c := range clients {
		_ = c.Close()
	}
}
