package smtp

import (
	"context"
	"encoding/base64"
	"net"
	"net/netip"
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
	if err := c.mayAuth(user, password); err != nil {
		return &DialError{Step: "auth", Err: err}
	}
	stop := c.watch(ctx)
	defer stop()
	r, err := c.authenticate(user, password)
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
	case c.tls == nil && !isLoopback(c.socket.RemoteAddr()):
		return errAuthClear
	case user == "" || password == "" || strings.ContainsRune(user+password, 0):
		return errAuthPhrases
	}
	return nil
}

func (c *Client) authenticate(user, password string) (mail.Reply, error) {
	offered, _ := c.Extension("AUTH")
	plain, login := false, false
	for _, m := range strings.Fields(offered) {
		plain = plain || strings.EqualFold(m, "PLAIN")
		login = login || strings.EqualFold(m, "LOGIN")
	}
	switch {
	case plain:
		return c.authPlain(user, password)
	case login:
		return c.authSteps("AUTH LOGIN", user, password)
	}
	return mail.Reply{}, errAuthNone
}

func (c *Client) authPlain(user, password string) (mail.Reply, error) {
	message := "\x00" + user + "\x00" + password
	line := "AUTH PLAIN " + base64.StdEncoding.EncodeToString([]byte(message))
	if len(line) > initialLimit {
		return c.authSteps("AUTH PLAIN", message)
	}
	return c.authSteps(line)
}

// authSteps says line and answers each challenge with the next response. A
// challenge too many is cancelled.
func (c *Client) authSteps(line string, responses ...string) (mail.Reply, error) {
	r, err := c.ask(line, c.target.Timeouts.Hello)
	for _, response := range responses {
		if err != nil || r.Code != 334 {
			return r, err
		}
		r, err = c.ask(base64.StdEncoding.EncodeToString([]byte(response)), c.target.Timeouts.Hello)
	}
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
