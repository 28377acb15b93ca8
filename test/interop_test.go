package test

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	gosmtp "github.com/emersion/go-smtp"

	"github.com/sallyport-mail/sallyport/internal/testpeer"
)

// TestPostfixBothSides sends through Postfix, Sallyport and Postfix, in TLS on
// both ways, and compares every body byte for byte.
func TestPostfixBothSides(t *testing.T) {
	eachProcess(t, func(t *testing.T, p *process) {
		ca := testpeer.NewCA(t, "interop")
		after := testpeer.StartPostfix(t, testpeer.PostfixConfig{Domains: []string{"acme.test"}, Cert: ca.Issue(t, nil, "mail.acme.test"),
			Main: map[string]string{"message_size_limit": "0", "virtual_mailbox_limit": "0"}})
		before := testpeer.StartPostfix(t, testpeer.PostfixConfig{Hostname: "outside.test", RelayHost: p.smtp,
			Main: map[string]string{"smtp_tls_security_level": "encrypt", "message_size_limit": "0"}})
		p.start()
		p.must("tenant", "add", "acme", "--region", "us")
		p.must("domain", "add", "acme", "acme.test")
		p.connection("acme", "mailbox", after.Addr, "--tls", "verified", "--ca", caFile(t, ca), "--server-name", "mail.acme.test")
		sent := assorted(20)
		for _, m := range sent {
			m.submit(t, before.Addr)
		}
		got := after.Wait(t, len(sent), 60*time.Second)
		compareBodies(t, sent, got)
		for _, m := range got {
			if !inTLS.Match(m) {
				t.Errorf("the gateway's Received field tells of no TLS:\n%.600s", m)
				break
			}
		}
	})
}

// inTLS is our Received field of mail that came in TLS (RFC 3848, RFC 6531).
var inTLS = regexp.MustCompile(`by mx\.sallyport\.test with (ESMTPS|UTF8SMTPS)\s`)

// connection adds a connection to an address.
func (p *process) connection(tenant, name, addr string, more ...string) {
	p.t.Helper()
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		p.t.Fatal(err)
	}
	p.must(append([]string{"connection", "add", tenant, name, "--kind", "smtp", "--host", host, "--port", port}, more...)...)
}

