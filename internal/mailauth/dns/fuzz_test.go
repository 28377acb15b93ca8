package dns

import (
	"testing"

	"github.com/miekg/dns"
)

// FuzzReply reads what a server might send through everything that takes a
// reply apart.
func FuzzReply(f *testing.F) {
	for _, records := range [][]string{
		{"a.test. 60 IN CNAME b.test.", "b.test. 60 IN A 192.0.2.1"},
		{"a.test. 60 IN MX 10 mx.test.", "a.test. 60 IN TXT x", "a.test. 60 IN AAAA 2001:db8::1"},
		{"a.test. 60 IN PTR b.test.", "a.test. 60 IN CNAME a.test."},
	} {
		m := new(dns.Msg)
		m.SetQuestion("a.test.", dns.TypeMX)
		m.Response = true
		for _, text := range records {
			rr, err := dns.NewRR(text)
			if err != nil {
				f.Fatal(err)
			}
			m.Answer = append(m.Answer, rr)
		}
		raw, err := m.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		var m dns.Msg
		if m.Unpack(raw) != nil {
			return
		}
		for _, kind := range []uint16{dns.TypeMX, dns.TypeA, dns.TypeAAAA, dns.TypeTXT, dns.TypePTR} {
			end, ttl, n := followChain(m.Answer, "a.test.", kind, maxChain)
			a := pick(&m, end, kind, ttl)
			if n > maxChain || a.ttl < minTTL || a.ttl > maxTTL || (len(a.records) == 0) != (a.missing != "") {
				t.Fatalf("%d aliases, %+v", n, a)
			}
			for _, rr := range a.records {
				readAs(rr, kind)
			}
			answersFor(&m, end)
		}
	})
}

// readAs makes the assertions that the resolver's methods make.
func readAs(rr dns.RR, kind uint16) {
	switch kind {
	case dns.TypeMX:
		_ = plainName(rr.(*dns.MX).Mx)
	case dns.TypeTXT:
		_ = rr.(*dns.TXT).Txt
	case dns.TypePTR:
		_ = plainName(rr.(*dns.PTR).Ptr)
	default:
		recordAddr(rr)
	}
}
