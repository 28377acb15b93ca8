package smtp

import (
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/sallyport-mail/sallyport/internal/mail"
)

func sumOf(c tls.Certificate) string {
	sum := sha256.Sum256(c.Certificate[0])
	return hex.EncodeToString(sum[:])
}

// picking shows the certificate of the name that is asked for.
func picking(certs map[string]*tls.Certificate) *tls.Config {
	return &tls.Config{GetCertificate: func(h *tls.ClientHelloInfo) (*tls.Certificate, error) { return certs[h.ServerName], nil }}
}

// secured is a conversation within TLS, by STARTTLS unless implicit.
func secured(t *testing.T, addr string, implicit bool, config *tls.Config) (*talk, *tls.Conn) {
	t.Helper()
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	client := tls.Client(nc, config)
	if implicit {
		k := newTalk(t, client)
		k.hear("220")
		return k, client
	}
	plain := newTalk(t, nc)
	plain.hear("220")
	plain.say("EHLO c.test\r\n")
	plain.reply("250")
	plain.say("STARTTLS\r\n")
	plain.hear("220")
	if err := client.Handshake(); err != nil {
		t.Fatal(err)
	}
	return newTalk(t, client), client
}

// TestEndShown: connections that a certificate was shown to end, each as soon as
// it carries no message; those of another certificate, and in clear, go on.
func TestEndShown(t *testing.T) {
	stolen, good := newCertificate(t, "one.test"), newCertificate(t, "two.test")
	cases := []struct {
		name  string
		talk  func(k *talk)
		then  func(k *talk)
		reply string
		kept  int
	}{
		{"silent", func(*talk) {}, nil, "421 4.3.2", 0},
		{"between messages", func(k *talk) { k.transaction(); k.say("a\r\n.\r\n"); k.hear("250") }, nil, "421 4.3.2", 1},
		{"before DATA", func(k *talk) { k.say("EHLO c.test\r\n"); k.reply("250"); k.say("MAIL FROM:<>\r\n"); k.reply("250") }, nil, "421 4.3.2", 0},
		{"in DATA", func(k *talk) { k.transaction(); k.say("a\r\n") }, func(k *talk) { k.say("b\r\n.\r\n") }, "250 2.0.0 kept", 1},
		{"in BDAT", func(k *talk) {
			k.say("EHLO c.test\r\n")
			k.reply("250")
			k.say("MAIL FROM:<>\r\nRCPT TO:<b@y.test>\r\nBDAT 3\r\na\r\n")
			k.reply("250")
			k.reply("250")
			k.reply("250")
		}, func(k *talk) { k.say("BDAT 3 LAST\r\nb\r\n") }, "250 2.0.0 kept", 1},
	}
	for _, implicit := range []bool{false, true} {
		for _, c := range cases {
			t.Run(c.name, func(t *testing.T) {
				in := make(chan struct{}, 1) // the session has seen a byte of the content
				b := &recorder{data: func(r io.Reader) mail.Reply {
					if _, err := io.ReadFull(r, make([]byte, 1)); err == nil {
						in <- struct{}{}
					}
					if _, err := io.Copy(io.Discard, r); err != nil {
						return mail.Reply{Code: 451, Enhanced: "4.0.0", Text: "cut off"}
					}
					return mail.Reply{Code: 250, Enhanced: "2.0.0", Text: "kept"}
				}}
				addr, s := startServer(t, b, Listener{ImplicitTLS: implicit, TLS: picking(map[string]*tls.Certificate{"one.test": &stolen, "two.test": &good})})
				k, _ := secured(t, addr, implicit, trusting("one.test", stolen))
				other, _ := secured(t, addr, implicit, trusting("two.test", good))
				c.talk(k)
				if strings.HasPrefix(c.name, "in ") || c.kept > 0 {
					<-in
				}
				if n := s.EndShown(sumOf(stolen)); n != 1 {
					t.Errorf("%d connections were found", n)
				}
				if c.then != nil {
					c.then(k)
				}
				k.hear(c.reply)
				if c.reply != "421 4.3.2" {
					k.hear("421 4.3.2")
				}
				k.ended()
				other.transaction()
				other.say("a\r\n.\r\n")
				other.hear("250 2.0.0 kept")
			})
		}
	}
}

// TestEndShownMeanwhile: a certificate that is over before its handshake is, or
// was over before the connection came, is good for no session.
func TestEndShownMeanwhile(t *testing.T) {
	stolen := newCertificate(t, "one.test")
	var s *Server
	config := &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		s.EndShown(sumOf(stolen))
		return &stolen, nil
	}}
	b := &recorder{}
	addr, server := startServer(t, b, Listener{TLS: config})
	s = server
	for range 2 {
		k, _ := secured(t, addr, false, trusting("one.test", stolen))
		k.hear("421 4.3.2")
		k.ended()
	}
	if n := s.EndShown(sumOf(stolen)); n > 2 { // those that are being closed may still be counted
		t.Errorf("%d connections are left", n)
	}
}

// TestNothingIsResumed: each connection has a handshake of its own, which a key
// that is over signs no more. A ticket would bring back the session without.
func TestNothingIsResumed(t *testing.T) {
	cert := newCertificate(t, "one.test")
	asking := picking(map[string]*tls.Certificate{"one.test": &cert})
	asking.ClientAuth = tls.RequestClientCert
	perClient := picking(map[string]*tls.Certificate{"one.test": &cert})
	perClient.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { return asking, nil }
	for name, config := range map[string]*tls.Config{
		"one configuration": picking(map[string]*tls.Certificate{"one.test": &cert}), "by client": perClient,
		"a list": {Certificates: []tls.Certificate{cert}},
	} {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			addr, s := startServer(t, &recorder{}, Listener{TLS: config})
			client := trusting("one.test", cert)
			client.MaxVersion, client.ClientSessionCache = version, tls.NewLRUClientSessionCache(4)
			for range 3 {
				k, c := secured(t, addr, false, client)
				k.say("EHLO c.test\r\n") // a ticket of TLS 1.3 comes with the first bytes
				k.reply("250")
				if c.ConnectionState().DidResume {
					t.Errorf("%s, %s: a session was resumed", name, tls.VersionName(version))
				}
			}
			if n := s.EndShown(sumOf(cert)); name != "a list" && n != 3 {
				t.Errorf("%s, %s: %d connections were found", name, tls.VersionName(version), n)
			}
		}
	}
}
