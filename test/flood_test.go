package test

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// TestFlood connects from many addresses, much of it silent or slow, to a
// gateway with its ordinary limits. Meanwhile an honest sender is greeted, and
// memory stays bounded.
func TestFlood(t *testing.T) {
	attempts, addresses := 5_000, 1_000
	if chaos() {
		attempts, addresses = 100_000, 10_000
	}
	p := newProcess(t, "")
	withoutLimits(t, p)
	sink := startForeignSink(t)
	p.start()
	p.tenant("acme", "us", "acme.test", sink.addr)
	f := &flood{addr: p.smtp, addresses: addresses, attempts: int64(attempts), hold: openFiles(t) / 2}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan struct{})
	go func() { defer close(done); f.run(ctx, 200) }()
	worst, refused, most, tries := f.watch(t, p, done)
	t.Logf("%d attempts from %d addresses (%d connected, %d turned away); of %d honest senders the slowest was greeted after %v, %d were turned away; at most %d MiB",
		attempts, addresses, f.connected.Load(), f.away.Load(), tries, worst, refused, most)
	if most > 400 {
		t.Errorf("the gateway needed %d MiB", most)
	}
	if refused > tries/100 {
		t.Errorf("%d of %d honest senders were turned away", refused, tries)
	}
	if chaos() && worst > time.Second {
		t.Errorf("an honest sender waited for %v", worst)
	}
	f.release()
	l := &load{addr: p.smtp, size: 10_000}
	runUntil(t, "mail is accepted after the flood", func() bool { return l.replies()[250] > 120 }, l)
	verifyArrived(t, p, sink, l.numbers(), 0)
}

// withoutLimits takes the lifted limits away again.
func withoutLimits(t *testing.T, p *process) {
	t.Helper()
	name := p.dir + "/sallyport.toml"
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(strings.Replace(string(text), lifted, "", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
}

// openFiles is how many files this process may have open.
func openFiles(t *testing.T) int64 {
	t.Helper()
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	return int64(min(limit.Cur, 1<<20))
}

// flood is many clients that mean no good.
type flood struct {
	addr            string
	addresses       int
	attempts, hold  int64 // how many, and how many are held open at most
	begun           atomic.Int64
	connected, away atomic.Int64
	mu              sync.Mutex
	open            []net.Conn
}

func (f *flood) run(ctx context.Context, workers int) {
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for ctx.Err() == nil {
				n := f.begun.Add(1)
				if n > f.attempts {
					return
				}
				f.attempt(ctx, int(n))
			}
		})
	}
	wg.Wait()
}

// attempt connects from one of the addresses, and is then silent, slow, rude
// or soon gone.
func (f *flood) attempt(ctx context.Context, n int) {
	a := n % f.addresses
	d := net.Dialer{Timeout: 5 * time.Second, LocalAddr: &net.TCPAddr{IP: net.IPv4(127, byte(10+a>>16), byte(a>>8), byte(a))}}
	c, err := d.DialContext(ctx, "tcp", f.addr)
	if err != nil {
		f.away.Add(1)
		return
	}
	f.connected.Add(1)
	switch n % 5 {
	case 0: // silent
		f.keep(c)
	case 1: // slow: a byte now and then
		io.WriteString(c, "E")
		f.keep(c)
		time.Sleep(time.Duration(rand.IntN(20)) * time.Millisecond)
		io.WriteString(c, "H")
	case 2: // a command without an end
		io.WriteString(c, strings.Repeat("EHLO ", 500))
		f.keep(c)
	case 3: // polite, and then silent
		io.WriteString(c, "EHLO flood.example.org\r\n")
		f.keep(c)
	default:
		fmt.Fprintf(c, "EHLO flood.example.org\r\nQUIT\r\n")
		c.SetReadDeadline(time.Now().Add(time.Second))
		io.Copy(io.Discard, c)
		c.Close()
	}
}

// keep holds a connection open, at the cost of the oldest when there are too
// many.
func (f *flood) keep(c net.Conn) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.open = append(f.open, c)
	if int64(len(f.open)) > f.hold {
		f.open[0].Close()
		f.open = f.open[1:]
	}
}

func (f *flood) release() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range f.open {
		c.Close()
	}
	f.open = nil
}

// watch is an honest sender from an address of its own, again and again until
// the flood is over.
func (f *flood) watch(t *testing.T, p *process, done <-chan struct{}) (worst time.Duration, refused, most, tries int) {
	t.Helper()
	for {
		took, ok := greetedFrom(t, "127.200.0.1", p.smtp)
		tries++
		if worst = max(worst, took); !ok {
			refused++
		}
		most = max(most, p.resident(t))
		select {
		case <-done:
			return worst, refused, most, tries
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// greetedFrom is how long it takes until an SMTP server has answered EHLO.
func greetedFrom(t *testing.T, local, addr string) (time.Duration, bool) {
	t.Helper()
	begun := time.Now()
	d := net.Dialer{Timeout: 10 * time.Second, LocalAddr: &net.TCPAddr{IP: net.ParseIP(local)}}
	c, err := d.Dial("tcp", addr)
	if err != nil {
		return time.Since(begun), false
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	greeting := make([]byte, 512)
	n, _ := c.Read(greeting)
	took := time.Since(begun)
	io.WriteString(c, "EHLO honest.example.org\r\n")
	m, _ := c.Read(greeting[n:])
	ok := strings.HasPrefix(string(greeting[:n]), "220") && strings.HasPrefix(string(greeting[n:n+m]), "250")
	if !ok {
		t.Logf("turned away: %q", greeting[:n+m])
	}
	return took, ok
}
