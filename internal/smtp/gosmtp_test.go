package smtp_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/emersion/go-sasl"
	gosmtp "github.com/emersion/go-smtp"

	"github.com/sallyport-mail/sallyport/internal/smtp"
)

const peerBody = "Subject: from a peer\r\n\r\n.\r\n..two\r\n.x\r\nend\r\n"

// TestGoSMTPClient: a foreign client against our server.
func TestGoSMTPClient(t *testing.T) {
	cert := smtp.NewCertificate(t, "mx.test")
	config := &tls.Config{Certificates: []tls.Certificate{cert}}
	b := &smtp.Recorder{}
	b.SetPassword("secret")
	clear, _ := smtp.StartServer(t, b, smtp.Listener{MaxSize: 1 << 20})
	starttls, _ := smtp.StartServer(t, b, smtp.Listener{TLS: config, Auth: true, RequireTLS: true})
	implicit, _ := smtp.StartServer(t, b, smtp.Listener{TLS: config, Auth: true, ImplicitTLS: true})
	trust := smtp.Trusting("mx.test", cert)
	for name, dial := range map[string]func() (*gosmtp.Client, error){
		"clear":    func() (*gosmtp.Client, error) { return gosmtp.Dial(clear) },
		"starttls": func() (*gosmtp.Client, error) { return gosmtp.DialStartTLS(starttls, trust) },
		"implicit": func() (*gosmtp.Client, error) { return gosmtp.DialTLS(implicit, trust) },
	} {
		t.Run(name, func(t *testing.T) {
			c, err := dial()
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if name != "clear" {
				if err := c.Auth(sasl.NewPlainClient("", "user", "secret")); err != nil {
					t.Fatal(err)
				}
			}
			exchangeGoSMTP(t, c, b)
		})
	}
}

func exchangeGoSMTP(t *testing.T, c *gosmtp.Client, b *smtp.Recorder) {
	t.Helper()
	options := &gosmtp.MailOptions{Size: int64(len(peerBody)), Body: gosmtp.Body8BitMIME, UTF8: true, Return: gosmtp.DSNReturnHeaders, EnvelopeID: "e+1=x"}
	if err := c.Mail("grüße@x.test", options); err != nil {
		t.Fatal(err)
	}
	rcpt := &gosmtp.RcptOptions{Notify: []gosmtp.DSNNotify{gosmtp.DSNNotifyFailure, gosmtp.DSNNotifyDelayed}, OriginalRecipientType: gosmtp.DSNAddressTypeRFC822, OriginalRecipient: "b+1@y.test"}
	if err := c.Rcpt("b@y.test", rcpt); err != nil {
		t.Fatal(err)
	}
	var refused *gosmtp.SMTPError
	if err := c.Rcpt("refuse@y.test", nil); !errors.As(err, &refused) || refused.Code != 550 || refused.EnhancedCode != (gosmtp.EnhancedCode{5, 1, 1}) {
		t.Errorf("%v", err)
	}
	w, err := c.Data()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(w, peerBody); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	kept := b.Kept()
	last := kept[len(kept)-1]
	env := last.Envelope()
	p := env.Params
	if last.Body() != peerBody || p.EnvID != "e+1=x" || p.Ret != "HDRS" || !p.UTF8 || p.Body != "8BITMIME" || p.Size != int64(len(peerBody)) {
		t.Errorf("%+v %q", env, last.Body())
	}
	if env.From.Local != "grüße" || len(env.To) != 1 || env.To[0].Notify != "FAILURE,DELAY" || env.To[0].ORcpt != "rfc822;b+1@y.test" {
		t.Errorf("%+v", env)
	}
	if err := c.Quit(); err != nil {
		t.Error(err)
	}
}

// foreign is a backend of go-smtp that keeps what it gets.
type foreign struct {
	mu     sync.Mutex
	from   string
	to     []string
	notify []gosmtp.DSNNotify
	body   string
	user   string
	mail   gosmtp.MailOptions
}

func (f *foreign) NewSession(*gosmtp.Conn) (gosmtp.Session, error) { return f, nil }

func (f *foreign) Reset() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.from, f.to, f.notify = "", nil, nil
}

func (f *foreign) Logout() error { return nil }

