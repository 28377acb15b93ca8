package connection

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/mail"
	"github.com/sallyport-mail/sallyport/internal/smtp"
)

// proofTime bounds a whole test; proofStep every wait for the server in it,
// which is shorter than mail gets: somebody is watching.
const (
	proofTime = 90 * time.Second
	proofStep = 20 * time.Second
)

// TestStep is one step of a test, in the customer's words.
type TestStep struct {
	Name   string `json:"name"` // "resolve", "connect", "tls", "auth", "recipient", "message", "certificate", "domains", "connector", "token", "keys"
	OK     bool   `json:"ok"`
	MS     int64  `json:"ms"`
	Detail string `json:"detail"`
	Fix    string `json:"fix" nullable:"true"` // what to do, "" when ok, which is shown as null
}

// MarshalJSON shows a fix that there is none of as null.
func (s TestStep) MarshalJSON() ([]byte, error) {
	type plain TestStep
	v := struct {
		plain
		Fix *string `json:"fix"`
	}{plain: plain(s)}
	if s.Fix != "" {
		v.Fix = &s.Fix
	}
	return json.Marshal(v)
}

// TestReport is the outcome of a test.
type TestReport struct {
	OK    bool       `json:"ok"`
	Steps []TestStep `json:"steps"`
}

// proof is a test under way.
type proof struct {
	r      *Registry
	e      *entry
	rcpt   mail.Address
	sent   bool
	asked  bool // for our certificate
	report TestReport
	reach  time.Duration // of the first host that answered
}

// Test proves a connection for real: every host is connected to by the
// connection's own rules, from where deliveries come, and the first that can
// be used is sent a message, to rcpt, or to postmaster of the tenant's first domain that it serves. The
// connection's health is what the test found.
func (r *Registry) Test(ctx context.Context, tenant, name string, rcpt mail.Address) (TestReport, error) {
	const op = "connection.Test"
	e := r.entry(tenant, name)
	switch {
	case e == nil:
		return TestReport{}, missing(op, tenant, name)
	case len(e.Hosts) == 0 && !e.MX:
		return TestReport{}, invalid(op, "connection "+name+" has no host to test: it only says whose mail it is", "Test it by sending mail through this gateway.")
	}
	if rcpt.IsNull() {
		domain, ok := r.firstDomain(e)
		if !ok {
			return TestReport{}, invalid(op, "tenant "+tenant+" has no domain that "+name+" serves", "Add a domain first, or name a recipient.")
		}
		rcpt = mail.Address{Local: "postmaster", Domain: domain}
	}
	ctx, cancel := context.WithTimeout(ctx, proofTime)
	defer cancel()
	p := &proof{r: r, e: e, rcpt: rcpt, report: TestReport{OK: true}}
	p.run(ctx)
	r.NoteHealth(tenant, name, p.health(r.now()))
	return p.report, nil
}

func (r *Registry) firstDomain(e *entry) (string, bool) {
	for _, d := range r.c.Tenants.Domains(e.Tenant) {
		if e.Direction == DirectionOutbound || r.find(e.Tenant, d.Name, false) == e {
			return d.Name, true
		}
	}
	return "", false
}

func (p *proof) step(name string, begin time.Time, detail, fix string) {
	p.report.note(name, begin, detail, fix)
}

// health is what the report says of the connection.
func (p *proof) health(now time.Time) Health {
	h := Health{OK: &p.report.OK, CheckedAt: &now}
	if p.report.OK {
		ms := p.reach.Milliseconds()
		h.LatencyMS = &ms
		return h
	}
	for _, s := range p.report.Steps {
		if !s.OK {
			reason := s.Name + ": " + s.Detail
			h.Reason = &reason
			break
		}
	}
	return h
}

func (p *proof) run(ctx context.Context) {
	begin := time.Now()
	candidates, err := p.r.own(ctx, p.e, p.rcpt.Domain, p.r.c.Hello, netip.Addr{})
	if err != nil {
		p.step("resolve", begin, fault.Sentence(err), fixResolve(err, p.e))
		return
	}
	if candidates, err = p.dress(candidates); err != nil {
		p.step("resolve", begin, fault.Sentence(err), fault.HintOf(err))
		return
	}
	hosts := byHost(candidates)
	var words []string
	for _, h := range hosts {
		words = append(words, h.describe())
	}
	p.step("resolve", begin, strings.Join(words, "; "), "")
	for _, h := range hosts {
		p.host(ctx, h)
	}
	p.proveIdentity(ctx)
}

// dress gives the candidates our side of deliveries. Those that deliveries
// leave out are left out; the error is theirs when none is left.
func (p *proof) dress(candidates []Candidate) ([]Candidate, error) {
	if p.r.c.Dress == nil {
		return candidates, nil
	}
	var first error
	dressed := make([]Candidate, 0, len(candidates))
	for _, c := range candidates {
		err := p.r.c.Dress(&c, p.e.Tenant)
		if err == nil {
			dressed = append(dressed, c)
		} else if first == nil {
			first = err
		}
	}
	if len(dressed) == 0 {
		return nil, first
	}
	return dressed, nil
}

