package edge

import (
	"crypto/tls"
	"strconv"
	"strings"

	"github.com/sallyport-mail/sallyport/internal/trace"
)

// cameBy is the first step of a message: who brought it, and how. What the
// trace of a tenant says of another tenant's client is no more than what our
// Received field tells it.
func (s *session) cameBy(g *group, in incoming) trace.Step {
	step := trace.Step{Time: in.at, Step: "received", TLS: s.tls()}
	if g.tenant == s.tx.who.tenant || !s.discreet(g) {
		peer := s.conn.Remote.String()
		step.Peer = &peer
	}
	if step.TLS != nil && s.tx.who.tenant != "" && g.tenant != s.tx.who.tenant {
		step.TLS.Client = ""
	}
	text := s.story(g)
	step.Text = &text
	return step
}

// story is the session in a sentence.
func (s *session) story(g *group) string {
	var b strings.Builder
	b.Grow(96)
	b.WriteString("hello ")
	theirs := g.tenant == s.tx.who.tenant
	if !theirs && s.discreet(g) {
		b.WriteString(outwardHello(s.conn.Hello))
	} else {
		b.WriteString(s.conn.Hello)
	}
	b.WriteString(", listener ")
	b.WriteString(s.conn.Listener)
	if theirs {
		s.credit(&b)
	}
	if g.cut != nil {
		b.WriteString(", header fields that only the tenant's own Exchange may set were taken off")
	}
	return b.String()
}

// credit tells a tenant why a message counts as its own.
func (s *session) credit(b *strings.Builder) {
	who := s.tx.who
	if s.submitter.User != "" {
		b.WriteString(", user ")
		b.WriteString(s.submitter.User)
	}
	b.WriteString(", sent for ")
	b.WriteString(who.tenant)
	b.WriteString(" by ")
	b.WriteString(who.proof)
	if who.connection != "" {
		b.WriteString(" of connection ")
		b.WriteString(who.connection)
	}
}

// tls is how this connection is protected, nil in clear.
func (s *session) tls() *trace.TLS {
	state := s.conn.TLS
	if state == nil {
		return nil
	}
	t := &trace.TLS{Version: version(state.Version), Cipher: tls.CipherSuiteName(state.CipherSuite)}
	if len(state.PeerCertificates) > 0 {
		t.Client = state.PeerCertificates[0].Subject.String()
		p := s.proven()
		t.Verified = p.tenant != "" || p.platform != nil
	}
	return t
}

// version is the name of RFC 8314 4.3's clause: without the space that
// crypto/tls has in it.
func version(v uint16) string {
	switch v {
	case tls.VersionTLS13:
		return "TLS1.3"
	case tls.VersionTLS12:
		return "TLS1.2"
	}
	return strings.ReplaceAll(tls.VersionName(v), " ", "")
}

// steps are how a group's message came and what was said to it.
func steps(id string, g *group, came trace.Step) []trace.Step {
	at := came.Time
	code, enhanced, text := 250, "2.0.0", "Accepted as "+id
	all := make([]trace.Step, 2, 2+len(g.to))
	all[0] = came
	all[1] = trace.Step{Time: at, Step: "accepted", Code: &code, Enhanced: &enhanced, Text: &text}
	if g.verdict.Code == 0 {
		return all
	}
	step := "deferred"
	if g.verdict.Permanent() {
		step = "failed"
	}
	for _, r := range g.to {
		to := r.String()
		all = append(all, trace.Step{Time: at, Step: step, Recipient: &to,
			Code: &g.verdict.Code, Enhanced: &g.verdict.Enhanced, Text: &g.verdict.Text})
	}
	return all
}

func decimal(n int64) string { return strconv.FormatInt(n, 10) }
