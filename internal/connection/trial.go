package connection

import (
	"context"
	"crypto/tls"
	"net/netip"
	"strings"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/mail"
	"github.com/sallyport-mail/sallyport/internal/smtp"
)

// trialTime bounds one trial of an identity.
const trialTime = 45 * time.Second

// trial is what a partner's mail server says to one of our certificates.
type trial struct {
	accepted bool
	reply    mail.Reply // to RCPT, zero when it did not come to that
	words    string
}

// try shows a certificate to every host of a connection and asks for a
// recipient; nothing is sent. It is accepted when all of them take it.
func (r *Registry) try(ctx context.Context, e *entry, show func(context.Context) (*tls.Certificate, error)) trial {
	ctx, cancel := context.WithTimeout(ctx, trialTime)
	defer cancel()
	domain, ok := r.firstDomain(e)
	if !ok {
		return trial{words: "tenant " + e.Tenant + " has no domain that the connection serves, so that nothing can be tried"}
	}
	candidates, err := r.own(ctx, e, domain, r.c.Hello, netip.Addr{})
	if err == nil {
		candidates, err = (&proof{r: r, e: e}).dress(candidates)
	}
	if err != nil {
		return trial{words: fault.Sentence(err)}
	}
	rcpt := mail.Address{Local: "postmaster", Domain: domain}
	var last trial
	for _, h := range byHost(candidates) {
		if last = tryHost(ctx, h, rcpt, show); !last.accepted {
			return last
		}
	}
	return last
}

// tryHost takes the first address of a host that lets itself be talked to.
func tryHost(ctx context.Context, h hostWays, rcpt mail.Address, show func(context.Context) (*tls.Certificate, error)) trial {
	t := trial{words: h.name + " has no address"}
	for _, c := range h.ways {
		c.Target.Timeouts = proofTimeouts()
		c.Target.Config = c.Target.Config.Clone()
		c.Target.Config.GetClientCertificate = func(i *tls.CertificateRequestInfo) (*tls.Certificate, error) { return show(i.Context()) }
		peer, err := reach(ctx, c, smtp.Dial)
		if err != nil {
			t = trial{words: h.name + ": " + fault.Sentence(err)}
			continue
		}
		t = ask(ctx, peer, h.name, rcpt)
		_ = peer.Quit() // what we wanted to know we know
		return t
	}
	return t
}

func ask(ctx context.Context, peer *smtp.Client, host string, rcpt mail.Address) trial {
	res, err := peer.Probe(ctx, mail.Address{}, []mail.Recipient{{Address: rcpt}})
	switch {
	case err != nil && (len(res.Rcpt) == 0 || res.Rcpt[0].Code == 0):
		return trial{words: host + ": " + fault.Sentence(err)}
	case res.Mail.Code != 0 && !res.Mail.Positive():
		return trial{reply: res.Mail, words: host + ": " + res.Mail.String()}
	}
	r := res.Rcpt[0]
	return trial{accepted: r.Positive(), reply: r, words: host + ": " + r.String()}
}

// aboutUs reports a refusal that is about who we are rather than about the
// recipient (RFC 3463: X.7 is security and policy; without an enhanced code
// 550 and 554 may be either).
func (t trial) aboutUs() bool {
	_, rest, ok := strings.Cut(t.reply.Enhanced, ".")
	return !ok || strings.HasPrefix(rest, "7.") || t.reply.Temporary()
}

// takes reports whether a partner takes the certificate of one identity, where
// other is what it says to the one that it takes already. A recipient that does
// not exist is no refusal of ours, when both are told so.
func (t trial) takes(other trial) bool {
	return t.accepted || !t.aboutUs() && t.reply.Code == other.reply.Code && t.reply.Enhanced == other.reply.Enhanced
}

// tryIdentity is try with one of the connection's identities.
func (r *Registry) tryIdentity(ctx context.Context, k Keeper, e *entry, identity string) trial {
	return r.try(ctx, e, func(ctx context.Context) (*tls.Certificate, error) {
		return k.IdentityCertificate(ctx, e.Tenant, e.Name, identity)
	})
}
