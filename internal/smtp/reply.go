package smtp

import (
	"strconv"
	"strings"

	"github.com/sallyport-mail/sallyport/internal/mail"
)

// replyLine is how long a line of a reply may be without CR LF, of the 512
// octets of RFC 5321 4.5.3.1.5.
const replyLine = 510

// appendReply writes r as SMTP does. With enhanced, a code of RFC 2034 goes
// before every line's text, a general one where the session gave none.
func appendReply(dst []byte, r mail.Reply, enhanced bool) []byte {
	code := r.Code
	if code < 200 || code > 599 {
		code = 451 // a session's mistake must not become a protocol error
	}
	prefix := ""
	if enhanced && code/100 != 3 {
		prefix = enhancedOf(code, r.Enhanced) + " "
	}
	room := replyLine - 4 - len(prefix)
	rest := r.Text
	for {
		line, more, broken := strings.Cut(rest, "\n")
		if len(line) > room {
			more, broken = rest[room:], true
			line = rest[:room]
		}
		dst = strconv.AppendInt(dst, int64(code), 10)
		dst = append(dst, separator(broken))
		dst = append(dst, prefix...)
		dst = append(appendText(dst, line), '\r', '\n')
		if !broken {
			return dst
		}
		rest = more
	}
}

func separator(more bool) byte {
	if more {
		return '-'
	}
	return ' '
}

// enhancedOf is the enhanced code to send: its class must be the reply's
// (RFC 2034 4).
func enhancedOf(code int, enhanced string) string {
	if len(enhanced) > 4 && int(enhanced[0]-'0') == code/100 {
		return enhanced
	}
	switch code / 100 {
	case 2:
		return "2.0.0"
	case 4:
		return "4.0.0"
	default:
		return "5.0.0"
	}
}

// appendText writes text of which some may come from the peer: nothing but
// printable ASCII gets out, so that no reply holds a line of somebody else's.
func appendText(dst []byte, text string) []byte {
	for i := 0; i < len(text); i++ {
		c := text[i]
		if c < ' ' || c > '~' {
			c = '?'
		}
		dst = append(dst, c)
	}
	return dst
}
