package smtp

import (
	"bytes"
	"strings"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/mail"
)

// Bounds of a reply: one that goes beyond is no reply.
const (
	maxReplyLines = 100
	maxReplyBytes = 64 << 10
)

var (
	// ErrReply: what the server sent is no SMTP reply.
	ErrReply = fault.New(fault.Later, "smtp.Client", "malformed reply")
	// ErrReplyTooLong: the server's reply has no end.
	ErrReplyTooLong = fault.New(fault.Later, "smtp.Client", "reply without end")

	errUnasked    = fault.New(fault.Later, "smtp.Client", "the server said something that was not asked")
	errLeave      = fault.New(fault.Later, "smtp.Client", "the server has closed the connection with 421")
	errClosed     = fault.New(fault.Internal, "smtp.Client", "connection is closed")
	errRefused    = fault.New(fault.Never, "smtp.Client", "refused")
	errEnvelope   = fault.New(fault.Invalid, "smtp.Send", "the envelope has a line end in it")
	errNotOffered = fault.New(fault.Never, "smtp.Client", "STARTTLS is required and not offered")
)

// parseReply reads one whole reply from the front of b (RFC 5321 4.2). n is
// its length, 0 while b does not hold all of it.
func parseReply(b []byte) (r mail.Reply, n int, err error) {
	var text strings.Builder
	for lines := 1; ; lines++ {
		end := bytes.IndexByte(b[n:], '\n')
		if end < 0 {
			if len(b) > maxReplyBytes {
				return mail.Reply{}, 0, ErrReplyTooLong
			}
			return mail.Reply{}, 0, plausible(b[n:])
		}
		if n+end > maxReplyBytes || lines > maxReplyLines {
			return mail.Reply{}, 0, ErrReplyTooLong
		}
		code, last, rest, ok := replyParts(b[n : n+end+1])
		if !ok || r.Code != 0 && code != r.Code {
			return mail.Reply{}, 0, ErrReply
		}
		n += end + 1
		enhanced, words := cutEnhanced(code, rest)
		if r.Code == 0 && last {
			return oneLine(code, enhanced, rest), n, nil
		}
		if r.Code == 0 {
			r.Code, r.Enhanced = code, string(enhanced)
		} else {
			text.WriteByte('\n')
		}
		text.Write(words)
		if last {
			r.Text = clean(text.String())
			return r, n, nil
		}
	}
}

// oneLine is the usual reply, with one allocation for its text and code.
func oneLine(code int, enhanced, rest []byte) mail.Reply {
	s := string(rest)
	r := mail.Reply{Code: code, Text: s}
	if n := len(enhanced); n > 0 {
		r.Enhanced, r.Text = s[:n], strings.TrimPrefix(s[n:], " ")
	}
	r.Text = clean(r.Text)
	return r
}

// plausible refuses a beginning that no reply has, so that a peer of another
// protocol is not waited for.
func plausible(b []byte) error {
	for i := 0; i < len(b) && i < 3; i++ {
		if b[i] < '0' || b[i] > '9' {
			return ErrReply
		}
	}
	return nil
}

// replyParts reads one line with its CR LF: code, "-" or " ", text.
func replyParts(line []byte) (code int, last bool, text []byte, ok bool) {
	if len(line) < 5 || line[len(line)-2] != '\r' {
		return 0, false, nil, false
	}
	line = line[:len(line)-2]
	for _, b := range line[:3] {
		if b < '0' || b > '9' {
			return 0, false, nil, false
		}
		code = code*10 + int(b-'0')
	}
	if code < 200 || code > 599 {
		return 0, false, nil, false
	}
	if len(line) == 3 {
		return code, true, nil, true
	}
	switch line[3] {
	case ' ':
		return code, true, line[4:], true
	case '-':
		return code, false, line[4:], true
	}
	return 0, false, nil, false
}

// cutEnhanced splits "5.1.1 text" (RFC 2034 4, RFC 3463 2); the code's class
// must be the reply's.
func cutEnhanced(code int, text []byte) (enhanced, rest []byte) {
	i := 1
	if len(text) < 5 || int(text[0]-'0') != code/100 {
		return nil, text
	}
	for range 2 {
		if i >= len(text) || text[i] != '.' {
			return nil, text
		}
		i++
		from := i
		for i < len(text) && i-from < 3 && '0' <= text[i] && text[i] <= '9' {
			i++
		}
		if i == from {
			return nil, text
		}
	}
	if i == len(text) {
		return text, nil
	}
	if text[i] != ' ' {
		return nil, text
	}
	return text[:i], text[i+1:]
}

// clean makes text of a peer fit to be stored and shown: UTF-8, no control
// characters but the line feeds between its lines.
func clean(s string) string {
	for i := 0; i < len(s); i++ {
		if c := s[i]; c < ' ' && c != '\n' || c > '~' {
			return cleanSlow(s)
		}
	}
	return s
}

func cleanSlow(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' && r != '\n' || r >= 0x7f && r < 0xa0 {
			return '?'
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
}
