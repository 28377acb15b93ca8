package api

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
)

// lookupTime bounds the live check of a domain's DNS.
const lookupTime = 3 * time.Second

// Record is one DNS record that the owner of a domain has to publish, and what
// is there now.
type Record struct {
	Type   string   `json:"type"`
	Name   string   `json:"name"`
	Value  string   `json:"value"`
	Found  []string `json:"found"`
	OK     bool     `json:"ok"`
	Detail *string  `json:"detail" doc:"What is wrong, null when ok"`
}

// published lists the records for a domain of a region and checks each.
func (s *server) published(ctx context.Context, domain, region string) []Record {
	ctx, cancel := context.WithTimeout(ctx, lookupTime)
	defer cancel()
	records := []Record{s.checkMX(ctx, domain, s.Hostname(region))}
	if s.SPF != "" {
		records = append(records, s.checkSPF(ctx, domain))
	}
	return records
}

// checkMX is right when our host is among the MX records and no other has a
// better preference: senders try that one first (RFC 5321 5.1).
func (s *server) checkMX(ctx context.Context, domain, host string) Record {
	r := Record{Type: "MX", Name: domain, Value: "10 " + host, Found: []string{}}
	found, err := s.Resolver.MX(ctx, domain)
	best, ours := -1, -1
	for _, mx := range found {
		r.Found = append(r.Found, fmt.Sprintf("%d %s", mx.Preference, strings.TrimSuffix(mx.Host, ".")))
		p := int(mx.Preference)
		if best < 0 || p < best {
			best = p
		}
		if strings.EqualFold(strings.TrimSuffix(mx.Host, "."), host) && (ours < 0 || p < ours) {
			ours = p
		}
	}
	switch {
	case err != nil:
		r.Detail = or(lookupFailure(err, "the domain has no MX record"))
	case ours < 0:
		r.Detail = or("no MX record names " + host)
	case ours > best:
		r.Detail = or("another host has a better preference, so mail goes past this gateway")
	default:
		r.OK = true
	}
	return r
}

// checkSPF is right when the one SPF record (RFC 7208 4.5) has our mechanism.
func (s *server) checkSPF(ctx context.Context, domain string) Record {
	r := Record{Type: "TXT", Name: domain, Value: "v=spf1 " + s.SPF + " -all", Found: []string{}}
	texts, err := s.Resolver.TXT(ctx, domain)
	for _, t := range texts {
		if version, _, _ := strings.Cut(t, " "); strings.EqualFold(version, "v=spf1") {
			r.Found = append(r.Found, t)
		}
	}
	switch {
	case err != nil:
		r.Detail = or(lookupFailure(err, "the domain has no SPF record"))
	case len(r.Found) == 0:
		r.Detail = or("the domain has no SPF record")
	case len(r.Found) > 1:
		r.Detail = or("the domain has more than one SPF record, which is an error to every receiver")
	case !hasMechanism(r.Found[0], s.SPF):
		r.Detail = or("the SPF record lacks " + s.SPF)
	default:
		r.OK = true
	}
	return r
}

func hasMechanism(record, mechanism string) bool {
	for _, m := range strings.Fields(record)[1:] {
		if strings.EqualFold(strings.TrimPrefix(m, "+"), mechanism) {
			return true
		}
	}
	return false
}

func lookupFailure(err error, missing string) string {
	switch {
	case fault.Is(err, fault.Missing):
		return missing
	case errors.Is(err, context.DeadlineExceeded):
		return "the DNS did not answer within " + lookupTime.String()
	default:
		return "the DNS could not be asked: " + fault.Sentence(err)
	}
}
