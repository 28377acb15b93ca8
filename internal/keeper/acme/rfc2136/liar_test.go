package rfc2136

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/sallyport-mail/sallyport/internal/fault"
)

// liar is a DNS server that answers the updates as it likes, and all questions
// as one that is authoritative for the zone.
type liar struct {
	addr   string
	key    Key
	update func(c net.Conn, q *dns.Msg)
	ns     atomic.Pointer[[]dns.RR]
}

func newLiar(t *testing.T, k Key, update func(c net.Conn, q *dns.Msg)) *liar {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	s := &liar{addr: l.Addr().String(), key: k, update: update}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go s.serve(c)
		}
	}()
	return s
}

func (s *liar) serve(c net.Conn) {
	defer c.Close()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	var n uint16
	if binary.Read(c, binary.BigEndian, &n) != nil {
		return
	}
	raw := make([]byte, n)
	q := new(dns.Msg)
	if _, err := io.ReadFull(c, raw); err != nil || q.Unpack(raw) != nil {
		return
	}
	if q.Opcode == dns.OpcodeUpdate {
		s.update(c, q)
		return
	}
	m := new(dns.Msg).SetReply(q)
	m.Authoritative = true
	m.Ns = []dns.RR{&dns.SOA{Hdr: dns.RR_Header{Name: regionZone + ".", Rrtype: dns.TypeSOA, Class: dns.ClassINET}, Ns: "ns.", Mbox: "m."}}
	if ns := s.ns.Load(); ns != nil && q.Question[0].Qtype == dns.TypeNS {
		m.Answer = *ns
	}
	m.SetTsig(s.key.name, dns.Fqdn(s.key.algorithm), fudge, time.Now().Unix())
	send(c, m, q, s.key)
}

// send signs an answer to a signed question, with any key.
func send(c net.Conn, m, q *dns.Msg, k Key) {
	out, _, err := dns.TsigGenerateWithProvider(m, k, q.IsTsig().MAC, false)
	if err != nil {
		panic(err)
	}
	write(c, out)
}

func write(c net.Conn, out []byte) {
	c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(out))), out...))
}

// done is the answer of a server that has made the change, signed by nobody.
func done(q *dns.Msg) *dns.Msg { return new(dns.Msg).SetReply(q) }

func signedBy(k Key, at time.Time, change func(*dns.Msg)) func(net.Conn, *dns.Msg) {
	return func(c net.Conn, q *dns.Msg) {
		m := done(q)
		if change != nil {
			change(m)
		}
		m.SetTsig(k.name, dns.Fqdn(k.algorithm), fudge, at.Unix())
		send(c, m, q, k)
	}
}

func plain(change func(*dns.Msg)) func(net.Conn, *dns.Msg) {
	return func(c net.Conn, q *dns.Msg) {
		m := done(q)
		if change != nil {
			change(m)
		}
		out, err := m.Pack()
		if err != nil {
			panic(err)
		}
		write(c, out)
	}
}

