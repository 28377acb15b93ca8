package edge

import (
	"net/netip"
	"sync"
	"testing"
	"time"
)

var start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func addr(s string) client { return clientOf(netip.AddrPortFrom(netip.MustParseAddr(s), 40000)) }

func TestRateFlowsOff(t *testing.T) {
	x := newTable[string]()
	now := start.UnixMicro()
	for i := range 60 {
		if !x.spend("a", now, rateMessages, 60) {
			t.Fatalf("message %d of 60 refused", i+1)
		}
	}
	if x.spend("a", now, rateMessages, 60) {
		t.Error("message 61 within the same instant was let through")
	}
	if !x.spend("b", now, rateMessages, 60) || !x.spend("a", now, rateRecipients, 60) {
		t.Error("another key or another rate was refused")
	}
	now += time.Second.Microseconds()
	if !x.spend("a", now, rateMessages, 60) || x.spend("a", now, rateMessages, 60) {
		t.Error("after a second exactly one more may come")
	}
	if !x.spend("a", now+minute, rateMessages, 60) {
		t.Error("after a minute nothing is owed")
	}
	if x.spend("a", now, rateConnects, 0) || !x.spend("a", now, rateConnects, none) {
		t.Error("0 allows nothing, a negative limit everything")
	}
}

func TestConcurrency(t *testing.T) {
	x := newClientLimits(Limits{ConnectionsPerIP: 2, ConnectionsPerNetwork: 3})
	a, b := addr("192.0.2.1"), addr("192.0.2.2")
	for i, step := range []struct {
		c  client
		ok bool
	}{{a, true}, {a, true}, {a, false}, {b, true}, {b, false}, {addr("192.0.3.1"), true}} {
		if why := x.enter(step.c, start); (why == "") != step.ok {
			t.Fatalf("step %d: %q", i, why)
		}
	}
	x.leave(a)
	if why := x.enter(b, start); why != "" {
		t.Errorf("after one left: %s", why)
	}
	if why := x.enter(a, start); why == "" {
		t.Error("the network has room for no more")
	}
}

func TestClientOf(t *testing.T) {
	for _, c := range []struct{ ip, host, network string }{
		{"192.0.2.77", "192.0.2.77", "192.0.2.0/24"},
		{"::ffff:192.0.2.77", "192.0.2.77", "192.0.2.0/24"},
		{"2001:db8:1:2:3::4", "2001:db8:1:2::", "2001:db8:1::/48"},
		{"127.0.0.9", "127.0.0.9", "127.0.0.9/32"},
		{"::1", "::1", "::1/128"},
		{"fe80::1%eth0", "fe80::", "fe80::/48"},
	} {
		got := addr(c.ip)
		if got.host.String() != c.host || got.network.String() != c.network {
			t.Errorf("%s: host %s network %s", c.ip, got.host, got.network)
		}
	}
	if got := clientOf(netip.AddrPort{}); got.network.IsValid() {
		t.Errorf("no address has network %v", got.network)
	}
}

// A rate that nobody set does not bind a client on the same machine.
func TestLoopback(t *testing.T) {
	c, stranger := addr("127.0.0.1"), addr("192.0.2.1")
	x, set := newClientLimits(Limits{}), newClientLimits(Limits{MessagesPerIPMinute: 10})
	for range 10_000 {
		x.message(stranger, start)
		set.message(c, start)
		if !x.message(c, start) || !x.recipient(c, start) || x.enter(c, start) != "" {
			t.Fatal("refused on loopback")
		}
		x.leave(c)
	}
	if x.message(stranger, start) || set.message(c, start) {
		t.Error("no limit")
	}
}

// More addresses than a table holds: its memory stays bounded, connections
// that are open stay counted, and a newcomer still gets in.
func TestTableIsBounded(t *testing.T) {
	x := newTable[int]()
	now := start.UnixMicro()
	for i := range 500 {
		x.enter(-1-i, now, 1, none)
	}
	for i := range 3 * shards * perShard {
		if !x.spend(i, now, rateConnects, 10) {
			t.Fatalf("newcomer %d refused", i)
		}
	}
	if n := x.len(); n > shards*perShard {
		t.Errorf("%d keys", n)
	}
	for i := range 500 {
		if x.enter(-1-i, now, 1, none) {
			t.Fatalf("the open connection of key %d was forgotten", -1-i)
		}
	}
}

func TestFullOfOpenConnections(t *testing.T) {
	x := newTable[int]()
	refused := 0
	for i := range 2 * shards * perShard {
		if !x.enter(i, start.UnixMicro(), 1, none) {
			refused++
		}
	}
	if n := x.len(); n > shards*perShard || refused < shards*perShard {
		t.Errorf("%d keys, %d refused", n, refused)
	}
}

// 100,000 attempts of 10,000 addresses are let in and out by many goroutines
// and leave nothing open.
func TestBotnet(t *testing.T) {
	x := newClientLimits(Limits{})
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range 25_000 {
				n := (i*4 + g) % 10_000
				c := clientOf(netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 1, byte(n >> 8), byte(n)}), 1))
				if x.enter(c, start) == "" {
					x.leave(c)
				}
			}
		})
	}
	wg.Wait()
	for i := range x.hosts.shards {
		for k, u := range x.hosts.shards[i].keys {
			if u.open != 0 {
				t.Fatalf("%v has %d connections open", k, u.open)
			}
		}
	}
}

func BenchmarkConnectLimits(b *testing.B) {
	x := newClientLimits(Limits{})
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		i++
		c := clientOf(netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 1, byte(i >> 8), byte(i)}), 1))
		if x.enter(c, start) == "" {
			x.leave(c)
		}
	}
}

func TestIDsAscend(t *testing.T) {
	s := newIDSource()
	last := s.next(start)
	for i := range 10_000 {
		// The clock steps back and forth.
		id := s.next(start.Add(time.Duration(i%7-3) * time.Millisecond))
		if id <= last || len(id) != 26 {
			t.Fatalf("%s after %s", id, last)
		}
		last = id
	}
	if a, b := newIDSource().next(start), newIDSource().next(start); a == b {
		t.Error("two processes make the same id")
	}
}
