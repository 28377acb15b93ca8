package smtp

import (
	"context"
	"encoding/base64"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/mail"
)

var (
	errAuthClear   = fault.New(fault.Denied, "smtp.Auth", "a password is not sent in clear")
	errAuthNone    = fault.New(fault.Never, "smtp.Auth", "the server offers neither AUTH PLAIN nor AUTH LOGIN")
	errAuthPhrases = fault.New(fault.Invalid, "smtp.Auth", "user and password must not be empty or contain NUL")
)

// initialLimit is how long AUTH with an initial response may be; a longer one
// is sent when asked for (RFC 4954 4).
const initialLimit = 512

// Auth authenticates with PLAIN, or LOGIN where only that is offered. It is
// refused in clear except to a loopback address. Failures are *DialError of
// step "auth".
func (c *Client) Auth(ctx context.Context, user, password string) error {
	return c.login(ctx, user, password, c.authPassword)
}

// Mechanism is the SASL mechanism that was last begun, "" for none.
func (c *Client) Mechanism() string { return c.mechanism }

// login runs one way to authenticate.
func (c *Client) login(ctx context.Context, user, password string, how func(user, password string) (mail.Reply, error)) error {
	if err := c.mayAuth(user, password); err != nil {
		return &DialError{Step: "auth", Err: err}
	}
	stop := c.watch(ctx)
	defer stop()
	r, err := how(user, password)
	if err != nil {
		return &DialError{Step: "auth", Err: err}
	}
	if r.Code != 235 {
		return refusedAt("auth", r)
	}
	return nil
}

func (c *Client) mayAuth(user, password string) error {
	switch {
	case c.dead != nil:
		return c.dead
	case user == "" || password == "" || strings.ContainsRune(user+password, 0):
		return errAuthPhrases
	}
	return nil
}

// authPassword shows the server the password.
func (c *Client) authPassword(user, password string) (mail.Reply, error) {
	offered := c.mechanisms()
	switch {
	case c.tls == nil && !isLoopback(c.socket.RemoteAddr()):
		return mail.Reply{}, errAuthClear
	case slices.Contains(offered, "PLAIN"):
		return c.cancelled(c.begin("PLAIN", "\x00"+user+"\x00"+password))
	case slices.Contains(offered, "LOGIN"):
		return c.authLogin(user, password)
	}
	return mail.Reply{}, errAuthNone
}

// mechanisms are what the server offers, in upper case.
func (c *Client) mechanisms() []string {
	offered, _ := c.Extension("AUTH")
	return strings.Fields(strings.ToUpper(offered))
}

// authLogin is LOGIN, where the server asks for the name before the password.
func (c *Client) authLogin(user, password string) (mail.Reply, error) {
	c.mechanism = "LOGIN"
	r, err := c.ask("AUTH LOGIN", c.target.Timeouts.Hello)
	for _, response := range []string{user, password} {
		if err != nil || r.Code != 334 {
			return r, err
		}
		r, err = c.respond(response)
	}
	return c.cancelled(r, err)
}

// begin says AUTH with the client's first response, or without when that would
// make the line too long.
func (c *Client) begin(mechanism, first string) (mail.Reply, error) {
	c.mechanism = mechanism
	line := "AUTH " + mechanism
	if whole := line + " " + base64.StdEncoding.EncodeToString([]byte(first)); len(whole) <= initialLimit {
		return c.ask(whole, c.target.Timeouts.Hello)
	}
	r, err := c.ask(line, c.target.Timeouts.Hello)
	if err != nil || r.Code != 334 {
		return r, err
	}
	return c.respond(first)
}

// respond answers a challenge.
func (c *Client) respond(text string) (mail.Reply, error) {
	return c.ask(base64.StdEncoding.EncodeToString([]byte(text)), c.target.Timeouts.Hello)
}

// cancelled cancels the exchange where the server comes with a challenge too
// many (RFC 4954 4).
func (c *Client) cancelled(r mail.Reply, err error) (mail.Reply, error) {
	if err == nil && r.Code == 334 {
		return c.ask("*", c.target.Timeouts.Hello)
	}
	return r, err
}

// isLoopback reports a peer that cannot be listened to on the way.
func isLoopback(a net.Addr) bool {
	switch a.Network() {
	case "unix":
		return true
	case "tcp":
		ap, err := netip.ParseAddrPort(a.String())
		return err == nil && ap.Addr().Unmap().IsLoopback()
	}
	return false
}