// A server that lies, or somebody between, is not believed, and costs no more
// than its time.
func TestLiars(t *testing.T) {
	good := mustKey(t, "region.key", SHA256, 1)
	now := time.Now()
	for what, c := range map[string]struct {
		update func(net.Conn, *dns.Msg)
		kind   fault.Kind
		part   string
	}{
		"unsigned":           {plain(nil), fault.Later, "without a signature"},
		"another secret":     {signedBy(mustKey(t, "region.key", SHA256, 2), now, nil), fault.Later, "did not sign with the key"},
		"another key":        {signedBy(mustKey(t, "other.key", SHA256, 1), now, nil), fault.Later, "did not sign with the key"},
		"another algorithm":  {signedBy(mustKey(t, "region.key", SHA512, 1), now, nil), fault.Later, "did not sign with the key"},
		"of long ago":        {signedBy(good, now.Add(-time.Hour), nil), fault.Later, "did not sign with the key"},
		"altered":            {altered(good), fault.Later, "did not sign with the key"},
		"to another request": {signedBy(good, now, func(m *dns.Msg) { m.Id++ }), fault.Later, "could not be asked"},
		"no answer at all":   {signedBy(good, now, func(m *dns.Msg) { m.Response = false }), fault.Later, "is to something else"},
		"a query's answer":   {signedBy(good, now, func(m *dns.Msg) { m.Opcode = dns.OpcodeQuery }), fault.Later, "is to something else"},
		"REFUSED, unsigned":  {plain(func(m *dns.Msg) { m.Rcode = dns.RcodeRefused }), fault.Denied, "REFUSED"},
		"NOTIMP, unsigned":   {plain(func(m *dns.Msg) { m.Rcode = dns.RcodeNotImplemented }), fault.Denied, "takes no updates"},
		"NOTZONE":            {signedBy(good, now, func(m *dns.Msg) { m.Rcode = dns.RcodeNotZone }), fault.Denied, "NOTZONE"},
		"NOTAUTH":            {signedBy(good, now, func(m *dns.Msg) { m.Rcode = dns.RcodeNotAuth }), fault.Denied, "not authoritative for the zone"},
		"SERVFAIL":           {signedBy(good, now, func(m *dns.Msg) { m.Rcode = dns.RcodeServerFailure }), fault.Later, "SERVFAIL"},
		"YXDOMAIN":           {signedBy(good, now, func(m *dns.Msg) { m.Rcode = dns.RcodeYXDomain }), fault.Denied, "YXDOMAIN"},
		"a code of no name":  {signedBy(good, now, func(m *dns.Msg) { m.Rcode = 14 }), fault.Denied, "code 14"},
		"BADTRUNC":           {tsigError(good, dns.RcodeBadTrunc), fault.Denied, "BADTRUNC"},
		"BADTIME, no time":   {tsigError(good, dns.RcodeBadTime), fault.Later, "own differ (BADTIME)"},
		"nothing":            {func(net.Conn, *dns.Msg) {}, fault.Later, "without an answer"},
		"half an answer":     {func(c net.Conn, _ *dns.Msg) { c.Write([]byte{1, 0, 7}) }, fault.Later, "without an answer"},
		"three bytes":        {func(c net.Conn, _ *dns.Msg) { write(c, []byte("abc")) }, fault.Later, "could not be asked"},
		"HTTP":               {func(c net.Conn, _ *dns.Msg) { io.WriteString(c, "HTTP/1.1 400 Bad Request\r\n\r\n") }, fault.Later, "could not be asked"},
		"64 KB of ones":      {func(c net.Conn, q *dns.Msg) { write(c, ones(q)) }, fault.Later, "no DNS message"},
	} {
		s := newLiar(t, good, c.update)
		u, err := New(Config{Server: s.addr, Key: good, Check: []string{s.addr}})
		if err != nil {
			t.Fatal(err)
		}
		refused(t, what, u.Publish(t.Context(), name, "value"), c.kind, c.part)
		if _, sent := u.places[record{name, "value"}]; sent != (c.kind == fault.Later) {
			t.Errorf("%s: to be taken away: %v", what, sent)
		}
	}
}

// Without servers to look at nothing is published.
func TestNoServers(t *testing.T) {
	k := mustKey(t, "region.key", SHA256, 1)
	s := newLiar(t, k, signedBy(k, time.Now(), nil))
	ns := func(n int) (all []dns.RR) {
		for range n {
			all = append(all, &dns.NS{Hdr: dns.RR_Header{Name: regionZone + ".", Rrtype: dns.TypeNS, Class: dns.ClassINET}, Ns: "ns.example."})
		}
		return all
	}
	for what, c := range map[string]struct {
		answer []dns.RR
		kind   fault.Kind
		part   string
	}{
		"none":       {nil, fault.Denied, "it has no NS record"},
		"too many":   {ns(mostNames + 1), fault.Denied, "more than 16"},
		"no address": {ns(1), fault.Later, "ns.example: it has no address"},
	} {
		s.ns.Store(&c.answer)
		u, err := New(Config{Server: s.addr, Key: k, Propagation: time.Second})
		if err != nil {
			t.Fatal(err)
		}
		refused(t, what, u.Publish(t.Context(), name, "value"), c.kind, c.part, "check")
		if (len(u.places) > 0) != (c.kind == fault.Later) {
			t.Errorf("%s: %v", what, u.places)
		}
	}
}

