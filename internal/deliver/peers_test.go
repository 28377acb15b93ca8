package deliver

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	foreign "github.com/emersion/go-smtp"

	"github.com/sallyport-mail/sallyport/internal/connection"
	"github.com/sallyport-mail/sallyport/internal/keeper/client"
	"github.com/sallyport-mail/sallyport/internal/mail"
	"github.com/sallyport-mail/sallyport/internal/testpeer"
)

// Postfix as the next hop: in clear, with TLS that is merely there, verified,
// pinned, and mutual; and what is refused then.
func TestPostfixIsNextHop(t *testing.T) {
	ca, stranger := testpeer.NewCA(t, "test CA"), testpeer.NewCA(t, "stranger CA")
	cert := ca.Issue(t, nil, "mail.b.test")
	clients := testpeer.NewCA(t, "client CA")
	clientCA := t.TempDir() + "/clients.pem"
	must(t, os.WriteFile(clientCA, clients.PEM, 0o644))
	p := testpeer.StartPostfix(t, testpeer.PostfixConfig{
		Cert: cert, Domains: []string{"static:all"},
		Main: map[string]string{"smtpd_tls_ask_ccert": "yes", "smtpd_tls_CAfile": clientCA},
	})
	h := newHouse(t)
	for _, c := range []struct {
		name string
		conn connection.Connection
		tls  bool
		fits string // "" when it is delivered, else part of what the trace says
	}{
		{"clear", connection.Connection{TLS: connection.TLSNone}, false, ""},
		{"opportunistic", connection.Connection{TLS: connection.TLSOpportunistic}, true, ""},
		{"required", connection.Connection{TLS: connection.TLSRequired}, true, ""},
		{"verified", connection.Connection{TLS: connection.TLSVerified, Host: "mail.b.test", CA: string(ca.PEM)}, true, ""},
		{"pinned", connection.Connection{TLS: connection.TLSVerified, Pins: []string{cert.Pin}}, true, ""},
		{"mutual", connection.Connection{TLS: connection.TLSMutual, Host: "mail.b.test", CA: string(ca.PEM)}, true, ""},
		{"stranger", connection.Connection{TLS: connection.TLSVerified, Host: "mail.b.test", CA: string(stranger.PEM)}, true, "unknown authority"},
		{"othername", connection.Connection{TLS: connection.TLSVerified, ServerName: "other.test", CA: string(ca.PEM)}, true, "other.test"},
		{"otherpin", connection.Connection{TLS: connection.TLSVerified, Pins: []string{"sha256:" + strings.Repeat("0", 64)}}, true, "pin"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.name == "mutual" {
				h.identity(t, clients, "mutual")
			}
			h.connect(t, c.name, p.Addr, c.conn)
			id := h.put(t, c.name, c.name, 10000, "x", "y")
			if c.fits != "" {
				s := h.settled(t, c.name, id, "attempt", "deferred")
				if s.Text == nil || !strings.Contains(*s.Text, c.fits) || s.Code != nil {
					t.Errorf("the trace says %+v", deref(s.Text))
				}
				return
			}
			s := h.settled(t, c.name, id, "delivered")
			if deref(s.Peer) == "" || s.Code == nil || *s.Code != 250 || !strings.Contains(deref(s.Text), "queued as") {
				t.Errorf("the trace says %q at %q", deref(s.Text), deref(s.Peer))
			}
			if c.tls != (s.TLS != nil) {
				t.Fatalf("TLS in the trace: %+v", s.TLS)
			}
			if c.tls && (s.TLS.Version != "TLS 1.3" || s.TLS.Cipher == "" || s.TLS.Verified != (c.conn.TLS != connection.TLSOpportunistic && c.conn.TLS != connection.TLSRequired)) {
				t.Errorf("TLS in the trace: %+v", s.TLS)
			}
			if c.name == "mutual" && s.TLS.Client != "CN=e1.mutual.us.sallyport.test" {
				t.Errorf("our identity in the trace: %q", s.TLS.Client)
			}
		})
	}
	got := strings.Join(texts(p.Wait(t, 12, 20*time.Second)), "\n====\n")
	for _, want := range []string{
		"Received: from a.test by gw.test; now", "\n.dot\n", "Subject: pinned",
		`Client CN "e1.mutual.us.sallyport.test", Issuer "client CA" (verified OK)`,
	} {
		if !strings.Contains(got, want) {
			t.Errorf("Postfix did not get %q", want)
		}
	}
	for _, refused := range []string{"Subject: stranger", "Subject: othername", "Subject: otherpin"} {
		if strings.Contains(got, refused) {
			t.Errorf("Postfix got %q", refused)
		}
	}
}

