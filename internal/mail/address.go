package mail

import (
	"net/netip"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"

	"github.com/sallyport-mail/sallyport/internal/fault"
)

// maxMailbox is the limit of RFC 5321 4.5.3.1.3, in octets: a path is 256 with
// its brackets. The 64 octets that 4.5.3.1.1 allows a local part are not
// enforced: real senders with variable return paths exceed them, and others
// take their mail.
const maxMailbox = 254

// Address is a mailbox (RFC 5321 4.1.2). Local is kept as it was written, for
// it travels unchanged; Domain is the A-label form in lower case, or an
// address literal in brackets. The zero Address is the null path <>.
type Address struct {
	Local  string `json:"local"`
	Domain string `json:"domain"`
}

// IsNull reports the null reverse-path <>.
func (a Address) IsNull() bool { return a.Local == "" && a.Domain == "" }

// IsLiteral reports an address literal, user@[192.0.2.1]: such an address
// names a host and no domain (RFC 5321 4.1.3).
func (a Address) IsLiteral() bool { return strings.HasPrefix(a.Domain, "[") }

// IsBarePostmaster reports the one recipient that needs no domain (RFC 5321
// 4.1.1.3). ParseAddress refuses it; whoever reads RCPT asks here first and
// puts in a domain of its own.
func IsBarePostmaster(s string) bool { return strings.EqualFold(s, "postmaster") }

// ParseAddress reads a mailbox without angle brackets, "local@domain".
// Source routes, "%" and "!" are not interpreted (RFC 5321 3.6.1). The error
// is of kind invalid.
func ParseAddress(s string) (Address, error) {
	a, problem := parseMailbox(s)
	if problem != "" {
		return Address{}, fault.New(fault.Invalid, "mail.ParseAddress", problem).
			WithHint("Write the address as local@domain.")
	}
	return a, nil
}

// parseMailbox is ParseAddress with the problem as a sentence, "" for none.
func parseMailbox(s string) (Address, string) {
	at, problem := scanLocal(s)
	if problem != "" {
		return Address{}, problem
	}
	a := Address{Local: s[:at]}
	if s[at+1:] == "" {
		return Address{}, "the address has no domain"
	}
	if s[at+1] == '[' {
		a.Domain, problem = parseLiteral(s[at+1:])
	} else {
		a.Domain, problem = asciiDomain(s[at+1:])
	}
	if problem != "" {
		return Address{}, problem
	}
	if len(a.Local)+1+len(a.Domain) > maxMailbox {
		return Address{}, "the address is longer than 254 octets"
	}
	return a, ""
}

// scanLocal finds the "@" that ends the local part and says what is wrong
// with what stands before it.
func scanLocal(s string) (at int, problem string) {
	if s == "" {
		return 0, "the address is empty"
	}
	if s[0] == '"' {
		at, problem = scanQuoted(s)
	} else {
		at, problem = scanDotString(s)
	}
	if problem != "" {
		return 0, problem
	}
	return at, utf8Problem(s[:at])
}

// scanDotString reads Dot-string (RFC 5321 4.1.2, RFC 6531 3.3) up to "@".
func scanDotString(s string) (at int, problem string) {
	atomStart := 0
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '.' || c == '@':
			if i == atomStart {
				return 0, "the local part is empty or has a dot at its end or two in a row"
			}
			if c == '@' {
				return i, ""
			}
			atomStart = i + 1
		case isAtext(c) || c >= utf8.RuneSelf:
		default:
			return 0, "the local part has a character that needs quotes"
		}
	}
	return 0, "the address has no @"
}

// scanQuoted reads Quoted-string up to the "@" behind it. A control character
// is refused in either of its forms: qtextSMTP and quoted-pairSMTP begin at
// the space (RFC 5321 4.1.2).
func scanQuoted(s string) (at int, problem string) {
	for i := 1; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"':
			if i+1 == len(s) || s[i+1] != '@' {
				return 0, "something stands between the quoted local part and the @"
			}
			return i + 1, ""
		case c == '\\':
			i++
			if i == len(s) || s[i] < ' ' || s[i] > '~' {
				return 0, "the local part has a backslash before what cannot be quoted"
			}
		case c < ' ' || c == 0x7f:
			return 0, "the local part has a control character"
		}
	}
	return 0, "the quoted local part has no end"
}