func caFile(t *testing.T, ca *testpeer.CA) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(name, ca.PEM, 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// letter is a message of an interop story.
type letter struct {
	from, to string
	options  *gosmtp.MailOptions
	number   string // in the Subject
	body     []byte
}

// assorted makes letters of every kind that SMTP knows: plain, dots, 8-bit,
// internationalised, long lines, large.
func assorted(n int) []*letter {
	var all []*letter
	for i := range n {
		m := &letter{from: "a@example.org", to: "b@acme.test", number: fmt.Sprintf("letter-%d", i), options: &gosmtp.MailOptions{}}
		switch i % 5 {
		case 0:
			m.body = []byte("Plain.\r\n.\r\n..\r\n. dot\r\n\r\nFrom here\r\n")
		case 1:
			m.options.Body = gosmtp.Body8BitMIME
			m.body = []byte("Grüße, \xff\xfe and all\r\n")
		case 2:
			m.options.Body, m.options.UTF8 = gosmtp.Body8BitMIME, true
			m.from, m.to = "müller@example.org", "δοκιμή@acme.test"
			m.body = []byte("用户\r\n")
		case 3:
			m.body = []byte(strings.Repeat(strings.Repeat("x", 900)+"\r\n", 100))
		case 4:
			m.body = bytes.Repeat([]byte(loadLine), 40_000) // 2 MB
		}
		all = append(all, m)
	}
	return all
}

func (m *letter) bytes() []byte {
	return append(fmt.Appendf(nil, "From: <%s>\r\nTo: <%s>\r\nSubject: %s\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n",
		m.from, m.to, m.number), m.body...)
}

// submit sends it with go-smtp's client.
func (m *letter) submit(t *testing.T, addr string) {
	t.Helper()
	if err := m.send(addr); err != nil {
		t.Fatalf("%s: %v", m.number, err)
	}
}

func (m *letter) send(addr string) error {
	return converse(addr, m.from, m.to, m.options, m.bytes())
}

// converse is go-smtp's client sending one message.
func converse(addr, from, to string, options *gosmtp.MailOptions, raw []byte) error {
	c, err := gosmtp.Dial(addr)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.Mail(from, options); err != nil {
		return err
	}
	if err := c.Rcpt(to, nil); err != nil {
		return err
	}
	w, err := c.Data()
	if err != nil {
		return err
	}
	if _, err := w.Write(raw); err != nil {
		return err
	}
	return w.Close()
}

// compareBodies compares what a Maildir has (lines end with LF there) with
// what was sent.
func compareBodies(t *testing.T, sent []*letter, got [][]byte) {
	t.Helper()
	arrived := map[string][]byte{}
	for _, raw := range got {
		head, body, _ := bytes.Cut(raw, []byte("\n\n"))
		_, rest, _ := bytes.Cut(head, []byte("Subject: "))
		number, _, _ := bytes.Cut(rest, []byte("\n"))
		arrived[string(number)] = body
	}
	for _, m := range sent {
		want := bytes.ReplaceAll(m.body, []byte("\r\n"), []byte("\n"))
		if body, ok := arrived[m.number]; !ok {
			t.Errorf("%s did not arrive", m.number)
		} else if !bytes.Equal(body, want) {
			t.Errorf("%s was changed: %d bytes, want %d; %.80q, want %.80q", m.number, len(body), len(want), body, want)
		}
	}
}

// TestDovecotLMTP delivers by LMTP within TLS that is verified; with another
// authority nothing is delivered, and nothing lost.
func TestDovecotLMTP(t *testing.T) {
	ca := testpeer.NewCA(t, "interop")
	dovecot := testpeer.StartDovecot(t, testpeer.DovecotConfig{Cert: ca.Issue(t, nil, "mail.acme.test")})
	p := newProcess(t, "")
	p.start()
	for _, name := range []string{"acme", "wrong"} {
		p.must("tenant", "add", name, "--region", "us")
		p.must("domain", "add", name, name+".test")
	}
	p.connection("acme", "mailbox", dovecot.LMTP, "--lmtp", "--tls", "verified", "--ca", caFile(t, ca), "--server-name", "mail.acme.test")
	p.connection("wrong", "mailbox", dovecot.LMTP, "--lmtp", "--tls", "verified", "--ca", caFile(t, testpeer.NewCA(t, "another")), "--server-name", "mail.acme.test")
	m := &letter{from: "a@example.org", to: "jane@acme.test", number: "lmtp", body: []byte("Hello.\r\n.\r\n")}
	m.submit(t, p.smtp)
	compareBodies(t, []*letter{m}, dovecot.Wait(t, "jane@acme.test", 1, 20*time.Second))
	if report := object[struct{ OK bool }](p, "connection", "test", "acme", "mailbox", "--rcpt", "jane@acme.test"); !report.OK {
		t.Error("connection test failed on a connection that works")
	}
	m.to = "jane@wrong.test"
	m.submit(t, p.smtp)
	waitFor(t, "the other tenant's delivery has failed for its certificate", func() bool {
		return strings.Contains(p.must("queue", "destinations", "--tenant", "wrong"), "certificate")
	})
	if n := len(dovecot.Messages(t, "jane@wrong.test")); n > 0 {
		t.Errorf("%d messages went to a server that could not be verified", n)
	}
	if q := object[[]map[string]any](p, "queue", "list", "--tenant", "wrong"); len(q) != 1 {
		t.Errorf("the queue has %d items of the other tenant, want 1", len(q))
	}
}

// TestSubmission has users submit over STARTTLS and implicit TLS; their mail
// leaves through the tenant's smart host.
func TestSubmission(t *testing.T) {
	smart := testpeer.StartPostfix(t, testpeer.PostfixConfig{Domains: []string{"elsewhere.test"}})
	p := newProcess(t, "")
	implicit := freeAddresses(t, 1)[0]
	p.appendSettings("\n[[listener]]\nkind = \"submissions\"\naddress = \"" + implicit + "\"\n")
	p.start()
	p.must("tenant", "add", "acme", "--region", "us")
	p.must("domain", "add", "acme", "acme.test")
	p.connection("acme", "smart", smart.Addr, "--direction", "outbound", "--tls", "none")
	user := object[struct{ User, Password string }](p, "credential", "add", "acme", "jane")
	auth := func(mechanism, password string) []string {
		return []string{"--auth", mechanism, "--auth-user", user.User, "--auth-password", password, "--from", "jane@acme.test", "--to", "x@elsewhere.test"}
	}
	for _, c := range []struct {
		name, server string
		code         int
		args         []string
	}{
		{"STARTTLS, PLAIN", p.submit, 0, append(auth("PLAIN", user.Password), "--tls")},
		{"STARTTLS, LOGIN", p.submit, 0, append(auth("LOGIN", user.Password), "--tls")},
		{"implicit TLS", implicit, 0, append(auth("PLAIN", user.Password), "--tls-on-connect")},
		{"wrong password", p.submit, 28, append(auth("PLAIN", "not"+user.Password), "--tls")},
		{"no AUTH", p.submit, 23, []string{"--tls", "--from", "jane@acme.test", "--to", "x@elsewhere.test"}},
		{"AUTH in clear", p.submit, 28, auth("PLAIN", user.Password)},
	} {
		t.Run(c.name, func(t *testing.T) {
			said, code := testpeer.Swaks(t, c.server, c.args...)
			if code != c.code {
				t.Errorf("swaks ended with %d, want %d\n%s", code, c.code, said)
			}
		})
	}
	smart.Wait(t, 3, 20*time.Second)
}

// TestDovecotSubmission has Dovecot's submission server hand mail to the
// gateway in TLS.
func TestDovecotSubmission(t *testing.T) {
	ca := testpeer.NewCA(t, "interop")
	mailbox := testpeer.StartPostfix(t, testpeer.PostfixConfig{Domains: []string{"acme.test"}})
	p := newProcess(t, "")
	p.start()
	p.tenant("acme", "us", "acme.test", mailbox.Addr)
	dovecot := testpeer.StartDovecot(t, testpeer.DovecotConfig{Cert: ca.Issue(t, nil, "mail.outside.test"), Relay: p.smtp, RelayTLS: "starttls"})
	said, code := testpeer.Swaks(t, dovecot.Submission, "--tls", "--auth", "PLAIN", "--auth-user", "joe", "--auth-password", testpeer.DovecotPassword,
		"--from", "joe@outside.test", "--to", "b@acme.test", "--body", "by way of Dovecot")
	if code != 0 {
		t.Fatalf("swaks ended with %d\n%s\n%s", code, said, dovecot.Log())
	}
	if m := mailbox.Wait(t, 1, 20*time.Second)[0]; !bytes.Contains(m, []byte("by way of Dovecot")) {
		t.Errorf("not the message:\n%s", m)
	}
}

// rawSink is a go-smtp server that keeps messages as they came, by sender.
type rawSink struct {
	addr string
	mu   sync.Mutex
	got  map[string][]byte
}

func startRawSink(t *testing.T, config *tls.Config) *rawSink {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &rawSink{addr: ln.Addr().String(), got: map[string][]byte{}}
	server := gosmtp.NewServer(gosmtp.BackendFunc(func(*gosmtp.Conn) (gosmtp.Session, error) { return &rawSession{sink: s}, nil }))
	server.Domain, server.TLSConfig, server.EnableSMTPUTF8 = "raw.test", config, true
	server.MaxMessageBytes, server.MaxLineLength = 64<<20, 1<<22
	go server.Serve(ln)
	t.Cleanup(func() { server.Close() })
	return s
}

type rawSession struct {
	sink *rawSink
	from string
}

func (s *rawSession) Mail(from string, _ *gosmtp.MailOptions) error { s.from = from; return nil }
func (s *rawSession) Rcpt(string, *gosmtp.RcptOptions) error        { return nil }
func (s *rawSession) Reset()                                        {}
func (s *rawSession) Logout() error                                 { return nil }

func (s *rawSession) Data(r io.Reader) error {
	raw, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	s.sink.mu.Lock()
	defer s.sink.mu.Unlock()
	s.sink.got[s.from] = raw
	return nil
}

func (s *rawSink) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.got)
}