// Dovecot over LMTP: an answer for each recipient, over TLS.
func TestDovecotIsNextHop(t *testing.T) {
	ca := testpeer.NewCA(t, "test CA")
	d := testpeer.StartDovecot(t, testpeer.DovecotConfig{Cert: ca.Issue(t, nil, "mail.b.test", "127.0.0.1"), Quota: "40k"})
	h := newHouse(t)
	h.connect(t, "dove", d.LMTP, connection.Connection{TLS: connection.TLSVerified, Host: "mail.b.test", CA: string(ca.PEM), LMTP: true})
	id := h.put(t, "dove", "first", 30000, "full")
	h.settled(t, "dove", id, "delivered")
	id = h.put(t, "dove", "second", 30000, "full", "free")
	if s := h.settled(t, "dove", id, "delivered"); deref(s.Recipient) != "free@dove.b.test" || s.TLS == nil || !s.TLS.Verified || !strings.Contains(deref(s.Text), "Saved") {
		t.Errorf("delivered: %s %q, TLS %+v", deref(s.Recipient), deref(s.Text), s.TLS)
	}
	if s := h.settled(t, "dove", id, "deferred", "failed"); deref(s.Recipient) != "full@dove.b.test" || !strings.Contains(deref(s.Text), "Quota exceeded") {
		t.Errorf("%s: %s %q", s.Step, deref(s.Recipient), deref(s.Text))
	}
	got := d.Wait(t, "free@dove.b.test", 1, 10*time.Second)
	if !strings.Contains(string(got[0]), "Subject: second") || !strings.Contains(string(got[0]), "\n.dot\n") {
		t.Errorf("Dovecot has %.300q", got[0])
	}
	if said := d.IMAP(t, ca, "free@dove.b.test", "SELECT INBOX"); !strings.Contains(said, "* 1 EXISTS") {
		t.Errorf("IMAP says %s", said)
	}
}

// Dovecot's submission service as a smart host: AUTH over verified TLS.
func TestDovecotSubmissionIsNextHop(t *testing.T) {
	sink := testpeer.StartSink(t, testpeer.SinkRules{})
	ca := testpeer.NewCA(t, "test CA")
	d := testpeer.StartDovecot(t, testpeer.DovecotConfig{Cert: ca.Issue(t, nil, "mail.b.test", "127.0.0.1"), Relay: sink.Addr})
	h := newHouse(t)
	host := connection.Connection{TLS: connection.TLSVerified, Host: "mail.b.test", CA: string(ca.PEM), Auth: "plain", User: "u@b.test"}
	h.connect(t, "smart", d.Submission, host)
	h.connect(t, "wrong", d.Submission, host)
	must(t, h.custody.SetCredential(t.Context(), "smart", "mailbox", client.Credential{User: "u@b.test", Password: testpeer.DovecotPassword}))
	must(t, h.custody.SetCredential(t.Context(), "wrong", "mailbox", client.Credential{User: "u@b.test", Password: "guessed"}))
	if s := h.settled(t, "smart", h.put(t, "smart", "authenticated", 1000, "x"), "delivered"); s.TLS == nil || !s.TLS.Verified {
		t.Errorf("TLS in the trace: %+v", s.TLS)
	}
	if m := sink.Wait(t, 1, 10*time.Second)[0]; !strings.Contains(string(m.Data), "Subject: authenticated") {
		t.Errorf("the smart host relayed %.200q", m.Data)
	}
	if s := h.settled(t, "wrong", h.put(t, "wrong", "refused", 1000, "x"), "attempt", "deferred"); s.Code == nil || *s.Code != 535 {
		t.Errorf("a wrong password: %+v %s", s, deref(s.Text))
	}
}

// The same with SCRAM, which never shows the password.
func TestDovecotSubmissionBySCRAM(t *testing.T) {
	sink := testpeer.StartSink(t, testpeer.SinkRules{})
	ca := testpeer.NewCA(t, "test CA")
	config := testpeer.DovecotConfig{Cert: ca.Issue(t, nil, "mail.b.test", "127.0.0.1"), Relay: sink.Addr, Mechanisms: "plain login scram-sha-256"}
	d := testpeer.StartDovecot(t, config)
	h := newHouse(t)
	host := connection.Connection{TLS: connection.TLSVerified, Host: "mail.b.test", CA: string(ca.PEM), Auth: "scram", User: "u@b.test"}
	for name, password := range map[string]string{"smart": testpeer.DovecotPassword, "wrong": "guessed"} {
		h.connect(t, name, d.Submission, host)
		must(t, h.custody.SetCredential(t.Context(), name, "mailbox", client.Credential{User: host.User, Password: password}))
	}
	h.settled(t, "smart", h.put(t, "smart", "scrambled", 1000, "x"), "delivered")
	if m := sink.Wait(t, 1, 10*time.Second)[0]; !strings.Contains(string(m.Data), "Subject: scrambled") {
		t.Errorf("the smart host relayed %.200q", m.Data)
	}
	r, err := h.conns.Test(t.Context(), "smart", "mailbox", mail.Address{})
	must(t, err)
	if s := r.Steps[3]; s.Name != "auth" || !s.OK || s.Detail != "authenticated as u@b.test (AUTH SCRAM-SHA-256)" {
		t.Errorf("connection test: %+v", r)
	}
	if s := h.settled(t, "wrong", h.put(t, "wrong", "refused", 1000, "x"), "attempt", "deferred"); s.Code == nil || *s.Code != 535 {
		t.Errorf("a wrong password: %+v %s", s, deref(s.Text))
	}
	r, err = h.conns.Test(t.Context(), "wrong", "mailbox", mail.Address{})
	must(t, err)
	if s := r.Steps[len(r.Steps)-1]; s.Name != "auth" || s.OK || !strings.Contains(s.Detail, "(AUTH SCRAM-SHA-256)") || !strings.Contains(s.Fix, "stored password") {
		t.Errorf("connection test: %+v", r)
	}
}

