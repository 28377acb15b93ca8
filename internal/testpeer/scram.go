package testpeer

import (
	"bufio"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"strings"
	"testing"

	"github.com/xdg-go/scram"
)

// SCRAM is how a rogue authenticates its clients.
type SCRAM struct {
	Offers   string // the argument of AUTH in its reply to EHLO
	User     string // the one that exists
	Password string
	TLS      *tls.Config // STARTTLS is offered, and AUTH within it only
	Binding  string      // what it binds to: "tls-exporter" or "tls-server-end-point"; "" is nothing
	// BindingCert is the certificate that it takes for its own with the latter,
	// when somebody else's stands between.
	BindingCert []byte
	// First and Final change the server's messages before they are sent; nil
	// leaves them, and "" says 235 in their place.
	First, Final func(message string) string
	Tells        bool // why it refuses, in its final message
	Lets         bool // with Tells: in who was refused
}

// StartRogueSCRAM starts a rogue that wants SCRAM-SHA-256.
func StartRogueSCRAM(t testing.TB, s SCRAM) *Rogue { return startRogue(t, &Rogue{scram: &s}) }

// offers are its lines in the reply to EHLO.
func (c *SCRAM) offers(secure bool) []string {
	switch {
	case c == nil:
		return nil
	case c.TLS != nil && !secure:
		return []string{"250-STARTTLS"}
	}
	return []string{"250-AUTH " + c.Offers}
}

func (s *rogueSession) startTLS() bool {
	if s.scram == nil || s.scram.TLS == nil {
		return false
	}
	s.tls = tls.Server(s.conn, s.scram.TLS)
	s.conn, s.in = s.tls, bufio.NewReader(s.tls)
	return s.tls.HandshakeContext(s.ctx) == nil
}

// auth answers AUTH; false ends the connection.
func (s *rogueSession) auth(arg string) bool {
	mechanism, initial, has := strings.Cut(arg, " ")
	if s.scram == nil || !strings.HasPrefix(mechanism, "SCRAM-SHA-256") {
		return s.write("504 5.5.4 no such mechanism")
	}
	if !has {
		var ok bool
		if initial, ok = s.challenge(""); !ok {
			return false
		}
	}
	conv, err := s.scram.conversation(s.tls)
	if err != nil {
		return s.write("454 4.7.0 " + err.Error())
	}
	first, err := scramStep(conv, initial)
	if err != nil {
		return s.write("535 5.7.8 " + err.Error())
	}
	if s.scram.First != nil {
		first = s.scram.First(first)
	}
	if first == "" {
		return s.write("235 2.7.0 welcome, whoever you are")
	}
	response, ok := s.challenge(first)
	return ok && s.finish(conv, response)
}

// finish answers the client's final message.
func (s *rogueSession) finish(conv *scram.ServerConversation, response string) bool {
	final, err := scramStep(conv, response)
	if err != nil && !s.scram.Tells {
		return s.write("535 5.7.8 " + err.Error())
	}
	if s.scram.Final != nil {
		final = s.scram.Final(final)
	}
	if final != "" {
		if end, ok := s.challenge(final); !ok || end != "" {
			return ok && s.write("501 5.7.0 cancelled")
		}
	}
	if err != nil && !s.scram.Lets {
		return s.write("535 5.7.8 " + err.Error())
	}
	s.user = conv.Username()
	return s.write("235 2.7.0 welcome")
}

// challenge sends a message and reads the response to it.
func (s *rogueSession) challenge(message string) (response string, ok bool) {
	if !s.write("334 " + base64.StdEncoding.EncodeToString([]byte(message))) {
		return "", false
	}
	line, err := s.in.ReadString('\n')
	return strings.TrimRight(line, "\r\n"), err == nil
}

func scramStep(conv *scram.ServerConversation, response string) (string, error) {
	text, err := base64.StdEncoding.DecodeString(response)
	if err != nil {
		return "e=invalid-encoding", err
	}
	return conv.Step(string(text))
}

// conversation is the library's server with the one user, bound as wanted.
func (c *SCRAM) conversation(conn *tls.Conn) (*scram.ServerConversation, error) {
	hash := scram.HashGeneratorFcn(sha256.New)
	client, err := hash.NewClient(c.User, c.Password, "")
	if err != nil {
		return nil, err
	}
	stored, err := client.GetStoredCredentialsWithError(scram.KeyFactors{Salt: "salt of the rogue", Iters: 4096})
	if err != nil {
		return nil, err
	}
	server, err := hash.NewServer(func(user string) (scram.StoredCredentials, error) {
		if user != c.User {
			return scram.StoredCredentials{}, errors.New("no such user")
		}
		return stored, nil
	})
	if err != nil || c.Binding == "" {
		return server.NewConversation(), err
	}
	binding, err := c.binding(conn)
	return server.NewConversationWithChannelBinding(binding), err
}

// binding is the server's own view of the TLS session.
func (c *SCRAM) binding(conn *tls.Conn) (scram.ChannelBinding, error) {
	if conn == nil {
		return scram.ChannelBinding{}, errors.New("nothing to bind to in clear")
	}
	state := conn.ConnectionState()
	if c.Binding == string(scram.ChannelBindingTLSExporter) {
		return scram.NewTLSExporterBinding(&state)
	}
	// RFC 5929 4.1: the certificates of these tests are signed with SHA-256.
	cert := c.TLS.Certificates[0].Certificate[0]
	if c.BindingCert != nil {
		cert = c.BindingCert
	}
	sum := sha256.Sum256(cert)
	return scram.ChannelBinding{Type: scram.ChannelBindingType(c.Binding), Data: sum[:]}, nil
}
