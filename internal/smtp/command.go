package smtp

import (
	"bytes"
	"time"

	"github.com/sallyport-mail/sallyport/internal/mail"
)

// Limits of a line without CR LF. RFC 5321 4.5.3.1.4 asks for 512 and more
// for each extension; RFC 4954 4 for 12288 with AUTH.
const (
	maxCommand = 4096
	maxAuth    = 12288
	maxSkipped = 1 << 20 // of an overlong line, then the connection is closed
)

var crlf = []byte("\r\n")

// command is a command line taken apart. arg points into the input buffer and
// is gone with the next read.
type command struct {
	verb string // upper case; one of the known ones, or ""
	arg  []byte
}

// readCommand waits for the next command. Lines that are none are answered
// here.
func (c *dialog) readCommand() (command, error) {
	if cmd := c.next; cmd.verb != "" {
		c.next = command{}
		return cmd, nil
	}
	if c.woken.Load() && c.phase == phaseCommands {
		return command{}, errWoken
	}
	for {
		line, err := c.readLine(maxAuth)
		if err == nil && len(line) > maxCommand && !isAuth(line) {
			err = errLineLong
		}
		switch err {
		case nil:
			return c.take(line)
		case errLineLong:
			c.refuse("", mail.Reply{Code: 500, Enhanced: "5.5.2", Text: "line too long"})
		case errLineBare:
			c.refuse("", mail.Reply{Code: 500, Enhanced: "5.5.2", Text: "bare CR or LF in a command; lines end with CR LF"})
		default:
			return command{}, err
		}
		if c.closing {
			return command{}, errClosing
		}
	}
}

// take makes a command of a line and enters the connection among those that
// have spoken.
func (c *dialog) take(line []byte) (command, error) {
	if c.first {
		if isHTTP(line) {
			// A browser made to speak to us by some web page: nothing of what
			// it sends may become a command.
			c.linger = true
			c.deny("", mail.Reply{Code: 421, Enhanced: "4.7.0", Text: "this is not a web server"})
			return command{}, errClosing
		}
		if !c.door.heard(c) {
			return command{}, errWoken
		}
		c.first = false
	}
	return parseCommand(line), nil
}

// parseCommand splits a line into verb and argument.
func parseCommand(line []byte) command {
	word, arg, _ := bytes.Cut(line, []byte{' '})
	var up [8]byte
	if len(word) > len(up) {
		return command{arg: line}
	}
	for i, b := range word {
		if 'a' <= b && b <= 'z' {
			b -= 'a' - 'A'
		}
		up[i] = b
	}
	return command{verb: knownVerb(up[:len(word)]), arg: bytes.Trim(arg, " ")}
}

// knownVerb returns the constant, so that verbs cost no allocation.
func knownVerb(up []byte) string {
	switch string(up) {
	case "EHLO":
		return "EHLO"
	case "HELO":
		return "HELO"
	case "MAIL":
		return "MAIL"
	case "RCPT":
		return "RCPT"
	case "DATA":
		return "DATA"
	case "BDAT":
		return "BDAT"
	case "RSET":
		return "RSET"
	case "NOOP":
		return "NOOP"
	case "QUIT":
		return "QUIT"
	case "VRFY":
		return "VRFY"
	case "EXPN":
		return "EXPN"
	case "HELP":
		return "HELP"
	case "AUTH":
		return "AUTH"
	case "STARTTLS":
		return "STARTTLS"
	}
	return ""
}

// isAuth reports the command that may be longer than others (RFC 4954 4).
func isAuth(line []byte) bool {
	return bytes.EqualFold(line[:4], []byte("AUTH"))
}

// isHTTP reports the first line of an HTTP request.
func isHTTP(line []byte) bool {
	word, _, _ := bytes.Cut(line, []byte{' '})
	switch string(word) {
	case "GET", "POST", "PUT", "HEAD", "DELETE", "OPTIONS", "CONNECT", "TRACE", "PATCH", "PRI":
		return true
	}
	return false
}

// readLine waits for a line and returns it without its CR LF. Only CR LF ends
// it. A bare LF is answered as soon as it is seen, for a client that sends
// those would wait for ever; what follows it up to the next CR LF is part of
// the same bad line and never a command.
func (c *dialog) readLine(limit int) ([]byte, error) {
	c.expect(0)
	if c.skipping {
		if err := c.skipLine(); err != nil {
			return nil, err
		}
	}
	for seen := 0; ; {
		data := c.in.data()
		if i := bytes.Index(data[seen:], crlf); i >= 0 {
			line := data[:seen+i]
			c.in.skip(len(line) + 2)
			return line, checkLine(line, limit)
		}
		if bytes.IndexByte(data[seen:], '\n') >= 0 {
			c.skipping = true
			c.in.skip(len(data) - trailingCR(data))
			return nil, errLineBare
		}
		if len(data) > limit+1 {
			if err := c.skipLine(); err != nil {
				return nil, err
			}
			return nil, errLineLong
		}
		seen = len(data) - trailingCR(data)
		if err := c.awaitLine(); err != nil {
			return nil, err
		}
	}
}

// awaitLine fills the input within the time that one whole line may take.
func (c *dialog) awaitLine() error {
	if c.until.IsZero() {
		c.expect(c.commandPatience())
	}
	return c.fill()
}

// commandPatience is how long to wait for a command.
func (c *dialog) commandPatience() time.Duration {
	if c.first && c.door.crowded() {
		return c.rules.FirstCommandTimeout
	}
	return c.rules.CommandTimeout
}

// skipLine throws away the rest of a line that has been or will be refused.
func (c *dialog) skipLine() error {
	told := c.skipping // that lines end with CR LF
	c.skipping = true
	for skipped := 0; skipped < maxSkipped; {
		data := c.in.data()
		if i := bytes.Index(data, crlf); i >= 0 {
			c.in.skip(i + 2)
			c.skipping = false
			return nil
		}
		if told && bytes.IndexByte(data, '\n') >= 0 {
			return errNoLineEnds
		}
		n := len(data) - trailingCR(data)
		c.in.skip(n)
		skipped += n
		if err := c.awaitLine(); err != nil {
			return err
		}
	}
	return errFlood
}

// trailingCR is 1 when what follows decides about p's last byte.
func trailingCR(p []byte) int {
	if len(p) > 0 && p[len(p)-1] == '\r' {
		return 1
	}
	return 0
}

func checkLine(line []byte, limit int) error {
	switch {
	case len(line) > limit:
		return errLineLong
	case bytes.IndexByte(line, '\n') >= 0 || bytes.IndexByte(line, '\r') >= 0:
		return errLineBare
	}
	return nil
}
