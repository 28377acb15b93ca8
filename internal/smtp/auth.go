package smtp

import (
	"bytes"
	"encoding/base64"
	"strings"

	"github.com/sallyport-mail/sallyport/internal/mail"
)

// maxAuthFailures is how many wrong passwords a connection has.
const maxAuthFailures = 3

func authMalformed() *mail.Reply {
	return &mail.Reply{Code: 501, Enhanced: "5.5.2", Text: "cannot decode that"}
}
func authCancelled() *mail.Reply {
	return &mail.Reply{Code: 501, Enhanced: "5.7.0", Text: "authentication cancelled"}
}
func authFailed() *mail.Reply {
	return &mail.Reply{Code: 535, Enhanced: "5.7.8", Text: "authentication failed"}
}

// offersAuth reports whether AUTH can be used now.
func (c *dialog) offersAuth() bool {
	if c.User != "" || !c.rules.InsecureAuth && !(c.rules.Auth && c.TLS != nil) {
		return false
	}
	_, ok := c.session.(Authenticator)
	return ok
}

// mayAuth says why AUTH cannot be used now.
func (c *dialog) mayAuth() *mail.Reply {
	switch {
	case c.state.inTransaction() || !c.state.allows(eventAuth):
		return &mail.Reply{Code: 503, Enhanced: "5.5.1", Text: "AUTH comes after EHLO and before MAIL"}
	case c.User != "":
		return &mail.Reply{Code: 503, Enhanced: "5.5.1", Text: "authenticated already"} // RFC 4954 4
	case c.offersAuth():
		return nil
	case c.rules.RequireTLS && c.TLS == nil:
		return needsTLS()
	case c.rules.Auth && c.TLS == nil:
		return &mail.Reply{Code: 538, Enhanced: "5.7.11", Text: "AUTH needs TLS, STARTTLS first"}
	}
	return &mail.Reply{Code: 502, Enhanced: "5.5.1", Text: "AUTH is not offered here"}
}

// auth answers AUTH mechanism [initial-response] (RFC 4954 4).
func (c *dialog) auth(arg []byte) {
	if bad := c.mayAuth(); bad != nil {
		c.refuse("AUTH", *bad)
		return
	}
	word, rest, has := bytes.Cut(arg, []byte{' '})
	mechanism, initial := strings.ToUpper(string(word)), string(rest)
	var user, password string
	var bad *mail.Reply
	switch mechanism {
	case "PLAIN":
		user, password, bad = c.authPlain(initial, has)
	case "LOGIN":
		user, password, bad = c.authLogin(initial, has)
	default:
		bad = &mail.Reply{Code: 504, Enhanced: "5.5.4", Text: "unknown mechanism, PLAIN and LOGIN are offered"}
	}
	switch {
	case c.closing:
	case bad != nil:
		c.refuse("AUTH", *bad)
	default:
		c.check(user, password)
	}
}

// check asks the session about a password.
func (c *dialog) check(user, password string) {
	r := c.session.(Authenticator).Auth(c.ctx(), user, password)
	if r == nil || r.Positive() {
		c.User = user
		c.move(eventAuth)
		c.ok("235 2.7.0 authenticated\r\n")
		return
	}
	c.reply(*r)
	c.authFails++
	if c.authFails >= maxAuthFailures && !c.closing {
		c.refuse("AUTH", mail.Reply{Code: 421, Enhanced: "4.7.0", Text: "too many wrong passwords"})
	}
}

// authPlain is PLAIN (RFC 4616): [authzid] NUL user NUL password.
func (c *dialog) authPlain(initial string, has bool) (user, password string, bad *mail.Reply) {
	message, bad := c.initialOrAsk(initial, has, "")
	if bad != nil {
		return "", "", bad
	}
	parts := strings.Split(message, "\x00")
	if len(parts) != 3 || parts[1] == "" || parts[2] == "" {
		return "", "", authMalformed()
	}
	if parts[0] != "" && parts[0] != parts[1] {
		return "", "", authFailed() // nobody acts for somebody else here
	}
	return parts[1], parts[2], nil
}

// authLogin is LOGIN, which no RFC has: name and password asked for in turn.
func (c *dialog) authLogin(initial string, has bool) (user, password string, bad *mail.Reply) {
	user, bad = c.initialOrAsk(initial, has, "VXNlcm5hbWU6") // "Username:"
	if bad != nil {
		return "", "", bad
	}
	password, bad = c.ask("UGFzc3dvcmQ6") // "Password:"
	if bad == nil && (user == "" || password == "") {
		bad = authMalformed()
	}
	return user, password, bad
}

func (c *dialog) initialOrAsk(initial string, has bool, challenge string) (string, *mail.Reply) {
	if !has {
		return c.ask(challenge)
	}
	if initial == "=" {
		return "", nil // RFC 4954 4: an empty initial response
	}
	return decode64(initial)
}

// ask sends a challenge and reads the response to it.
func (c *dialog) ask(challenge string) (string, *mail.Reply) {
	c.say(334, challenge)
	line, err := c.readLine(maxAuth)
	switch err {
	case nil:
	case errLineLong, errLineBare:
		return "", authMalformed()
	default:
		c.hangUp(err)
		return "", authCancelled()
	}
	if string(line) == "*" {
		return "", authCancelled()
	}
	return decode64(string(line))
}

func decode64(s string) (string, *mail.Reply) {
	b, err := base64.StdEncoding.Strict().DecodeString(s)
	if err != nil {
		return "", authMalformed()
	}
	return string(b), nil
}