// Bit sets of the ASCII characters that atext (RFC 5322 3.2.3) allows.
const (
	atextLow  uint64 = 1<<'!' | 1<<'#' | 1<<'$' | 1<<'%' | 1<<'&' | 1<<'\'' | 1<<'*' | 1<<'+' | 1<<'-' | 1<<'/' | 1<<'=' | 1<<'?' | 0x3ff<<'0'
	atextHigh uint64 = 1<<('^'-64) | 1<<('_'-64) | 1<<('`'-64) | 1<<('{'-64) | 1<<('|'-64) | 1<<('}'-64) | 1<<('~'-64) | 0x3ffffff<<('A'-64) | 0x3ffffff<<('a'-64)
)

func isAtext(c byte) bool {
	if c < 64 {
		return atextLow>>c&1 != 0
	}
	return c < 128 && atextHigh>>(c-64)&1 != 0
}

// utf8Problem refuses what is not UTF-8 and the control characters of C1,
// which no terminal or log should be handed.
func utf8Problem(s string) string {
	if isASCII(s) {
		return ""
	}
	if !utf8.ValidString(s) {
		return "the local part is not UTF-8"
	}
	if strings.IndexFunc(s, unicode.IsControl) >= 0 {
		return "the local part has a control character"
	}
	return ""
}

func isASCII(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// parseLiteral reads [192.0.2.1] or [IPv6:2001:db8::1] (RFC 5321 4.1.3) and
// returns its canonical form.
func parseLiteral(s string) (string, string) {
	const tag = "IPv6:"
	const problem = "the address literal is none"
	if len(s) < 2 || s[len(s)-1] != ']' {
		return "", problem
	}
	in := s[1 : len(s)-1]
	six := len(in) > len(tag) && strings.EqualFold(in[:len(tag)], tag)
	if six {
		in = in[len(tag):]
	}
	ip, err := netip.ParseAddr(in)
	if err != nil || ip.Is4() == six || ip.Zone() != "" {
		return "", problem
	}
	if six {
		return "[" + tag + ip.String() + "]", ""
	}
	return "[" + ip.String() + "]", ""
}

// String is the address as SMTP writes it between angle brackets.
func (a Address) String() string {
	if a.Domain == "" {
		return a.Local // the null path, or the bare postmaster
	}
	return a.Local + "@" + a.Domain
}

// Key is the form in which two addresses of the same mailbox compare equal
// here: local part folded to lower case, unquoted where it needs no quotes.
func (a Address) Key() string {
	local := a.Local
	if strings.HasPrefix(local, `"`) {
		local = requote(local)
	}
	if isASCII(local) {
		local = strings.ToLower(local)
	} else {
		// The same letters may be composed or not (RFC 6530 10.1). Folding can
		// take a composition apart, hence the order.
		local = norm.NFC.String(strings.ToLower(local))
	}
	return Address{Local: local, Domain: a.Domain}.String()
}

// requote takes a quoted string's quotes off, or where it needs them writes
// it with no more backslashes than it must have.
func requote(quoted string) string {
	plain := unquote(quoted)
	if at, problem := scanDotString(plain + "@"); problem == "" && at == len(plain) {
		return plain
	}
	var b strings.Builder
	b.WriteByte('"')
	for i := 0; i < len(plain); i++ {
		if plain[i] == '"' || plain[i] == '\\' {
			b.WriteByte('\\')
		}
		b.WriteByte(plain[i])
	}
	b.WriteByte('"')
	return b.String()
}

func unquote(quoted string) string {
	in := strings.TrimSuffix(quoted[1:], `"`)
	if strings.IndexByte(in, '\\') < 0 {
		return in
	}
	b := make([]byte, 0, len(in))
	for i := 0; i < len(in); i++ {
		if in[i] == '\\' && i+1 < len(in) {
			i++
		}
		b = append(b, in[i])
	}
	return string(b)
}

// NeedsUTF8 reports whether the address can travel only with SMTPUTF8.
func (a Address) NeedsUTF8() bool { return !isASCII(a.Local) || !isASCII(a.Domain) }
