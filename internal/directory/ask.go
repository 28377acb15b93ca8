package directory

import (
	"context"
	"crypto/rand"
	"net/netip"
	"strings"

	"github.com/sallyport-mail/sallyport/internal/connection"
	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/mail"
	"github.com/sallyport-mail/sallyport/internal/smtp"
	"github.com/sallyport-mail/sallyport/internal/tenant"
)

// ask asks the server. Known and Unknown are its word, Later is everything
// else, with the reason.
func (p *prober) ask(ctx context.Context, d tenant.Domain, a mail.Address) (Answer, string) {
	route, err := p.c.Connections.Inbound(d.Tenant, d.Name)
	if err != nil {
		return Later, fault.Sentence(err)
	}
	where := name{d.Tenant, route.Destination}
	if p.isAway(where) {
		return Later, "the mail server is away"
	}
	release, ok := p.slot(ctx, d.Tenant)
	if !ok {
		return Later, "too many addresses are being checked"
	}
	defer release()
	to, stranger := p.questions(ctx, d, a)
	res, err := p.talk(ctx, where, d.Name, to)
	if err != nil {
		p.markAway(where)
		p.c.Log.Warn("a recipient cannot be checked", "tenant", d.Tenant, "destination", route.Destination, "error", err)
		return Later, "the mail server is away"
	}
	if stranger {
		p.noteStranger(d, res)
	}
	return judge(res)
}

// questions are the address and, once a day, one that nobody has.
func (p *prober) questions(ctx context.Context, d tenant.Domain, a mail.Address) (to []mail.Recipient, stranger bool) {
	to = []mail.Recipient{{Address: a}}
	f := p.facts(ctx, d)
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.c.Now()
	if now.Sub(f.asked) < catchAll {
		return to, false
	}
	f.asked = now
	nobody := mail.Address{Local: "sallyport-" + strings.ToLower(rand.Text()), Domain: d.Name}
	return append(to, mail.Recipient{Address: nobody}), true
}

func (p *prober) noteStranger(d tenant.Domain, res smtp.Result) {
	if len(res.Rcpt) < 2 || res.Rcpt[1].Temporary() {
		return
	}
	p.mu.Lock()
	f := p.domains[name{d.Tenant, d.Name}]
	before := f != nil && f.all
	if f != nil {
		f.all = res.Rcpt[1].Positive()
	}
	p.mu.Unlock()
	if res.Rcpt[1].Positive() && !before {
		p.c.Log.Warn("the mail server accepts addresses that nobody has: recipients cannot be checked by asking it",
			"tenant", d.Tenant, "domain", d.Name)
	}
}

// judge reads a server's replies. Only what is said of the recipient counts: a
// server that refuses us (5.7.x, 5.5.x, the null sender, relaying) has said nothing
// about who exists, and mail is not refused for good because of it.
func judge(res smtp.Result) (Answer, string) {
	if !res.Mail.Positive() {
		return Later, "the mail server refuses to be asked: " + res.Mail.String()
	}
	if len(res.Rcpt) == 0 {
		return Later, "the mail server did not answer"
	}
	r := res.Rcpt[0]
	switch {
	case r.Positive():
		return Known, ""
	case !r.Permanent():
		return Later, "the mail server cannot tell now: " + r.String()
	}
	subject, detail := enhanced(r.Enhanced)
	switch {
	case subject == "2" && detail != "1", subject == "" && r.Code == 552:
		return Known, "" // full, or too large: it exists (RFC 3463 3.3, RFC 5321 4.2.3)
	case refusesUs(r, subject, detail):
		return Later, "the mail server refuses to be asked: " + r.String()
	}
	return Unknown, r.String()
}

// refusesUs reports a refusal that is not about the recipient.
func refusesUs(r mail.Reply, subject, detail string) bool {
	switch subject {
	case "3", "5", "7":
		return true
	case "1":
		return detail == "7" || detail == "8" // the sender's address
	case "":
		// 500 to 504 are about the command. Some servers say that they do not
		// relay for us in words only.
		return r.Code < 550 || strings.Contains(strings.ToLower(r.Text), "relay")
	}
	return false
}

// enhanced takes the subject and the detail out of 5.1.1. A subject of zero
// says no more than no code at all (RFC 3463 3.1).
func enhanced(code string) (subject, detail string) {
	_, rest, _ := strings.Cut(code, ".")
	subject, detail, _ = strings.Cut(rest, ".")
	if subject == "0" {
		return "", ""
	}
	return subject, detail
}

// talk asks over an idle connection to one of the hosts if there is one, else
// over a new one.
func (p *prober) talk(ctx context.Context, where name, domain string, to []mail.Recipient) (smtp.Result, error) {
	candidates, err := p.c.Connections.Candidates(ctx, where.tenant, where.key, domain, p.c.Hello, netip.Addr{})
	if err != nil {
		return smtp.Result{}, err
	}
	for _, way := range candidates {
		for c, u := p.idle.take(keyOf(way)); c != nil; c, u = p.idle.take(keyOf(way)) {
			// It may have been closed in this moment: an error proves nothing yet.
			if res, err := p.question(ctx, c, way, u, to); err == nil {
				return res, nil
			}
		}
	}
	for _, way := range candidates {
		var c *smtp.Client
		u := p.idle.begin(keyOf(way))
		if c, err = p.c.Connections.Dial(ctx, way, ""); err == nil {
			return p.question(ctx, c, way, u, to)
		}
		p.idle.done(u)
	}
	return smtp.Result{}, err
}

func keyOf(c connection.Candidate) key {
	return key{c.Tenant, c.Connection, c.Target.Address, c.Rule}
}

// question asks, and keeps the connection for the next one when all went well.
func (p *prober) question(ctx context.Context, c *smtp.Client, way connection.Candidate, u *use, to []mail.Recipient) (smtp.Result, error) {
	res, err := c.Probe(ctx, mail.Address{}, to)
	if err != nil {
		p.idle.done(u)
		c.Close()
		return res, err
	}
	p.idle.put(keyOf(way), c, u)
	return res, nil
}