func (f *foreign) Mail(from string, o *gosmtp.MailOptions) error {
	f.from, f.mail = from, *o
	return nil
}

func (f *foreign) Rcpt(to string, o *gosmtp.RcptOptions) error {
	if strings.HasPrefix(to, "refuse@") {
		return &gosmtp.SMTPError{Code: 550, EnhancedCode: gosmtp.EnhancedCode{5, 1, 1}, Message: "no such user"}
	}
	f.to, f.notify = append(f.to, to), o.Notify
	return nil
}

func (f *foreign) Data(r io.Reader) error {
	b, err := io.ReadAll(r)
	f.mu.Lock()
	f.body = string(b)
	f.mu.Unlock()
	return err
}

func (f *foreign) AuthMechanisms() []string { return []string{"PLAIN"} }

func (f *foreign) Auth(string) (sasl.Server, error) {
	return sasl.NewPlainServer(func(_, user, password string) error {
		if password != "secret" {
			return gosmtp.ErrAuthFailed
		}
		f.user = user
		return nil
	}), nil
}

// startForeign serves a foreign server until the test ends.
func startForeign(t *testing.T, config *tls.Config, implicit, lmtp bool) (string, *foreign) {
	f := &foreign{}
	s := gosmtp.NewServer(f)
	s.Domain, s.TLSConfig, s.EnableSMTPUTF8, s.EnableDSN, s.LMTP = "foreign.test", config, true, true, lmtp
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	if implicit {
		l = tls.NewListener(l, config)
	}
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(l) }()
	t.Cleanup(func() { _ = s.Close(); <-done })
	return addr, f
}

// TestGoSMTPServer: our client against a foreign server.
func TestGoSMTPServer(t *testing.T) {
	cert := smtp.NewCertificate(t, "foreign.test")
	config := &tls.Config{Certificates: []tls.Certificate{cert}}
	cases := []struct {
		name   string
		target smtp.Target
	}{
		{"clear", smtp.Target{}},
		{"starttls", smtp.Target{TLS: smtp.TLSRequired, Config: smtp.Trusting("foreign.test", cert)}},
		{"implicit", smtp.Target{TLS: smtp.TLSImplicit, Config: smtp.Trusting("foreign.test", cert)}},
		{"lmtp", smtp.Target{LMTP: true}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			serving := config
			if c.target.TLS == smtp.TLSNone {
				serving = nil
			}
			addr, f := startForeign(t, serving, c.target.TLS == smtp.TLSImplicit, c.target.LMTP)
			c.target.Address, c.target.Hello = addr, "c.test"
			client, err := smtp.Dial(t.Context(), c.target)
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			if serving != nil {
				if err := client.Auth(t.Context(), "user", "secret"); err != nil || f.user != "user" {
					t.Errorf("%v, user %q", err, f.user)
				}
			}
			sendForeign(t, client, f, c.target.LMTP)
			sendForeign(t, client, f, c.target.LMTP) // once more on the same connection
			if err := client.Quit(); err != nil {
				t.Error(err)
			}
		})
	}
}

func sendForeign(t *testing.T, client *smtp.Client, f *foreign, lmtp bool) {
	t.Helper()
	env := smtp.GoodEnvelope("grüße@x.test", "b@y.test", "refuse@y.test", "c@y.test")
	env.Params.EnvID, env.Params.Ret, env.Params.Body = "e+1", "FULL", "8BITMIME"
	env.To[2].Notify = "SUCCESS"
	res, err := client.Send(t.Context(), env, smtp.Content{Bytes: []byte(peerBody), Size: int64(len(peerBody))}, func(context.Context) error { return nil })
	if err != nil {
		t.Fatalf("%+v, %v", res, err)
	}
	replies := 1
	if lmtp {
		replies = 2
	}
	if len(res.Data) != replies || res.Data[0].Code != 250 || res.Rcpt[1].Code != 550 || res.Rcpt[1].Enhanced != "5.1.1" || res.Rcpt[2].Code != 250 {
		t.Errorf("%+v", res)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.body != peerBody || f.mail.EnvelopeID != "e+1" || f.mail.Return != gosmtp.DSNReturnFull || !f.mail.UTF8 {
		t.Errorf("%+v", f)
	}
	if !client.Alive() {
		t.Error("not alive")
	}
}
