package pebble

import (
	"context"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/miekg/dns"
)

// Zone is a DNS server that says 127.0.0.1 of every name, and the TXT records
// that were published.
type Zone struct {
	Addr string

	mu    sync.Mutex
	texts map[string][]string
	most  int   // records at a time
	fail  error // of Publish
}

// NewZone starts one. It ends with the test.
func NewZone(t testing.TB) *Zone {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	z := &Zone{Addr: l.Addr().String(), texts: map[string][]string{}}
	s := &dns.Server{Listener: l, Handler: z}
	started := make(chan struct{})
	s.NotifyStartedFunc = func() { close(started) }
	done := make(chan error, 1)
	go func() { done <- s.ActivateAndServe() }()
	<-started
	t.Cleanup(func() {
		if err := s.Shutdown(); err != nil {
			t.Error(err)
		}
		<-done
	})
	return z
}

// ServeDNS is of dns.Handler.
func (z *Zone) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	m := new(dns.Msg)
	m.SetReply(q)
	head := dns.RR_Header{Name: q.Question[0].Name, Rrtype: q.Question[0].Qtype, Class: dns.ClassINET}
	switch q.Question[0].Qtype {
	case dns.TypeA:
		m.Answer = append(m.Answer, &dns.A{Hdr: head, A: net.IPv4(127, 0, 0, 1)})
	case dns.TypeTXT:
		z.mu.Lock()
		for _, text := range z.texts[strings.TrimSuffix(head.Name, ".")] {
			m.Answer = append(m.Answer, &dns.TXT{Hdr: head, Txt: []string{text}})
		}
		z.mu.Unlock()
	}
	w.WriteMsg(m)
}

// Publish adds a TXT record. After Lock it does so and fails.
func (z *Zone) Publish(_ context.Context, fqdn, value string) error {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.texts[fqdn] = append(z.texts[fqdn], value)
	z.most = max(z.most, len(z.texts))
	return z.fail
}

// Withdraw removes the TXT records of a name.
func (z *Zone) Withdraw(_ context.Context, fqdn, _ string) error {
	z.mu.Lock()
	defer z.mu.Unlock()
	delete(z.texts, fqdn)
	return nil
}

// Lock makes Publish fail with err from now on.
func (z *Zone) Lock(err error) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.fail = err
}

// Texts tells how many names have TXT records now, and how many had at most.
func (z *Zone) Texts() (now, most int) {
	z.mu.Lock()
	defer z.mu.Unlock()
	return len(z.texts), z.most
}