// TestCorpora sends what the world has found to be difficult mail from
// go-smtp's client to go-smtp's server; what is accepted arrives byte for
// byte, behind our Received field alone.
func TestCorpora(t *testing.T) {
	step := 7
	if chaos() {
		step = 1
	}
	files := corpus(t, step)
	p := newProcess(t, "")
	sink := startRawSink(t, nil)
	p.start()
	p.tenant("acme", "us", "acme.test", sink.addr)
	sent := map[string][]byte{}
	refused := map[string]int{}
	for i, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		from, body := fmt.Sprintf("corpus-%d@example.org", i), withCRLF(raw)
		if err := converse(p.smtp, from, "b@acme.test", &gosmtp.MailOptions{Body: gosmtp.Body8BitMIME}, body); err != nil {
			refused[err.Error()]++
			continue
		}
		sent[from] = body
	}
	t.Logf("%d messages sent, refused: %v", len(sent), refused)
	if len(sent) < len(files)*9/10 {
		t.Errorf("only %d of %d were accepted", len(sent), len(files))
	}
	waitFor(t, "all have arrived", func() bool { return sink.count() >= len(sent) })
	for from, want := range sent {
		got := sink.got[from]
		if !bytes.HasPrefix(got, []byte("Received: ")) || !bytes.HasSuffix(got, want) {
			t.Errorf("%s arrived changed: %d bytes, %d sent\n%.300q\n%.300q", from, len(got), len(want), got, want)
		} else if n := len(got) - len(want); n > 600 {
			t.Errorf("%s: %d bytes were put before it", from, n)
		}
	}
}

// corpus lists every n-th file of the MIME data sets that is a message.
func corpus(t *testing.T, n int) []string {
	t.Helper()
	var all []string
	root := testpeer.DataSet(t, "mime")
	err := filepath.WalkDir(root, func(name string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		switch filepath.Ext(name) {
		case ".eml", ".raw", ".txt", ".msg", ".mime", ".mbox":
			all = append(all, name)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	var some []string
	for i := 0; i < len(all); i += n {
		some = append(some, all[i])
	}
	return some
}

// withCRLF gives every line the end that SMTP knows.
func withCRLF(raw []byte) []byte {
	raw = bytes.ReplaceAll(raw, []byte("\r\n"), []byte("\n"))
	raw = bytes.ReplaceAll(raw, []byte("\r"), []byte("\n"))
	if !bytes.HasSuffix(raw, []byte("\n")) {
		raw = append(raw, '\n')
	}
	return bytes.ReplaceAll(raw, []byte("\n"), []byte("\r\n"))
}
