package mail

import (
	"net/netip"
	"strings"
	"time"
)

// dateLayout is RFC 5322 3.3 with a numeric zone.
const dateLayout = "Mon, 02 Jan 2006 15:04:05 -0700"

// width is where lines of ours are folded (RFC 5322 2.1.1).
const width = 78

// Received is the trace field that we put before a message (RFC 5321 4.4).
// What the client chose itself, its hello name first of all, is made harmless
// when it is written.
type Received struct {
	Hello   string     // what the client called itself
	IP      netip.Addr // where it really connects from
	By      string     // our name
	With    string     // see Protocol
	Version string     // TLS version, "TLS1.3", "" in clear
	Cipher  string     // cipher suite for the tls clause (RFC 8314 4.3)
	ID      string     // our id of the message
	For     Address    // only where there is a single recipient: the others are nobody's business
	Mark    string     // a comment of ours by which ScanHeader finds this field again, "" for none
	Time    time.Time
}

// Protocol is the word for Received.With (RFC 3848, RFC 6531 4.3).
func Protocol(esmtp, utf8, tls, auth bool) string {
	switch {
	case !esmtp:
		return "SMTP"
	case utf8:
		return protocolUTF8(tls, auth)
	case tls && auth:
		return "ESMTPSA"
	case tls:
		return "ESMTPS"
	case auth:
		return "ESMTPA"
	}
	return "ESMTP"
}

func protocolUTF8(tls, auth bool) string {
	switch {
	case tls && auth:
		return "UTF8SMTPSA"
	case tls:
		return "UTF8SMTPS"
	case auth:
		return "UTF8SMTPA"
	}
	return "UTF8SMTP"
}

// Append appends the field with its line end, folded where a line would grow
// beyond 78 columns.
func (r Received) Append(dst []byte) []byte {
	f := folder{out: append(dst, "Received:"...), column: len("Received:")}
	f.word("from", helloName(r.Hello))
	if r.IP.IsValid() {
		f.atom("(" + ipLiteral(r.IP) + ")")
	}
	f.word("by", helloName(r.By))
	f.word("with", r.With)
	f.word("id", r.ID)
	if r.For.Domain != "" && (!r.For.NeedsUTF8() || strings.HasPrefix(r.With, "UTF8")) {
		f.word("for", "<"+r.For.String()+">")
	}
	f.word("tls", r.Cipher)
	if r.Version != "" {
		f.atom("(" + harmless(r.Version) + ")")
	}
	if r.Mark != "" {
		f.atom("(" + harmless(r.Mark) + ")")
	}
	return f.end(r.Time)
}

// helloName makes a name harmless that a client is free to choose. Only what
// names and literals are made of may start a comment or another clause.
func helloName(s string) string {
	if s == "" {
		return "unknown"
	}
	if len(s) > maxDomain {
		s = s[:maxDomain]
	}
	return strings.Map(func(r rune) rune {
		if r < 128 && isAtext(byte(r)) || r == '.' || r == ':' || r == '[' || r == ']' {
			return r
		}
		return '?'
	}, s)
}

// harmless keeps a word inside its comment and its line.
func harmless(s string) string {
	return strings.Map(func(r rune) rune {
		if r <= ' ' || r > '~' || r == '(' || r == ')' || r == '\\' {
			return '?'
		}
		return r
	}, s)
}

func ipLiteral(ip netip.Addr) string {
	ip = ip.Unmap().WithZone("")
	if ip.Is4() {
		return "[" + ip.String() + "]"
	}
	return "[IPv6:" + ip.String() + "]"
}

// folder writes atoms parted by spaces and folds before the one that would
// not fit.
type folder struct {
	out    []byte
	column int
}

// word writes a clause, keyword and value on the same line; none when the
// value is empty.
func (f *folder) word(key, value string) {
	if value == "" {
		return
	}
	f.space(len(key) + 1 + len(value))
	f.out = append(f.out, key...)
	f.out = append(f.out, ' ')
	f.text(value)
	f.column += len(key) + 1 + len(value)
}

func (f *folder) atom(s string) {
	f.space(len(s))
	f.text(s)
	f.column += len(s)
}

// space parts from what stands before: by folding when n more columns and a
// semicolon do not fit.
func (f *folder) space(n int) {
	if f.column+1+n >= width {
		f.out = append(f.out, "\r\n\t"...)
		f.column = 8
		return
	}
	f.out = append(f.out, ' ')
	f.column++
}

// text is the last guard against a line end from outside.
func (f *folder) text(s string) {
	for i := 0; i < len(s); i++ {
		if c := s[i]; c >= ' ' && c != 0x7f {
			f.out = append(f.out, c)
		} else {
			f.out = append(f.out, '?')
		}
	}
}

func (f *folder) end(t time.Time) []byte {
	f.out = append(f.out, ';')
	f.column++
	f.space(len(dateLayout))
	f.out = t.AppendFormat(f.out, dateLayout)
	return append(f.out, '\r', '\n')
}
