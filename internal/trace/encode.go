package trace

import (
	"strconv"
	"time"
	"unicode/utf8"
)

// Every message pays for its events' JSON several times over, so what is
// written is appended by hand; a test holds it against encoding/json, which
// reads it back.

// AppendJSON appends a text as a JSON string (RFC 8259 7). Bytes that are no
// UTF-8 become U+FFFD.
func AppendJSON(dst []byte, s string) []byte {
	const hex = "0123456789abcdef"
	dst = append(dst, '"')
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c >= utf8.RuneSelf {
			r, n := utf8.DecodeRuneInString(s[i:])
			if r == utf8.RuneError && n == 1 {
				dst = append(append(dst, s[start:i]...), "\ufffd"...)
				start = i + 1
			}
			i += n
			continue
		}
		if c >= ' ' && c != '"' && c != '\\' {
			i++
			continue
		}
		dst = append(dst, s[start:i]...)
		switch c {
		case '"', '\\':
			dst = append(dst, '\\', c)
		case '\n':
			dst = append(dst, '\\', 'n')
		case '\r':
			dst = append(dst, '\\', 'r')
		case '\t':
			dst = append(dst, '\\', 't')
		default:
			dst = append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		}
		i++
		start = i
	}
	return append(append(dst, s[start:]...), '"')
}

// object appends the members of a JSON object.
type object struct {
	b     []byte
	begun bool
}

func (o *object) key(name string) {
	if o.begun {
		o.b = append(o.b, ',')
	}
	o.begun = true
	o.b = append(append(append(o.b, '"'), name...), '"', ':')
}

func (o *object) text(name, value string) {
	o.key(name)
	o.b = AppendJSON(o.b, value)
}

func (o *object) maybe(name string, value *string) {
	o.key(name)
	if value == nil {
		o.b = append(o.b, "null"...)
		return
	}
	o.b = AppendJSON(o.b, *value)
}

func (o *object) number(name string, value int64) {
	o.key(name)
	o.b = strconv.AppendInt(o.b, value, 10)
}

func (o *object) time(name string, t time.Time) {
	o.key(name)
	o.b = append(o.b, '"')
	o.b = t.UTC().AppendFormat(o.b, time.RFC3339Nano)
	o.b = append(o.b, '"')
}

func (m *Message) append(dst []byte) []byte {
	o := object{b: append(dst, '{')}
	o.text("id", m.ID)
	o.text("message_id", m.MessageID)
	o.text("tenant", m.Tenant)
	o.text("region", m.Region)
	o.text("direction", m.Direction)
	o.text("from", m.From)
	o.key("to")
	o.b = append(o.b, '[')
	for i, to := range m.To {
		if i > 0 {
			o.b = append(o.b, ',')
		}
		o.b = AppendJSON(o.b, to)
	}
	o.b = append(o.b, ']')
	o.text("subject", m.Subject)
	o.number("size", m.Size)
	o.time("received_at", m.ReceivedAt)
	o.text("state", m.State)
	return append(o.b, '}')
}

func (s *Step) append(dst []byte) []byte {
	o := object{b: append(dst, '{')}
	o.time("time", s.Time)
	o.text("step", s.Step)
	o.maybe("recipient", s.Recipient)
	o.maybe("peer", s.Peer)
	o.key("tls")
	o.b = s.TLS.append(o.b)
	o.key("code")
	if s.Code == nil {
		o.b = append(o.b, "null"...)
	} else {
		o.b = strconv.AppendInt(o.b, int64(*s.Code), 10)
	}
	o.maybe("enhanced", s.Enhanced)
	o.maybe("text", s.Text)
	return append(o.b, '}')
}

func (t *TLS) append(dst []byte) []byte {
	if t == nil {
		return append(dst, "null"...)
	}
	o := object{b: append(dst, '{')}
	o.text("version", t.Version)
	o.text("cipher", t.Cipher)
	o.key("verified")
	o.b = strconv.AppendBool(o.b, t.Verified)
	o.text("client", t.Client)
	return append(o.b, '}')
}

// appendSteps appends each step after a comma, as the column has them.
func appendSteps(dst []byte, steps []Step) []byte {
	for i := range steps {
		dst = steps[i].append(append(dst, ','))
	}
	return dst
}