// hostWays are the addresses of one host.
type hostWays struct {
	name string
	ways []Candidate
}

func byHost(candidates []Candidate) []hostWays {
	var hosts []hostWays
	for _, c := range candidates {
		if n := len(hosts); n == 0 || hosts[n-1].name != c.Host {
			hosts = append(hosts, hostWays{name: c.Host})
		}
		last := &hosts[len(hosts)-1]
		last.ways = append(last.ways, c)
	}
	return hosts
}

func (h hostWays) describe() string {
	var at []string
	for _, c := range h.ways {
		at = append(at, c.Target.Address)
	}
	return h.name + " at " + strings.Join(at, ", ")
}

// host tries the addresses of one host until one connects; it is that one
// which is proved.
func (p *proof) host(ctx context.Context, h hostWays) {
	begin := time.Now()
	var first error
	for _, c := range h.ways {
		c.Target.Timeouts = proofTimeouts()
		socket, err := smtp.Connect(ctx, c.Target)
		if err == nil {
			p.reach = max(p.reach, time.Since(begin))
			p.speak(ctx, c, socket, begin)
			return
		}
		if first == nil {
			first = err
		}
	}
	p.step("connect", begin, h.name+": "+first.Error(), fixConnect(first, h.ways[0].Target.Address))
}

// speak proves a host over a connection that stands: greeting, TLS, AUTH, and
// the message when none was sent yet.
func (p *proof) speak(ctx context.Context, c Candidate, socket net.Conn, begin time.Time) {
	c.Target.Config = p.watched(c.Target.Config)
	connected, us := begin, ourSide(c, socket)
	heard := &greeted{Conn: socket}
	peer, err := reach(ctx, c, func(ctx context.Context, t smtp.Target) (*smtp.Client, error) {
		if socket == nil { // the second connection, in clear
			return smtp.Dial(ctx, t)
		}
		socket = nil
		return smtp.NewClient(ctx, heard, t)
	})
	var d *smtp.DialError
	if errors.As(err, &d) && !p.isTLSFailure(d) {
		p.step("connect", connected, c.Target.Address+" ("+us+"): "+err.Error(), fixGreeting(d, us))
		return
	}
	if heard.at.IsZero() {
		heard.at = time.Now()
	}
	p.until("connect", connected, heard.at, c.Target.Address+" answers us ("+us+")")
	if p.e.TLS != TLSNone && !p.tls(ctx, c, peer, err, heard.at) {
		return
	}
	if err != nil {
		p.step("connect", connected, c.Target.Address+" ("+us+"): "+err.Error(), fixGreeting(d, us))
		return
	}
	defer peer.Quit()
	if !p.auth(ctx, c, peer) || p.sent {
		return
	}
	p.sent = true
	p.send(ctx, peer)
}

// ourSide says as what the server sees us.
func ourSide(c Candidate, socket net.Conn) string {
	from := socket.LocalAddr().String()
	if host, _, err := net.SplitHostPort(from); err == nil {
		from = host
	}
	if c.Target.Hello == "" {
		return "from " + from
	}
	return "from " + from + " as " + c.Target.Hello
}

// isTLSFailure includes the alert that a TLS 1.3 server sends after our side
// of the handshake is over, when it does not like our certificate.
func (p *proof) isTLSFailure(d *smtp.DialError) bool {
	var alert tls.AlertError
	return d.Step == "starttls" || d.Step == "tls" || errors.As(d.Err, &alert) || isRemoteAlert(d.Err)
}

// watched notes whether the server asks for our certificate.
func (p *proof) watched(config *tls.Config) *tls.Config {
	if p.e.TLS != TLSMutual {
		return config
	}
	config = config.Clone()
	give := config.GetClientCertificate
	config.GetClientCertificate = func(i *tls.CertificateRequestInfo) (*tls.Certificate, error) {
		p.asked = true
		return give(i)
	}
	return config
}

func (p *proof) tls(ctx context.Context, c Candidate, peer *smtp.Client, err error, begin time.Time) bool {
	if err == nil && p.e.TLS == TLSMutual {
		// A server that does not ask lets us in without; the rule wants it.
		if _, err = p.r.c.Signers.ClientCertificate(ctx, p.e.Tenant, p.e.Name); err != nil {
			peer.Close()
		}
	}
	if err != nil {
		fix := ""
		if p.e.TLS == TLSMutual && fault.Is(err, fault.Missing) {
			fix = p.r.fixNoIdentity(ctx, p.e)
		}
		p.step("tls", begin, fault.Sentence(err), orText(fix, fixTLS(err, p.e, c.Host)))
		return false
	}
	detail := describeTLS(c, peer.TLSState())
	if p.e.TLS == TLSMutual && !p.asked {
		detail += "; the server did not ask for our certificate"
	}
	p.step("tls", begin, detail, "")
	return true
}