// A server that says nothing costs the time of one exchange, or what is left of
// the request.
func TestSlow(t *testing.T) {
	k := mustKey(t, "region.key", SHA256, 1)
	s := newLiar(t, k, func(c net.Conn, _ *dns.Msg) {
		for _, b := range []byte{0, 200, 1, 1, 1, 1, 1} {
			c.Write([]byte{b})
			io.ReadFull(c, make([]byte, 1)) // until we hang up
		}
	})
	u, err := New(Config{Server: s.addr, Key: k, Check: []string{s.addr}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	began := time.Now()
	refused(t, "slow", u.Publish(ctx, name, "value"), fault.Later, "does not answer in time")
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("it took %v", took)
	}
}

// What the servers of the zone say wrong is not taken for the record.
func TestVerdict(t *testing.T) {
	txt := func(owner string, texts ...string) dns.RR {
		return &dns.TXT{Hdr: dns.RR_Header{Name: owner, Rrtype: dns.TypeTXT, Class: dns.ClassINET}, Txt: texts}
	}
	for what, c := range map[string]struct {
		m    dns.Msg
		want string
	}{
		"there":        {dns.Msg{Answer: []dns.RR{txt(name+".", "other"), txt("_ACME-challenge.e1.abc.us.gate.example.", "va", "lue")}}, ""},
		"another name": {dns.Msg{MsgHdr: dns.MsgHdr{Authoritative: true}, Answer: []dns.RR{txt("x.", "value")}}, "it answers without it"},
		"another":      {dns.Msg{MsgHdr: dns.MsgHdr{Authoritative: true}, Answer: []dns.RR{txt(name+".", "other")}}, "it answers without it"},
		"lame":         {dns.Msg{}, "it is not authoritative for it"},
		"refused":      {dns.Msg{MsgHdr: dns.MsgHdr{Rcode: dns.RcodeRefused}}, "it answers REFUSED"},
	} {
		if got := verdict(&c.m, name+".", "value"); got != c.want {
			t.Errorf("%s: %q", what, got)
		}
	}
}

func altered(k Key) func(net.Conn, *dns.Msg) {
	return func(c net.Conn, q *dns.Msg) {
		m := done(q)
		m.Rcode = dns.RcodeRefused
		m.SetTsig(k.name, dns.Fqdn(k.algorithm), fudge, time.Now().Unix())
		out, _, err := dns.TsigGenerateWithProvider(m, k, q.IsTsig().MAC, false)
		if err != nil {
			panic(err)
		}
		out[3] &^= 0xf // to NOERROR
		write(c, out)
	}
}

// tsigError is a refusal of the key, which no key signs.
func tsigError(k Key, code uint16) func(net.Conn, *dns.Msg) {
	return plain(func(m *dns.Msg) {
		m.Rcode = dns.RcodeNotAuth
		m.Extra = append(m.Extra, &dns.TSIG{Hdr: dns.RR_Header{Name: k.name, Rrtype: dns.TypeTSIG, Class: dns.ClassANY},
			Algorithm: dns.Fqdn(k.algorithm), Error: code, OrigId: m.Id})
	})
}

func ones(q *dns.Msg) []byte {
	out := make([]byte, dns.MaxMsgSize-1)
	for n := range out {
		out[n] = 0xff
	}
	binary.BigEndian.PutUint16(out, q.Id)
	return out
}

func mustKey(t *testing.T, name, algorithm string, first byte) Key {
	t.Helper()
	secret := make([]byte, 32)
	secret[0] = first
	return Key{name: dns.CanonicalName(name), algorithm: algorithm, secret: secret}
}
