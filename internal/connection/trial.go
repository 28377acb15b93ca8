package connection

import (
	"context"
	"crypto/tls"
	"errors"
	"net/netip"
	"os"
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
	// at is who has to act before the partner can say anything to the
	// certificate, and fix what he has to do; both "" when it has spoken.
	at, fix string
}

// Where a trial ended that the partner has said nothing to.
const (
	atUs      = "us"
	atNetwork = "the network, by which the partner can't be reached"
	atServer  = "the partner's server, which can't be talked to"
)

// unheard is a trial that ended before the partner could judge the certificate.
func unheard(at, words, fix string) trial { return trial{at: at, words: words, fix: fix} }

// try shows a certificate to every host of a connection and asks for a
// recipient; nothing is sent. It is accepted when all of them take it.
func (r *Registry) try(ctx context.Context, e *entry, show func(context.Context) (*tls.Certificate, error)) trial {
	ctx, cancel := context.WithTimeout(ctx, trialTime)
	defer cancel()
	domain, ok := r.firstDomain(e)
	if !ok {
		return unheard(atUs, "tenant "+e.Tenant+" has no domain that the connection serves, so that nothing can be tried",
			"Add one: sallyport domain add "+e.Tenant+" DOMAIN.")
	}
	candidates, err := r.own(ctx, e, domain, r.c.Hello, netip.Addr{})
	if err != nil {
		return unheard(atNetwork, fault.Sentence(err), fixResolve(err, e))
	}
	if candidates, err = (&proof{r: r, e: e}).dress(candidates); err != nil {
		return unheard(atUs, fault.Sentence(err), fault.HintOf(err))
	}
	rcpt := mail.Address{Local: "postmaster", Domain: domain}
	var last trial
	for _, h := range byHost(candidates) {
		if last = tryHost(ctx, e, h, rcpt, show); !last.accepted {
			return last
		}
	}
	return last
}

// tryHost takes the first address of a host that lets itself be talked to.
func tryHost(ctx context.Context, e *entry, h hostWays, rcpt mail.Address, show func(context.Context) (*tls.Certificate, error)) trial {
	t := unheard(atNetwork, h.name+" has no address", fixResolve(nil, e))
	for _, c := range h.ways {
		var shown bool
		var unheld error // by the keeper
		c.Target.Timeouts = proofTimeouts()
		c.Target.Config = c.Target.Config.Clone()
		c.Target.Config.GetClientCertificate = func(i *tls.CertificateRequestInfo) (*tls.Certificate, error) {
			var cert *tls.Certificate
			cert, unheld = show(i.Context())
			shown = unheld == nil
			return cert, unheld
		}
		peer, err := reach(ctx, c, smtp.Dial)
		if err != nil {
			t = failed(err, unheld, e, c, shown)
			continue
		}
		t = ask(ctx, peer, h.name, rcpt)
		_ = peer.Quit() // what we wanted to know we know
		return t
	}
	return t
}

// failed says whose a connection is that did not come about. The partner has
// judged the certificate when it ended the dialogue right after seeing it: with
// an alert, a reply, or without a word. unheld is why the keeper gave none.
func failed(err, unheld error, e *entry, c Candidate, shown bool) trial {
	words := c.Host + ": " + err.Error()
	if unheld == nil && fault.Is(err, fault.Later) && fault.HintOf(err) != "" { // it did not sign
		unheld = err
	}
	var d *smtp.DialError
	switch {
	case unheld != nil:
		return unheard(atUs, fault.Sentence(unheld), orText(fault.HintOf(unheld), "See that the keeper runs."))
	case shown && !os.IsTimeout(err) && !errors.Is(err, context.DeadlineExceeded):
		return trial{words: words}
	case !errors.As(err, &d) || d.Step == "dial":
		return unheard(atNetwork, words, fixConnect(err, c.Target.Address))
	case d.Step == "starttls" || d.Step == "tls":
		return unheard(atServer, words, fixTLS(err, e, c.Host))
	}
	return unheard(atServer, words, fixGreeting(d, "from this machine"))
}

func ask(ctx context.Context, peer *smtp.Client, host string, rcpt mail.Address) trial {
	res, err := peer.Probe(ctx, mail.Address{}, []mail.Recipient{{Address: rcpt}})
	switch {
	case err != nil && isRemoteAlert(err):
		return trial{words: host + ": " + fault.Sentence(err)}
	case err != nil && (len(res.Rcpt) == 0 || res.Rcpt[0].Code == 0):
		return unheard(atServer, host+": "+fault.Sentence(err), fixBroken())
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
