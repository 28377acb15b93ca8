package wire_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/keeper/act"
	"github.com/sallyport-mail/sallyport/internal/keeper/wire"
)

// narrow starts a server of few connections and short acts.
func (d *desk) narrow(t *testing.T, acts wire.Acts) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "k")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	s, err := wire.New(wire.Config{Region: "us", Acts: acts, Allow: []wire.Grant{me(every()...)}, Refused: d.refuse, ActTime: 100 * time.Millisecond, Connections: 40})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.ServeUnix(l) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if err := errors.Join(s.Shutdown(ctx), <-done); err != nil {
			t.Error(err)
		}
	})
	return path
}

func dial(t *testing.T, path, send string) net.Conn {
	t.Helper()
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	io.WriteString(c, send) // a connection that was refused is closed already
	return c
}

// ended waits until the server has closed a connection, and says how long that
// took.
func ended(t *testing.T, c net.Conn) time.Duration {
	t.Helper()
	begin := time.Now()
	if err := c.SetReadDeadline(begin.Add(15 * time.Second)); err != nil {
		t.Fatal(err)
	}
	var late net.Error
	if _, err := io.Copy(io.Discard, c); errors.As(err, &late) && late.Timeout() {
		t.Error("the server holds the connection")
	}
	return time.Since(begin)
}

// TestSlow: whoever is slow with a head or a body, or has more connections than
// there are, is cut off, and the next is served.
func TestSlow(t *testing.T) {
	d := newDesk(t)
	path := d.narrow(t, d)
	var all []net.Conn
	for i := range 40 {
		send := "POST /v1/acts/status HTTP/1.1\r\nHost: k\r\n"
		if i%2 == 0 {
			send += "Content-Length: 9000\r\n\r\n{"
		}
		all = append(all, dial(t, path, send))
	}
	if took := ended(t, dial(t, path, "")); took > 4*time.Second {
		t.Errorf("one too many is held for %s", took)
	}
	for _, c := range all {
		ended(t, c)
	}
	if _, err := remote(t, path).Status(t.Context()); err != nil {
		t.Error(err)
	}
	if told := d.refusals(); len(told) != 0 {
		t.Errorf("lines that break off are told as refusals: %+v", told)
	}
}

// holding is a desk of which exports last until it lets go.
type holding struct {
	*desk
	begun chan struct{}
	end   chan struct{}
}

func (h holding) ExportLedger(ctx context.Context, _ wire.Peer, _ act.Plain, w io.Writer) error {
	h.begun <- struct{}{}
	<-h.end
	return nil
}

// TestManyLong: answers without end and large bodies have places of their own;
// who finds none comes later, and small acts are done meanwhile.
func TestManyLong(t *testing.T) {
	h := holding{newDesk(t), make(chan struct{}), make(chan struct{})}
	path := h.narrow(t, h)
	r := remote(t, path)
	const places = 16
	out := make(chan error, places)
	for range places {
		go func() { out <- r.ExportLedger(context.Background(), io.Discard) }()
		<-h.begun
	}
	if err := r.ExportLedger(t.Context(), io.Discard); !fault.Is(err, fault.Later) {
		t.Errorf("an export too many: %v", err)
	}
	for range places {
		dial(t, path, fmt.Sprintf("POST /v1/acts/enter-events HTTP/1.1\r\nHost: k\r\nContent-Length: %d\r\n\r\n", 1<<20)+strings.Repeat(" ", 1000))
	}
	if _, err := r.Status(t.Context()); err != nil {
		t.Error(err)
	}
	late := func() bool { return fault.Is(r.EnterEvents(t.Context(), []act.Event{{Key: "k"}}), fault.Later) }
	for end := time.Now().Add(5 * time.Second); !late(); {
		if time.Now().After(end) {
			t.Error("a large body too many was read")
			break
		}
	}
	close(h.end)
	for range places {
		if err := <-out; err != nil {
			t.Error(err)
		}
	}
}

// A request that another one hides in is one request, or none.
func TestSmuggled(t *testing.T) {
	d := newDesk(t)
	path := d.serve(t, me(act.Status))
	const inner = "POST /v1/acts/open-credential HTTP/1.1\r\nHost: k\r\nContent-Length: 0\r\n\r\n"
	for _, head := range []string{
		"Content-Length: 0\r\nTransfer-Encoding: chunked\r\n",
		"Content-Length: 0\r\nContent-Length: 5\r\n",
		"Transfer-Encoding: identity, chunked\r\n",
	} {
		c := dial(t, path, "POST /v1/acts/status HTTP/1.1\r\nHost: k\r\nConnection: close\r\n"+head+"\r\n0\r\n\r\n"+inner)
		ended(t, c)
	}
	if len(d.asked) != 0 {
		t.Errorf("done: %v", d.asked)
	}
	for _, r := range d.refusals() {
		if r.Act == act.OpenCredential {
			t.Errorf("the inner request was read: %+v", r)
		}
	}
}
