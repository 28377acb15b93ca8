package dns

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// udpSize is the largest answer that we ask for over UDP: it fits unfragmented
// into nearly every path (RFC 6891 6.2.5, and DNS Flag Day 2020).
const udpSize = 1232

// resolve asks, and asks on where an alias points out of the answer. Servers
// put the whole chain into one answer as a rule (RFC 1034 4.3.2).
func (r *resolver) resolve(ctx context.Context, q question) (answer, error) {
	name, ttl := q.name, uint32(math.MaxUint32)
	links := 0
	for {
		reply, err := r.ask(ctx, question{name, q.kind})
		if err != nil {
			return answer{}, err
		}
		end, ttlHere, n := followChain(reply.Answer, name, q.kind, maxChain-links)
		links += n
		if links >= maxChain && !hasRecords(reply.Answer, end, q.kind) {
			return answer{}, fmt.Errorf("%s: more than %d aliases in a row", q.name, maxChain)
		}
		ttl = min(ttl, ttlHere)
		a := pick(reply, end, q.kind, ttl)
		if a.missing == "" || n == 0 || reply.Rcode == dns.RcodeNameError || answersFor(reply, end) {
			return a, nil
		}
		name = end
	}
}

// followChain walks the aliases of an answer from name on, at most limit of
// them, and returns where they end, their least TTL and their number.
func followChain(records []dns.RR, name string, kind uint16, limit int) (string, uint32, int) {
	ttl, n := uint32(math.MaxUint32), 0
	for n < limit && !hasRecords(records, name, kind) {
		alias := findAlias(records, name)
		if alias == nil {
			break
		}
		name = strings.ToLower(alias.Target)
		ttl = min(ttl, alias.Hdr.Ttl)
		n++
	}
	return name, ttl, n
}

func hasRecords(records []dns.RR, name string, kind uint16) bool {
	for _, rr := range records {
		if isRecord(rr, name, kind) {
			return true
		}
	}
	return false
}

func isRecord(rr dns.RR, name string, kind uint16) bool {
	h := rr.Header()
	return h.Rrtype == kind && h.Rdlength > 0 && h.Class == dns.ClassINET && strings.EqualFold(h.Name, name)
}

func findAlias(records []dns.RR, name string) *dns.CNAME {
	for _, rr := range records {
		if c, ok := rr.(*dns.CNAME); ok && strings.EqualFold(c.Hdr.Name, name) {
			return c
		}
	}
	return nil
}

// answersFor reports that the server has followed the chain to its end and
// found nothing there: it sent the SOA that says so (RFC 2308 2.2).
func answersFor(reply *dns.Msg, name string) bool {
	for _, rr := range reply.Ns {
		if soa, ok := rr.(*dns.SOA); ok && dns.IsSubDomain(soa.Hdr.Name, name) {
			return true
		}
	}
	return false
}

// pick takes the records of a name out of a reply.
func pick(reply *dns.Msg, name string, kind uint16, ttl uint32) answer {
	var a answer
	for _, rr := range reply.Answer {
		if isRecord(rr, name, kind) {
			a.records = append(a.records, rr)
			ttl = min(ttl, rr.Header().Ttl)
		}
	}
	switch {
	case len(a.records) > 0:
		a.ttl = within(ttl, minTTL, maxTTL)
		return a
	case reply.Rcode == dns.RcodeNameError:
		a.missing = "the name does not exist"
	default:
		a.missing = "the name has no records of type " + dns.TypeToString[kind]
	}
	a.ttl = within(min(ttl, negativeTTL(reply)), minTTL, maxNegativeTTL)
	return a
}

// negativeTTL is how long an absence may be believed (RFC 2308 5); without an
// SOA not at all.
func negativeTTL(reply *dns.Msg) uint32 {
	for _, rr := range reply.Ns {
		if soa, ok := rr.(*dns.SOA); ok {
			return min(soa.Hdr.Ttl, soa.Minttl)
		}
	}
	return 0
}

func within(seconds uint32, low, high time.Duration) time.Duration {
	return max(low, min(high, time.Duration(seconds)*time.Second))
}

// ask puts one question to the servers in turn, beginning with the one that
// answered last, until one gives an answer that says something.
func (r *resolver) ask(ctx context.Context, q question) (*dns.Msg, error) {
	var last error
	first := int(r.preferred.Load())
	for i := range r.rounds * len(r.servers) {
		n := (first + i) % len(r.servers)
		reply, err := r.askServer(ctx, r.servers[n], q)
		if err == nil {
			r.preferred.Store(uint32(n))
			return reply, nil
		}
		last = fmt.Errorf("%s: server %s: %w", q.name, r.servers[n], err)
		if ctx.Err() != nil {
			break
		}
	}
	return nil, last
}

// askServer is one try: UDP, then TCP if the answer was cut off (RFC 7766 5),
// then without EDNS for a server that does not know it (RFC 6891 7).
func (r *resolver) askServer(ctx context.Context, server string, q question) (*dns.Msg, error) {
	m := new(dns.Msg)
	m.SetQuestion(q.name, q.kind)
	m.SetEdns0(udpSize, false)
	reply, err := r.exchange(ctx, "udp", server, m)
	if err == nil && (reply.Rcode == dns.RcodeFormatError || reply.Rcode == dns.RcodeNotImplemented) {
		m.Extra = nil
		reply, err = r.exchange(ctx, "udp", server, m)
	}
	if err == nil && reply.Truncated {
		reply, err = r.exchange(ctx, "tcp", server, m)
	}
	if err != nil {
		return nil, err
	}
	switch reply.Rcode {
	case dns.RcodeSuccess, dns.RcodeNameError:
		return reply, nil
	}
	return nil, errors.New("answered " + dns.RcodeToString[reply.Rcode])
}

// exchange sends one query over a socket of its own, so that its port is new
// each time (RFC 5452 9.2), and checks that the answer is one to it.
func (r *resolver) exchange(ctx context.Context, network, server string, m *dns.Msg) (*dns.Msg, error) {
	ctx, cancel := context.WithTimeout(ctx, r.timeout)
	defer cancel()
	c := &dns.Client{Net: network, Timeout: r.timeout, UDPSize: udpSize}
	m.Id = dns.Id()
	reply, _, err := c.ExchangeContext(ctx, m, server)
	if err != nil {
		return nil, err
	}
	if !reply.Response || len(reply.Question) != 1 || reply.Question[0].Qtype != m.Question[0].Qtype ||
		!strings.EqualFold(reply.Question[0].Name, m.Question[0].Name) {
		return nil, errors.New("answered another question")
	}
	return reply, nil
}