func (p *proof) auth(ctx context.Context, c Candidate, peer *smtp.Client) bool {
	if c.User == "" {
		return true
	}
	begin := time.Now()
	if err := p.r.authenticate(ctx, peer, c, ""); err != nil {
		p.step("auth", begin, fault.Sentence(err)+by(peer), fixAuth(err, p.e))
		return false
	}
	p.step("auth", begin, "authenticated as "+c.User+by(peer), "")
	return true
}

// by names the mechanism that was used.
func by(peer *smtp.Client) string {
	if peer.Mechanism() == "" {
		return ""
	}
	return " (AUTH " + peer.Mechanism() + ")"
}

// send sends the message, with the null path: nobody is to answer it.
func (p *proof) send(ctx context.Context, peer *smtp.Client) {
	begin := time.Now()
	body := p.message()
	env := mail.Envelope{To: []mail.Recipient{{Address: p.rcpt}}}
	var taken time.Time // the recipient, and the word to send
	res, err := peer.Send(ctx, env, smtp.Content{Bytes: body, Size: int64(len(body))}, func(context.Context) error {
		taken = time.Now()
		return nil
	})
	if taken.IsZero() {
		taken = time.Now()
	}
	rcpt := p.rcpt.String()
	switch {
	case res.Mail.Code == 0 || len(res.Rcpt) == 0 && res.Mail.Positive():
		p.step("recipient", begin, "the server broke off: "+text(err), fixBroken())
	case !res.Mail.Positive():
		p.step("recipient", begin, "the server refuses MAIL FROM:<>: "+res.Mail.String(), fixNullSender(res.Mail))
	case !res.Rcpt[0].Positive():
		p.step("recipient", begin, rcpt+": "+res.Rcpt[0].String(), fixRecipient(res.Rcpt[0], p.rcpt, p.e))
	default:
		p.until("recipient", begin, taken, rcpt+": "+res.Rcpt[0].String())
		p.verdict(taken, res, err)
	}
}

func (p *proof) verdict(begin time.Time, res smtp.Result, err error) {
	switch {
	case len(res.Data) == 0:
		p.step("message", begin, "the server took the recipient and broke off in the message: "+text(err), fixBroken())
	case !res.Data[0].Positive():
		p.step("message", begin, res.Data[0].String(), fixMessage(res.Data[0]))
	default:
		p.step("message", begin, res.Data[0].String(), "")
	}
}

func text(err error) string {
	if err == nil {
		return "no reason given"
	}
	return fault.Sentence(err)
}

// message is what a test sends (RFC 5322; RFC 3834 5 for Auto-Submitted).
func (p *proof) message() []byte {
	host := p.r.c.Hello
	if host == "" {
		host = "localhost"
	}
	now := p.r.c.Now()
	var b bytes.Buffer
	for _, line := range []string{
		"From: postmaster@" + host,
		"To: " + p.rcpt.String(),
		"Subject: Sallyport connection test",
		"Date: " + now.Format("Mon, 02 Jan 2006 15:04:05 -0700"),
		"Message-ID: <" + strings.ToLower(rand.Text()) + "@" + host + ">",
		"Auto-Submitted: auto-generated",
		"MIME-Version: 1.0",
		"Content-Type: text/plain; charset=us-ascii",
		"",
		fmt.Sprintf("This message proves that Sallyport can deliver by the connection %q of %q.", p.e.Name, p.e.Tenant),
		"Somebody has asked for this test; nothing needs to be done.",
	} {
		b.WriteString(line + "\r\n")
	}
	return b.Bytes()
}

func proofTimeouts() smtp.Timeouts {
	const t = proofStep
	return smtp.Timeouts{Dial: t, Greeting: t, Hello: t, Mail: t, Rcpt: t, DataInit: t, DataBlock: t, DataDone: 2 * t}
}

// describeTLS says how a session is protected.
func describeTLS(c Candidate, s *tls.ConnectionState) string {
	if s == nil {
		return "the server cannot do TLS: mail travels in clear, which the rule opportunistic allows"
	}
	proved := "not verified"
	if c.Verified(s) {
		proved = "verified"
	}
	words := fmt.Sprintf("%s, %s, %s", tls.VersionName(s.Version), tls.CipherSuiteName(s.CipherSuite), proved)
	if len(s.PeerCertificates) > 0 {
		leaf := s.PeerCertificates[0]
		words += fmt.Sprintf("; certificate for %s issued by %s, good until %s",
			strings.Join(certNames(leaf), ", "), leaf.Issuer, leaf.NotAfter.UTC().Format(time.DateOnly))
	}
	return words
}
