package smtp

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"slices"
	"strconv"
	"strings"

	"github.com/xdg-go/scram"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/mail"
)

const (
	scramSHA256 = "SCRAM-SHA-256"      // RFC 7677
	scramPlus   = "SCRAM-SHA-256-PLUS" // the same, bound to the TLS session
)

// How much work a server may ask for. With fewer iterations whoever has seen
// the exchange guesses passwords cheaply (RFC 7677 4). It is also our work, and
// the server's choice: a million takes a quarter of a second.
const (
	minIterations = 4096
	maxIterations = 1_000_000
)

var (
	errNoSCRAM    = fault.New(fault.Never, "smtp.Auth", "the server does not offer AUTH SCRAM-SHA-256").WithHint("Let the server offer SCRAM-SHA-256, or use AUTH PLAIN within TLS: --auth plain.")
	errSCRAMPrep  = fault.New(fault.Invalid, "smtp.Auth", "user or password has characters that SCRAM cannot carry (RFC 4013)").WithHint("Set a password of ordinary characters.")
	errSCRAMTalk  = fault.New(fault.Never, "smtp.Auth", "the server does not follow SCRAM (RFC 5802)").WithHint("Check that host and port lead to the right server, and look at its log.")
	errIterations = fault.New(fault.Denied, "smtp.Auth", "the server asks for an iteration count that is not between 4096 and 1000000").WithHint("Let the server store the password with 4096 iterations or more, up to a million.")
	errUnproved   = fault.New(fault.Denied, "smtp.Auth", "the server has not proved that it knows the password").WithHint("Do not trust it: check that host, port and TLS rule lead to the right server, and that it knows this password.")
)

// AuthSCRAM authenticates with SCRAM-SHA-256 (RFC 5802, RFC 7677) and nothing
// else, bound to the TLS session where the server offers that. The password is
// not shown to the server, so it is not refused in clear; what is heard there
// can be used to guess it. A server that does not prove that it knows the
// password itself has lost the connection. Failures are *DialError of step
// "auth".
func (c *Client) AuthSCRAM(ctx context.Context, user, password string) error {
	return c.login(ctx, user, password, c.authSCRAM)
}

func (c *Client) authSCRAM(user, password string) (mail.Reply, error) {
	s, err := c.newSCRAM(user, password)
	if err != nil {
		return mail.Reply{}, err
	}
	r, err := c.begin(s.mechanism, s.first)
	if err != nil || r.Code != 334 {
		return c.early(r, err)
	}
	response, err := s.answer(r)
	if err != nil {
		return r, c.fail(err)
	}
	r, err = c.respond(response)
	if err != nil || r.Code != 334 {
		return c.early(r, err)
	}
	proved, err := s.proof(r)
	if err != nil {
		return r, c.fail(err)
	}
	r, err = c.respond("") // RFC 4954 4: there is no more to say
	if !proved {
		return c.early(r, err)
	}
	return c.cancelled(r, err)
}

// early is a reply that ends the exchange before the server has proved itself:
// a refusal can be believed, success cannot.
func (c *Client) early(r mail.Reply, err error) (mail.Reply, error) {
	if err == nil && r.Positive() {
		err = c.fail(errUnproved)
	}
	return c.cancelled(r, err)
}

// scramTalk is our side of one exchange.
type scramTalk struct {
	*scram.ClientConversation
	mechanism string
	first     string // our first message
	nonce     string // our part of it
}

// newSCRAM chooses between the mechanism's two forms. Where both sides could
// bind and the server does not offer it, we say so: if somebody has taken the
// offer away, the server notices (RFC 5802 6).
func (c *Client) newSCRAM(user, password string) (*scramTalk, error) {
	offered := c.mechanisms()
	client, err := scram.HashGeneratorFcn(sha256.New).NewClient(user, password, "")
	if err != nil {
		return nil, errSCRAMPrep // the library's words may quote the name
	}
	s := &scramTalk{mechanism: scramSHA256}
	binding, bindable := channelBinding(c.tls)
	plus := slices.Contains(offered, scramPlus)
	switch {
	case plus && bindable:
		s.mechanism = scramPlus
		s.ClientConversation = client.NewConversationWithChannelBinding(binding)
	case !slices.Contains(offered, scramSHA256):
		return nil, errNoSCRAM
	case bindable:
		s.ClientConversation = client.NewConversationAdvertisingChannelBinding()
	default:
		s.ClientConversation = client.NewConversation()
	}
	if s.first, err = s.Step(""); err != nil {
		return nil, err
	}
	_, s.nonce, _ = strings.Cut(s.first[strings.LastIndexByte(s.first, ','):], "=")
	return s, nil
}

// channelBinding is what names the TLS session to both ends: the exporter with
// TLS 1.3 (RFC 9266 2), the server's certificate before it (RFC 5929 4).
func channelBinding(state *tls.ConnectionState) (scram.ChannelBinding, bool) {
	bind := scram.NewTLSServerEndpointBinding
	switch {
	case state == nil:
		return scram.ChannelBinding{}, false
	case state.Version >= tls.VersionTLS13:
		bind = scram.NewTLSExporterBinding
	}
	b, err := bind(state)
	return b, err == nil
}

// answer is our response to the server's first message.
func (s *scramTalk) answer(r mail.Reply) (string, error) {
	first, err := challenge(r)
	if err != nil {
		return "", err
	}
	if err := checkServerFirst(first, s.nonce); err != nil {
		return "", err
	}
	response, err := s.Step(first)
	if err != nil {
		return "", errSCRAMTalk
	}
	return response, nil
}

// proof looks at the server's last message: its signature, or the reason why
// it refuses, which its reply will tell too.
func (s *scramTalk) proof(r mail.Reply) (proved bool, err error) {
	last, err := challenge(r)
	if err != nil {
		return false, err
	}
	if strings.HasPrefix(last, "e=") {
		return false, nil
	}
	if _, err := s.Step(last); err != nil || !s.Valid() {
		return false, errUnproved
	}
	return true, nil
}

// challenge is what a 334 carries.
func challenge(r mail.Reply) (string, error) {
	text, err := base64.StdEncoding.Strict().DecodeString(r.Text)
	if err != nil || strings.Contains(r.Text, "\n") { // which base64 would overlook
		return "", errSCRAMTalk
	}
	return string(text), nil
}

// checkServerFirst checks what the library leaves open in "r=…,s=…,i=…" (RFC
// 5802 7): that the server has added to our nonce, that there is salt, and how
// much work it is.
func checkServerFirst(first, nonce string) error {
	fields := strings.Split(first, ",")
	if len(fields) < 3 {
		return errSCRAMTalk
	}
	theirs, ok := strings.CutPrefix(fields[0], "r="+nonce)
	if !ok || theirs == "" || !strings.HasPrefix(fields[1], "s=") || len(fields[1]) == len("s=") {
		return errSCRAMTalk
	}
	count, ok := strings.CutPrefix(fields[2], "i=")
	if !ok {
		return errSCRAMTalk
	}
	// Digits alone: the library reads the same field in the same way.
	n, err := strconv.ParseUint(count, 10, 32)
	if err != nil || n < minIterations || n > maxIterations {
		return errIterations
	}
	return nil
}
