package dns

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
	"go.uber.org/goleak"

	"github.com/sallyport-mail/sallyport/internal/fault"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// zone is a server on loopback that answers from records in presentation
// form and can be told to misbehave.
type zone struct {
	address string
	mu      sync.Mutex
	records []dns.RR
	asked   map[string]int // "name TYPE network"
	behave  func(w dns.ResponseWriter, m, reply *dns.Msg) bool
}

// newZone starts the server on one port for UDP and TCP.
func newZone(t *testing.T, records ...string) *zone {
	t.Helper()
	z := &zone{asked: map[string]int{}}
	for _, text := range records {
		rr, err := dns.NewRR(text)
		if err != nil {
			t.Fatal(err)
		}
		z.records = append(z.records, rr)
	}
	tcp, udp := listenBoth(t)
	z.address = tcp.Addr().String()
	z.serve(t, &dns.Server{Listener: tcp, Handler: z})
	z.serve(t, &dns.Server{PacketConn: udp, Handler: z})
	return z
}

func listenBoth(t *testing.T) (net.Listener, net.PacketConn) {
	t.Helper()
	for range 20 { // another process may have the UDP port of that number
		tcp, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		udp, err := net.ListenPacket("udp", tcp.Addr().String())
		if err == nil {
			return tcp, udp
		}
		tcp.Close()
	}
	t.Fatal("no port is free for both UDP and TCP")
	return nil, nil
}

func (z *zone) serve(t *testing.T, s *dns.Server) {
	started, done := make(chan struct{}), make(chan error, 1)
	s.NotifyStartedFunc = func() { close(started) }
	go func() { done <- s.ActivateAndServe() }()
	<-started
	t.Cleanup(func() {
		if err := s.Shutdown(); err != nil {
			t.Error(err)
		}
		<-done
	})
}

// ServeDNS follows no alias beyond its own records.
func (z *zone) ServeDNS(w dns.ResponseWriter, m *dns.Msg) {
	z.mu.Lock()
	defer z.mu.Unlock()
	q := m.Question[0]
	z.asked[q.Name+" "+dns.TypeToString[q.Qtype]+" "+w.LocalAddr().Network()]++
	reply := new(dns.Msg)
	reply.SetReply(m)
	z.fill(reply, q.Name, q.Qtype)
	if z.behave != nil && z.behave(w, m, reply) {
		return
	}
	_ = w.WriteMsg(reply)
}

func (z *zone) fill(reply *dns.Msg, name string, kind uint16) {
	exists := false
	for _, rr := range z.records {
		if rr.Header().Name != name {
			continue
		}
		exists = true
		if c, ok := rr.(*dns.CNAME); ok && kind != dns.TypeCNAME {
			reply.Answer = append(reply.Answer, rr)
			if len(reply.Answer) < 5 { // longer chains are cut up, as servers may
				z.fill(reply, c.Target, kind)
			}
			return
		}
		if rr.Header().Rrtype == kind {
			reply.Answer = append(reply.Answer, rr)
		}
	}
	if !exists && len(reply.Answer) == 0 {
		reply.Rcode = dns.RcodeNameError
	}
}

// misbehave has f see every query and its reply; when f is true nothing more
// is sent.
func (z *zone) misbehave(f func(w dns.ResponseWriter, m, reply *dns.Msg) bool) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.behave = f
}

func (z *zone) count(question string) int {
	z.mu.Lock()
	defer z.mu.Unlock()
	return z.asked[question]
}

// resolver asks this server, and those behind it, with short patience.
func (z *zone) resolver(others ...*zone) *resolver {
	servers := []string{z.address}
	for _, o := range others {
		servers = append(servers, o.address)
	}
	r := newResolver(servers, nil)
	r.timeout = 400 * time.Millisecond
	return r
}

func ip(s string) netip.Addr { return netip.MustParseAddr(s) }

