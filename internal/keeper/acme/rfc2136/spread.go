package rfc2136

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"

	"github.com/sallyport-mail/sallyport/internal/fault"
)

const (
	firstLook = 100 * time.Millisecond // pause after the first look at the servers; it doubles
	mostPause = 2 * time.Second
	mostNames = 16 // servers of a zone
)

// holder is a server that has to show a record. Where it has more than one
// address, one that answers speaks for it: not each may be reachable from here.
type holder struct {
	name      string
	addresses []string
	said      string // why it is waited for
}

// spread waits until every server shows a record.
func (u *Updater) spread(ctx context.Context, p place, value string, waiting []holder) error {
	all := len(waiting)
	own, cancel := context.WithTimeout(ctx, u.c.Propagation)
	defer cancel()
	for pause := firstLook; ; pause = min(2*pause, mostPause) {
		if waiting = look(own, waiting, p.name, value); len(waiting) == 0 {
			return nil
		}
		select {
		case <-own.Done():
			return u.lag(ctx, p, waiting, all)
		case <-time.After(pause):
		}
	}
}

// look asks them at once, and returns those that do not show the record.
func look(ctx context.Context, waiting []holder, name, value string) (left []holder) {
	var together sync.WaitGroup
	for n := range waiting {
		together.Go(func() {
			if said := waiting[n].shows(ctx, name, value); said == "" || ctx.Err() == nil {
				waiting[n].said = said // what it said before stands where the time was up
			}
		})
	}
	together.Wait()
	for _, h := range waiting {
		if h.said != "" {
			left = append(left, h)
		}
	}
	return left
}

// shows is "" when the server shows the record, else why not.
func (h holder) shows(ctx context.Context, name, value string) string {
	said := "it has no address"
	for _, a := range h.addresses {
		m := new(dns.Msg).SetQuestion(name, dns.TypeTXT)
		m.RecursionDesired = false
		r, err := exchange(ctx, a, m, nil)
		if err != nil {
			said = reason(err)
			continue
		}
		return verdict(r, name, value)
	}
	return said
}

func verdict(r *dns.Msg, name, value string) string {
	for _, rr := range r.Answer {
		if t, ok := rr.(*dns.TXT); ok && dns.CanonicalName(t.Hdr.Name) == name && strings.Join(t.Txt, "") == value {
			return ""
		}
	}
	switch {
	case r.Rcode != dns.RcodeSuccess && r.Rcode != dns.RcodeNameError:
		return "it answers " + rcodeName(r.Rcode)
	case !r.Authoritative:
		return "it is not authoritative for it"
	}
	return "it answers without it"
}

// lag is the fault of servers that don't show a record.
func (u *Updater) lag(ctx context.Context, p place, waiting []holder, all int) error {
	var said []string
	for _, h := range waiting {
		said = append(said, h.name+": "+h.said)
	}
	after := "after " + u.c.Propagation.String()
	if ctx.Err() != nil {
		after = "when the time of the request was over"
	}
	return fault.New(fault.Later, "rfc2136.Publish", fmt.Sprintf("%s %d of %d DNS servers do not show %s: %s",
		after, len(waiting), all, strings.TrimSuffix(p.name, "."), strings.Join(said, "; "))).
		WithHint("Check that the primary notifies them and that they can transfer the zone; wait longer with propagation_s, or name the servers to wait for in check.")
}

// holders are the servers that have to show a record of a zone.
func (u *Updater) holders(ctx context.Context, zone string) (all []holder, err error) {
	for _, a := range u.c.Check {
		all = append(all, holder{name: a, addresses: []string{a}})
	}
	if len(all) > 0 {
		return all, nil
	}
	r, err := u.ask(ctx, zone, dns.TypeNS)
	if err != nil {
		return nil, err
	}
	for _, rr := range r.Answer {
		ns, ok := rr.(*dns.NS)
		if !ok || dns.CanonicalName(ns.Hdr.Name) != zone {
			continue
		}
		if len(all) == mostNames {
			return nil, u.unnamed(zone, errors.New("it has more than 16"))
		}
		h, err := u.holder(ctx, dns.CanonicalName(ns.Ns))
		if err != nil {
			return nil, err
		}
		all = append(all, h)
	}
	if len(all) == 0 {
		return nil, u.unnamed(zone, errors.New("it has no NS record"))
	}
	return all, nil
}

func (u *Updater) unnamed(zone string, err error) error {
	return (&fault.Error{Kind: fault.Denied, Op: "rfc2136.Publish", Err: fmt.Errorf("the servers of the zone %s are not known: %w", strings.TrimSuffix(zone, "."), err)}).
		WithHint("Name the servers to wait for in check.")
}

// holder finds the addresses of a name server.
func (u *Updater) holder(ctx context.Context, name string) (holder, error) {
	h := holder{name: strings.TrimSuffix(name, ".")}
	for _, kind := range []uint16{dns.TypeA, dns.TypeAAAA} {
		r, err := u.ask(ctx, name, kind)
		if err != nil {
			return h, err
		}
		for _, rr := range r.Answer {
			switch a := rr.(type) {
			case *dns.A:
				h.addresses = append(h.addresses, net.JoinHostPort(a.A.String(), u.port))
			case *dns.AAAA:
				h.addresses = append(h.addresses, net.JoinHostPort(a.AAAA.String(), u.port))
			}
		}
	}
	if len(h.addresses) > 2*maxChain {
		h.addresses = h.addresses[:2*maxChain]
	}
	return h, nil
}
