package rfc2136

import (
	"context"
	"encoding/hex"
	"errors"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/miekg/dns"

	"github.com/sallyport-mail/sallyport/internal/fault"
)

const (
	exchangeTime = 10 * time.Second // for one question: connection, question, answer
	fudge        = 300              // seconds that clocks may differ (RFC 8945 10)
)

// signed asks the server that takes updates. Every answer that says that
// something was done, or is so, bears the key's signature.
func (u *Updater) signed(ctx context.Context, m *dns.Msg) (*dns.Msg, error) {
	m.SetTsig(u.c.Key.name, dns.Fqdn(u.c.Key.algorithm), fudge, u.c.Now().Unix())
	r, err := exchange(ctx, u.c.Server, m, u.c.Key)
	switch {
	// The library looks at no signature of an answer NOTAUTH; most have none.
	case errors.Is(err, dns.ErrAuth) && r != nil && r.IsTsig() != nil && r.IsTsig().Error != dns.RcodeSuccess:
		return nil, u.keyRefusal(r.IsTsig())
	case errors.Is(err, dns.ErrAuth) && r != nil:
		return r, nil
	case errors.Is(err, dns.ErrSig), errors.Is(err, dns.ErrSecret), errors.Is(err, dns.ErrTime):
		return nil, fault.New(fault.Later, "rfc2136.Ask", "what answers at "+u.c.Server+" did not sign with the key "+u.c.Key.Name()).
			WithHint("Find out who answers there: it is not the server that has the key, or something between alters its answers.")
	case err != nil:
		return nil, (&fault.Error{Kind: fault.Later, Op: "rfc2136.Ask", Err: errors.New("the DNS server " + u.c.Server + " could not be asked: " + reason(err))}).
			WithHint("Check that it runs, takes TCP from here, and is the one that server names.")
	case r.IsTsig() == nil && (r.Rcode == dns.RcodeSuccess || r.Rcode == dns.RcodeNameError):
		return nil, fault.New(fault.Later, "rfc2136.Ask", "the DNS server "+u.c.Server+" answers without a signature").
			WithHint("Name a server that takes updates signed by TSIG.")
	}
	return r, nil
}

// exchange is one question over TCP and its answer. A provider signs and
// verifies; without one an answer is not to be signed.
func exchange(ctx context.Context, server string, m *dns.Msg, signer dns.TsigProvider) (*dns.Msg, error) {
	ctx, cancel := context.WithTimeout(ctx, exchangeTime)
	defer cancel()
	c := &dns.Client{Net: "tcp", Timeout: exchangeTime, TsigProvider: signer}
	conn, err := c.DialContext(ctx, server)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })() // the library waits for its deadline alone
	r, _, err := c.ExchangeWithConnContext(ctx, m, conn)
	if ctx.Err() != nil && err != nil {
		return nil, ctx.Err()
	}
	if err != nil {
		return r, err
	}
	if !r.Response || r.Opcode != m.Opcode || m.Opcode == dns.OpcodeQuery && !asked(m, r) {
		return nil, errors.New("its answer is to something else")
	}
	return r, nil
}

// asked tells whether an answer is to our question. Servers that refuse may
// leave it out.
func asked(m, r *dns.Msg) bool {
	if len(r.Question) == 0 {
		return r.Rcode != dns.RcodeSuccess && r.Rcode != dns.RcodeNameError
	}
	q, a := m.Question[0], r.Question[0]
	return len(r.Question) == 1 && q.Qtype == a.Qtype && dns.CanonicalName(q.Name) == dns.CanonicalName(a.Name)
}

// reason is an error of an exchange for people. What the library says of bytes
// that it can't read means nothing to them.
func reason(err error) string {
	var parse *dns.Error
	var op *net.OpError
	switch {
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return "it does not answer in time"
	case errors.Is(err, context.Canceled):
		return "the request was given up"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "it closes the connection without an answer"
	case errors.As(err, &parse):
		return "its answer is no DNS message to this question"
	case errors.As(err, &op):
		return op.Err.Error()
	}
	return err.Error()
}

// refusal is what a server says to an update (RFC 2136 2.2), and what to do.
func (u *Updater) refusal(rcode int, p place) error {
	server, zone, name := u.c.Server, strings.TrimSuffix(p.zone, "."), strings.TrimSuffix(p.name, ".")
	kind, text, hint := fault.Denied, "the DNS server "+server+" refuses the update with "+rcodeName(rcode), "Look at its log."
	switch rcode {
	case dns.RcodeRefused:
		text = "the DNS server " + server + " does not let the key " + u.c.Key.Name() + " change TXT records of " + name + " (REFUSED)"
		hint = "Grant it there. In BIND: update-policy { grant " + u.c.Key.Name() + " name " + name + " TXT; }; in the zone " + zone + "."
	case dns.RcodeNotAuth:
		text = "the DNS server " + server + " is not authoritative for the zone " + zone + " (NOTAUTH)"
		hint = "Name the primary server of the zone in server, and the zone as it has it in zone, or none."
	case dns.RcodeNotZone:
		text = "the DNS server " + server + " says that " + name + " is not in the zone " + zone + " (NOTZONE)"
		hint = "Name the zone as the server has it in zone, or none."
	case dns.RcodeNotImplemented:
		text = "the DNS server " + server + " takes no updates (NOTIMP)"
		hint = "Turn DNS UPDATE on there, or name the server that takes it."
	case dns.RcodeServerFailure:
		kind, text = fault.Later, "the DNS server "+server+" could not change the zone "+zone+" (SERVFAIL)"
		hint = "Look at its log: often it can't write the zone's file or journal."
	}
	return fault.New(kind, "rfc2136.Update", text).WithHint(hint)
}

// keyRefusal is what a server says to the key (RFC 8945 5.2).
func (u *Updater) keyRefusal(t *dns.TSIG) error {
	const op = "rfc2136.Update"
	server, key := u.c.Server, u.c.Key.Name()
	switch t.Error {
	case dns.RcodeBadKey:
		return fault.New(fault.Denied, op, "the DNS server "+server+" does not know the key "+key+" with "+u.c.Key.algorithm+" (BADKEY)").
			WithHint("Give the key the same name and algorithm on both sides.")
	case dns.RcodeBadSig:
		return fault.New(fault.Denied, op, "the DNS server "+server+" has another secret for the key "+key+" (BADSIG)").
			WithHint("Copy the secret into key_file anew, or make a new key for both sides.")
	case dns.RcodeBadTime:
		return fault.New(fault.Later, op, "the DNS server "+server+" finds that our clock and its own differ"+u.by(t)+" (BADTIME)").
			WithHint("Set the clocks of both, best by NTP.")
	}
	return fault.New(fault.Denied, op, "the DNS server "+server+" refuses the key "+key+" with "+rcodeName(int(t.Error))).WithHint("Look at its log.")
}

// by is how far the server's clock, of which it tells, is from ours (RFC 8945
// 5.2.3).
func (u *Updater) by(t *dns.TSIG) string {
	raw, err := hex.DecodeString(t.OtherData)
	if err != nil || len(raw) != 6 {
		return ""
	}
	var theirs int64
	for _, b := range raw {
		theirs = theirs<<8 | int64(b)
	}
	return " by " + time.Unix(theirs, 0).Sub(u.c.Now()).Abs().Round(10*time.Second).String()
}

func rcodeName(rcode int) string {
	if name, ok := dns.RcodeToString[rcode]; ok {
		return name
	}
	return "code " + strconv.Itoa(rcode)
}