func TestAnswers(t *testing.T) {
	z := newZone(t,
		"acme.test. 300 IN MX 20 MX2.acme.test.", "acme.test. 300 IN MX 10 mx1.acme.test.",
		"acme.test. 300 IN MX 10 mx1.acme.test.",
		`acme.test. 300 IN TXT "v=spf1 " "-all"`, `acme.test. 300 IN TXT "other"`,
		"mx1.acme.test. 300 IN A 192.0.2.1", "mx1.acme.test. 300 IN AAAA 2001:db8::1",
		"six.acme.test. 300 IN AAAA 2001:db8::2", "alias.acme.test. 300 IN CNAME mx1.acme.test.",
		"1.2.0.192.in-addr.arpa. 300 IN PTR mx1.acme.test.", "null.test. 300 IN MX 0 .",
	)
	r, ctx := z.resolver(), t.Context()

	mx, err := r.MX(ctx, "ACME.test")
	want := []MX{{"mx2.acme.test", 20, 300 * time.Second}, {"mx1.acme.test", 10, 300 * time.Second}, {"mx1.acme.test", 10, 300 * time.Second}}
	if err != nil || !reflect.DeepEqual(mx, want) {
		t.Errorf("MX: %v, %v", mx, err)
	}
	if txt, err := r.TXT(ctx, "acme.test."); err != nil || !slices.Equal(txt, []string{"v=spf1 -all", "other"}) {
		t.Errorf("TXT: %q, %v", txt, err)
	}
	for host, want := range map[string][]netip.Addr{
		"mx1.acme.test":   {ip("2001:db8::1"), ip("192.0.2.1")},
		"alias.acme.test": {ip("2001:db8::1"), ip("192.0.2.1")},
		"six.acme.test":   {ip("2001:db8::2")},
		"localhost":       {ip("127.0.0.1"), ip("::1")},
	} {
		if got, err := r.Addrs(ctx, host); err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: %v, %v", host, got, err)
		}
	}
	if got, err := r.PTR(ctx, ip("::ffff:192.0.2.1")); err != nil || !slices.Equal(got, []string{"mx1.acme.test"}) {
		t.Errorf("PTR: %q, %v", got, err)
	}
	if mx, err := r.MX(ctx, "null.test"); err != nil || len(mx) != 1 || mx[0].Host != "." {
		t.Errorf("null MX: %v, %v", mx, err)
	}
	for _, name := range []string{"none.test", "mx1.acme.test"} {
		if _, err := r.MX(ctx, name); !fault.Is(err, fault.Missing) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, name := range []string{"", "a..b", strings.Repeat("a", 64) + ".test"} {
		if _, err := r.MX(ctx, name); !fault.Is(err, fault.Invalid) {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestAliases(t *testing.T) {
	chain := func(prefix string, n int) (records []string) {
		for i := range n {
			records = append(records, prefix+strconv.Itoa(i)+".test. 60 IN CNAME "+prefix+strconv.Itoa(i+1)+".test.")
		}
		return append(records, prefix+strconv.Itoa(n)+".test. 60 IN A 192.0.2.8")
	}
	records := append(chain("eight", 8), chain("nine", 9)...)
	records = append(records, "loop.test. 60 IN CNAME pool.test.", "pool.test. 60 IN CNAME loop.test.", "dead.test. 60 IN CNAME end.test.")
	r := newZone(t, records...).resolver()
	for name, want := range map[string]struct {
		kind fault.Kind
		ok   bool
	}{
		"eight0.test": {ok: true}, "nine0.test": {kind: fault.Later}, "loop.test": {kind: fault.Later}, "dead.test": {kind: fault.Missing},
	} {
		a, err := r.family(t.Context(), name, dns.TypeA)
		if want.ok && (err != nil || len(a) != 1) || !want.ok && !fault.Is(err, want.kind) {
			t.Errorf("%s: %v, %v", name, a, err)
		}
	}
}

func TestTruncatedGoesToTCP(t *testing.T) {
	z := newZone(t, `big.test. 60 IN TXT "whole"`)
	z.misbehave(func(w dns.ResponseWriter, m, reply *dns.Msg) bool {
		if w.LocalAddr().Network() == "udp" {
			reply.Truncated, reply.Answer = true, nil
		}
		return false
	})
	if got, err := z.resolver().TXT(t.Context(), "big.test"); err != nil || !slices.Equal(got, []string{"whole"}) {
		t.Errorf("%q, %v", got, err)
	}
	if z.count("big.test. TXT udp") != 1 || z.count("big.test. TXT tcp") != 1 {
		t.Errorf("%v", z.asked)
	}
}

func TestServersWithoutEDNS(t *testing.T) {
	z := newZone(t, "old.test. 60 IN A 192.0.2.3")
	z.misbehave(func(w dns.ResponseWriter, m, reply *dns.Msg) bool {
		if m.IsEdns0() != nil {
			reply.Rcode, reply.Answer = dns.RcodeFormatError, nil
		}
		return false
	})
	if got, err := z.resolver().family(t.Context(), "old.test", dns.TypeA); err != nil || len(got) != 1 {
		t.Errorf("%v, %v", got, err)
	}
}

func TestBadServers(t *testing.T) {
	good := newZone(t, "a.test. 60 IN MX 1 mx.a.test.")
	for name, behave := range map[string]func(dns.ResponseWriter, *dns.Msg, *dns.Msg) bool{
		"silent":   func(dns.ResponseWriter, *dns.Msg, *dns.Msg) bool { return true },
		"servfail": func(_ dns.ResponseWriter, _, reply *dns.Msg) bool { reply.Rcode = dns.RcodeServerFailure; return false },
		"refused":  func(_ dns.ResponseWriter, _, reply *dns.Msg) bool { reply.Rcode = dns.RcodeRefused; return false },
		"garbage":  func(w dns.ResponseWriter, _, _ *dns.Msg) bool { _, _ = w.Write([]byte("no")); return true },
		"other question": func(_ dns.ResponseWriter, _, reply *dns.Msg) bool {
			reply.Question[0].Name = "b.test."
			return false
		},
	} {
		t.Run(name, func(t *testing.T) {
			bad := newZone(t, "a.test. 60 IN MX 1 wrong.test.")
			bad.misbehave(behave)
			alone := bad.resolver()
			if _, err := alone.MX(t.Context(), "a.test"); !fault.Is(err, fault.Later) {
				t.Errorf("alone: %v", err)
			}
			if alone.cache.recent.Len() != 0 {
				t.Error("a failure was kept")
			}
			both := bad.resolver(good)
			if mx, err := both.MX(t.Context(), "a.test"); err != nil || mx[0].Host != "mx.a.test" {
				t.Errorf("with a good server behind it: %v, %v", mx, err)
			}
			if both.preferred.Load() != 1 {
				t.Error("the good server is not asked first from now on")
			}
		})
	}
}

func TestOneFamilyFails(t *testing.T) {
	z := newZone(t, "half.test. 60 IN A 192.0.2.4", "half.test. 60 IN AAAA 2001:db8::4", "v6only.test. 60 IN AAAA 2001:db8::5")
	z.misbehave(func(_ dns.ResponseWriter, m, reply *dns.Msg) bool {
		if m.Question[0].Qtype == dns.TypeAAAA {
			reply.Rcode = dns.RcodeServerFailure
		}
		return false
	})
	r := z.resolver()
	if got, err := r.Addrs(t.Context(), "half.test"); err != nil || !slices.Equal(got, []netip.Addr{ip("192.0.2.4")}) {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := r.Addrs(t.Context(), "v6only.test"); !fault.Is(err, fault.Later) {
		t.Errorf("no A and a failing AAAA: %v", err)
	}
}

func TestDeadlineOfTheAsker(t *testing.T) {
	release, arrived := make(chan struct{}), make(chan struct{}, 1)
	z := newZone(t, "slow.test. 60 IN TXT there")
	z.misbehave(func(dns.ResponseWriter, *dns.Msg, *dns.Msg) bool {
		select {
		case arrived <- struct{}{}:
		default:
		}
		<-release
		return false
	})
	r := z.resolver()
	r.timeout = 10 * time.Second
	ctx, cancel := context.WithCancel(t.Context())
	first := make(chan error, 1)
	go func() {
		_, err := r.TXT(ctx, "slow.test")
		first <- err
	}()
	<-arrived
	cancel()
	if err := <-first; !fault.Is(err, fault.Later) || !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	second := make(chan error, 1)
	go func() {
		_, err := r.TXT(t.Context(), "slow.test")
		second <- err
	}()
	close(release)
	if err := <-second; err != nil {
		t.Errorf("the other asker: %v", err)
	}
	if n := z.count("slow.test. TXT udp"); n != 1 {
		t.Errorf("asked %d times", n)
	}
}

func TestCacheLives(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	z := newZone(t,
		"short.test. 1 IN TXT x", "day.test. 86400 IN TXT x", "plain.test. 60 IN TXT x")
	soa, err := dns.NewRR("test. 3600 IN SOA ns.test. root.test. 1 2 3 4 7200")
	if err != nil {
		t.Fatal(err)
	}
	z.misbehave(func(_ dns.ResponseWriter, _, reply *dns.Msg) bool {
		if len(reply.Answer) == 0 && !strings.HasPrefix(reply.Question[0].Name, "nosoa") {
			reply.Ns = append(reply.Ns, soa)
		}
		return false
	})
	r := z.resolver()
	r.cache.now = func() time.Time { return now }
	for name, want := range map[string]time.Duration{
		"short.test": minTTL, "day.test": maxTTL, "plain.test": time.Minute, "none.test": maxNegativeTTL, "nosoa.test": minTTL,
	} {
		question := name + ". TXT udp"
		ask := func() { _, _ = r.TXT(t.Context(), name) }
		ask()
		now = now.Add(want - time.Second)
		ask()
		if n := z.count(question); n != 1 {
			t.Errorf("%s: asked %d times before %s were over", name, n, want)
		}
		now = now.Add(time.Second)
		ask()
		if n := z.count(question); n != 2 {
			t.Errorf("%s: asked %d times after %s", name, n, want)
		}
	}
}

func TestCacheIsBounded(t *testing.T) {
	c := newCache(10_000, time.Now)
	for i := range 1000 {
		c.put(question{strconv.Itoa(i) + ".test.", dns.TypeA}, answer{missing: "x", ttl: time.Hour})
		c.get(question{"0.test.", dns.TypeA})
	}
	if c.cost > c.limit || len(c.entries) != c.recent.Len() || len(c.entries) < 10 {
		t.Errorf("cost %d, %d entries, %d in order", c.cost, len(c.entries), c.recent.Len())
	}
	if _, ok := c.get(question{"0.test.", dns.TypeA}); !ok {
		t.Error("the one in use was dropped")
	}
	if _, ok := c.get(question{"1.test.", dns.TypeA}); ok {
		t.Error("the oldest is still there")
	}
	big := &dns.TXT{Hdr: dns.RR_Header{Name: "big.test."}, Txt: slices.Repeat([]string{strings.Repeat("x", 255)}, 20)}
	c.put(question{"big.test.", dns.TypeTXT}, answer{records: []dns.RR{big}, ttl: time.Hour})
	if _, ok := c.get(question{"big.test.", dns.TypeTXT}); ok {
		t.Error("an answer above its share was kept")
	}
}

func TestHosts(t *testing.T) {
	f := Fake{
		MXs: map[string][]MX{
			"acme.test": {{Host: "c.test", Preference: 30}, {Host: "a1.test", Preference: 10}, {Host: "a2.test", Preference: 10}},
			"null.test": {{Host: "."}}, "odd.test": {{Host: "."}, {Host: "a1.test", Preference: 5}},
		},
		Hosts: map[string][]netip.Addr{"host.test": {ip("192.0.2.1")}},
		Fail:  map[string]bool{"broken.test": true},
	}
	first := map[string]int{}
	for range 200 {
		hosts, err := Hosts(t.Context(), f, "acme.test")
		if err != nil || len(hosts) != 3 || hosts[2].Host != "c.test" {
			t.Fatalf("%v, %v", hosts, err)
		}
		first[hosts[0].Host]++
	}
	if first["a1.test"] == 0 || first["a2.test"] == 0 {
		t.Errorf("no chance among equals: %v", first)
	}
	if h, err := Hosts(t.Context(), f, "Host.test"); err != nil || len(h) != 1 || h[0].Host != "host.test" {
		t.Errorf("implicit MX: %v, %v", h, err)
	}
	if h, err := Hosts(t.Context(), f, "odd.test"); err != nil || len(h) != 1 || h[0].Host != "a1.test" {
		t.Errorf("null beside others: %v, %v", h, err)
	}
	for name, kind := range map[string]fault.Kind{"null.test": fault.Never, "none.test": fault.Missing, "broken.test": fault.Later} {
		if _, err := Hosts(t.Context(), f, name); !fault.Is(err, kind) || errors.Is(err, ErrNullMX) != (name == "null.test") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestFake(t *testing.T) {
	var r Resolver = Fake{}
	ctx, cancel := context.WithCancel(t.Context())
	if _, err := r.PTR(ctx, ip("192.0.2.1")); !fault.Is(err, fault.Missing) {
		t.Errorf("%v", err)
	}
	cancel()
	if _, err := r.TXT(ctx, "a.test"); !fault.Is(err, fault.Later) {
		t.Errorf("%v", err)
	}
	r = &Fake{TXTs: map[string][]string{"a.test": {"x"}}, PTRs: map[netip.Addr][]string{ip("192.0.2.1"): {"a.test"}}}
	if got, err := r.TXT(t.Context(), "A.test."); err != nil || got[0] != "x" {
		t.Errorf("%q, %v", got, err)
	}
	if got, err := r.PTR(t.Context(), ip("::ffff:192.0.2.1")); err != nil || got[0] != "a.test" {
		t.Errorf("%q, %v", got, err)
	}
}

func TestNew(t *testing.T) {
	for _, bad := range []string{"dns.example", "127.0.0.1:99999", ""} {
		if _, err := New([]string{bad}); !fault.Is(err, fault.Invalid) || fault.HintOf(err) == "" {
			t.Errorf("%q: %v", bad, err)
		}
	}
	r, err := New([]string{"127.0.0.1", "[::1]:5353"})
	if err != nil || !slices.Equal(r.(*resolver).servers, []string{"127.0.0.1:53", "[::1]:5353"}) {
		t.Errorf("%+v, %v", r, err)
	}
	if _, err := New(nil); err != nil {
		t.Error(err)
	}
}

func TestSystemFiles(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	conf := write("resolv.conf", "search a.test\nnameserver 192.0.2.53\nnameserver 2001:db8::53\n")
	if got := systemServers(conf); !slices.Equal(got, []string{"192.0.2.53:53", "[2001:db8::53]:53"}) {
		t.Errorf("%q", got)
	}
	if got := systemServers(filepath.Join(dir, "none")); !slices.Equal(got, []string{"127.0.0.1:53"}) {
		t.Errorf("%q", got)
	}
	hosts := write("hosts", "# none\n192.0.2.1 Mail.test mail # x\nnonsense mail.test\n2001:db8::1\tmail.test\n")
	r := newResolver([]string{"127.0.0.1:1"}, readHosts(hosts))
	if got, err := r.Addrs(t.Context(), "MAIL.test"); err != nil || !slices.Equal(got, []netip.Addr{ip("192.0.2.1"), ip("2001:db8::1")}) {
		t.Errorf("%v, %v", got, err)
	}
}
