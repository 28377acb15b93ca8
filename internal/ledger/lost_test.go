package ledger

import (
	"bytes"
	"net"
	"net/url"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/store"
	"github.com/sallyport-mail/sallyport/internal/testpeer"
)

// wire lies between a client and PostgreSQL, and loses the answer to a commit
// when it is told to.
type wire struct {
	net.Listener
	to    string
	lose  atomic.Bool // the answer to the next commit
	away  atomic.Bool // nobody is let through
	lost  atomic.Int32
	stays atomic.Bool // away after a loss
}

func newWire(t *testing.T, to string) *wire {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{Listener: l, to: to}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go w.carry(c)
		}
	}()
	return w
}

func (w *wire) carry(c net.Conn) {
	defer c.Close()
	if w.away.Load() {
		return
	}
	s, err := net.Dial("tcp", w.to)
	if err != nil {
		return
	}
	defer s.Close()
	var committing atomic.Bool
	go func() {
		defer s.Close()
		b := make([]byte, 64<<10)
		for {
			n, err := c.Read(b)
			if w.lose.Load() && bytes.Contains(bytes.ToLower(b[:n]), []byte("commit\x00")) && w.lose.Swap(false) {
				committing.Store(true)
			}
			if err != nil || w.away.Load() {
				return
			}
			s.Write(b[:n])
		}
	}()
	b := make([]byte, 64<<10)
	for {
		n, err := s.Read(b)
		if err != nil || committing.Load() && bytes.Contains(b[:n], []byte("COMMIT\x00")) {
			if err == nil {
				w.away.Store(w.stays.Load())
				w.lost.Add(1)
			}
			return
		}
		if _, err := c.Write(b[:n]); err != nil {
			return
		}
	}
}

// TestLostCommit: the answer to a commit is lost. What took is not written
// twice, neither by the ledger nor by a caller that brings it again.
func TestLostCommit(t *testing.T) {
	server := testpeer.SharedPostgres(t)
	u, err := url.Parse(server.Database(t))
	if err != nil {
		t.Fatal(err)
	}
	w := newWire(t, u.Host)
	u.Host = w.Addr().String()
	d := newDesk(t, store.Config{Dir: t.TempDir(), URL: u.String()})
	d.fill(100)

	w.lose.Store(true)
	first, err := d.l.Append(t.Context(), entry(100), entry(101))
	if err != nil || first != 100 || d.l.Size() != 102 || w.lost.Load() != 1 {
		t.Fatalf("a database that is there again at once: %d %v, %d entries, %d lost", first, err, d.l.Size(), w.lost.Load())
	}

	w.stays.Store(true)
	w.lose.Store(true)
	same := []Entry{entry(102), entry(103)}
	for i := range same {
		same[i].Time = start().Add(time.Duration(i) * time.Second)
	}
	if _, err := d.l.AppendEach(t.Context(), same); !fault.Is(err, fault.Later) || w.lost.Load() != 2 {
		t.Fatalf("a database that stays away: %v, %d lost", err, w.lost.Load())
	}
	w.away.Store(false)
	got, err := d.l.AppendEach(t.Context(), append(same, entry(104)))
	if err != nil || !slices.Equal(got, []int64{102, 103, 104}) {
		t.Errorf("brought again: %v %v", got, err)
	}
	if r := d.verify(d.export()); !r.OK || r.Entries != 105 {
		t.Errorf("%+v", r)
	}
}