// Mail waits when the server cannot prove that it knows the password; it gets
// none of it.
func TestUnprovedServerGetsNoMail(t *testing.T) {
	h := newHouse(t)
	for name, server := range map[string]testpeer.SCRAM{
		"signature": {Final: func(string) string { return "v=AAAA" }},
		"nonce":     {First: func(m string) string { return "r=x" + m[len("r="):] }},
		"billion":   {First: func(m string) string { return strings.Replace(m, "i=4096", "i=1000000000", 1) }},
	} {
		server.Offers, server.User, server.Password = "PLAIN SCRAM-SHA-256", "u", "secret"
		r := testpeer.StartRogueSCRAM(t, server)
		h.connect(t, name, r.Addr, connection.Connection{TLS: connection.TLSNone, Auth: "scram", User: "u"})
		must(t, h.custody.SetCredential(t.Context(), name, "mailbox", client.Credential{User: "u", Password: "secret"}))
		s := h.settled(t, name, h.put(t, name, "kept", 1000, "x"), "attempt", "deferred")
		if s.Code != nil || !strings.Contains(deref(s.Text), "smtp.Auth") || len(r.Messages()) != 0 {
			t.Errorf("%s: %+v %q, the server has %d messages", name, s, deref(s.Text), len(r.Messages()))
		}
	}
}

// go-smtp as the next hop, for one that is neither Postfix's family nor ours.
func TestGoSMTPIsNextHop(t *testing.T) {
	b := &foreignBackend{}
	s := foreign.NewServer(b)
	s.Domain, s.MaxMessageBytes, s.EnableSMTPUTF8 = "go.test", 1<<20, true
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	served := make(chan struct{})
	go func() { defer close(served); s.Serve(l) }()
	t.Cleanup(func() { s.Close(); <-served })

	h := newHouse(t)
	h.connect(t, "go", l.Addr().String(), connection.Connection{TLS: connection.TLSNone})
	var ids []string
	for i := range 50 {
		ids = append(ids, h.put(t, "go", fmt.Sprint("n", i), 100000*(i%3), "x", "nobody"))
	}
	for _, id := range ids {
		h.settled(t, "go", id, "delivered")
		if f := h.settled(t, "go", id, "failed"); deref(f.Recipient) != "nobody@go.b.test" || *f.Code != 550 {
			t.Errorf("failed: %s %s", deref(f.Recipient), deref(f.Text))
		}
	}
	large := h.put(t, "go", "large", 2<<20, "x")
	if f := h.settled(t, "go", large, "failed"); *f.Code != 552 || deref(f.Enhanced) != "5.3.4" {
		t.Errorf("too large: %d %s %s", *f.Code, deref(f.Enhanced), deref(f.Text))
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.messages) != 50 {
		t.Errorf("%d messages arrived", len(b.messages))
	}
	for _, m := range b.messages {
		if !strings.Contains(m, "\r\n\r\n.dot\r\n") || !strings.HasPrefix(m, "Received: from a.test") {
			t.Fatalf("a message arrived as %.200q", m)
		}
	}
}

// foreignBackend keeps what go-smtp takes.
type foreignBackend struct {
	mu       sync.Mutex
	messages []string
}

func (b *foreignBackend) NewSession(*foreign.Conn) (foreign.Session, error) {
	return &foreignSession{b}, nil
}

type foreignSession struct{ *foreignBackend }

func (s *foreignSession) Mail(string, *foreign.MailOptions) error { return nil }

func (s *foreignSession) Rcpt(to string, _ *foreign.RcptOptions) error {
	if strings.HasPrefix(to, "nobody@") {
		return &foreign.SMTPError{Code: 550, EnhancedCode: foreign.EnhancedCode{5, 1, 1}, Message: "no such user"}
	}
	return nil
}

func (s *foreignSession) Data(r io.Reader) error {
	text, err := io.ReadAll(r)
	if err != nil {
		return errors.New("cut off")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.messages = append(s.messages, string(text))
	return nil
}

func (s *foreignSession) Reset()        {}
func (s *foreignSession) Logout() error { return nil }

func deref(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

func texts(all [][]byte) []string {
	var out []string
	for _, m := range all {
		out = append(out, string(m))
	}
	return out
}
