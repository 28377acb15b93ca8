package smtp

import (
	"bytes"
	"strconv"
	"strings"

	"github.com/sallyport-mail/sallyport/internal/mail"
)

// Limits of RFC 3461 5.4, and of our own for what becomes part of a DSN.
const (
	maxEnvID = 100
	maxORcpt = 500
)

func badSyntax() *mail.Reply {
	return &mail.Reply{Code: 501, Enhanced: "5.5.4", Text: "syntax error in parameters"}
}
func badParameter() *mail.Reply {
	return &mail.Reply{Code: 555, Enhanced: "5.5.4", Text: "parameter not recognized"}
}
func twice() *mail.Reply {
	return &mail.Reply{Code: 501, Enhanced: "5.5.4", Text: "parameter given twice"}
}
func binaryRefused() *mail.Reply {
	return &mail.Reply{Code: 504, Enhanced: "5.6.1", Text: "BINARYMIME is not supported"}
}

// cutPath splits "<path> PARAMS" at the angle bracket that ends the path: one
// in a quoted local part is part of it (RFC 5321 4.1.2).
func cutPath(arg []byte) (path, params []byte, ok bool) {
	arg = bytes.TrimLeft(arg, " ")
	if len(arg) == 0 || arg[0] != '<' {
		return nil, nil, false
	}
	quoted := false
	for i := 1; i < len(arg); i++ {
		switch c := arg[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case c == '>' && !quoted:
			path, params = arg[1:i], arg[i+1:]
			return path, params, len(params) == 0 || params[0] == ' '
		}
	}
	return nil, nil, false
}

// stripRoute takes a source route off, as RFC 5321 3.3 and appendix C want:
// "@a.example,@b.example:user@c.example".
func stripRoute(path []byte) []byte {
	if len(path) == 0 || path[0] != '@' {
		return path
	}
	if i := bytes.IndexByte(path, ':'); i >= 0 {
		return path[i+1:]
	}
	return path
}

// eachParam calls f with every "KEY=value" of params; keys in upper case, has
// false where there is no "=". It stops at the first reply that is not nil.
func eachParam(params []byte, f func(key, value string, has bool) *mail.Reply) *mail.Reply {
	for rest := string(params); ; {
		rest = strings.TrimLeft(rest, " ")
		if rest == "" {
			return nil
		}
		var word string
		word, rest, _ = strings.Cut(rest, " ")
		key, value, has := strings.Cut(word, "=")
		if key == "" || has && value == "" {
			return badSyntax()
		}
		if r := f(strings.ToUpper(key), value, has); r != nil {
			return r
		}
	}
}

// fromParams reads the parameters of MAIL. auth says whether AUTH= may be
// there (RFC 4954 5); its value is of no use here.
func fromParams(params []byte, auth bool) (p mail.FromParams, bad *mail.Reply) {
	var seen seenKeys
	bad = eachParam(params, func(key, value string, has bool) *mail.Reply {
		if seen.again(key) {
			return twice()
		}
		switch key {
		case "SIZE":
			return parseSize(value, &p.Size)
		case "BODY":
			return parseBody(value, &p.Body)
		case "SMTPUTF8":
			p.UTF8 = true
			return when(has, badSyntax)
		case "RET":
			p.Ret = strings.ToUpper(value)
			return when(p.Ret != "FULL" && p.Ret != "HDRS", badSyntax)
		case "ENVID":
			var ok bool
			p.EnvID, ok = decodeXtext(value)
			return when(!ok || len(value) > maxEnvID || value == "", badSyntax)
		case "AUTH":
			return when(!auth || !has, badParameter)
		}
		return badParameter()
	})
	return p, bad
}

// rcptParams reads the parameters of RCPT (RFC 3461 4.1, 4.2).
func rcptParams(params []byte, to *mail.Recipient) *mail.Reply {
	var seen seenKeys
	return eachParam(params, func(key, value string, _ bool) *mail.Reply {
		if seen.again(key) {
			return twice()
		}
		switch key {
		case "NOTIFY":
			var ok bool
			to.Notify, ok = parseNotify(value)
			return when(!ok, badSyntax)
		case "ORCPT":
			var ok bool
			to.ORcpt, ok = parseORcpt(value)
			return when(!ok, badSyntax)
		}
		return badParameter()
	})
}

func when(cond bool, reply func() *mail.Reply) *mail.Reply {
	if cond {
		return reply()
	}
	return nil
}

// seenKeys remembers the few parameters that exist, to refuse a second one.
type seenKeys struct {
	keys [8]string
	n    int
}

func (s *seenKeys) again(key string) bool {
	for _, k := range s.keys[:s.n] {
		if k == key {
			return true
		}
	}
	if s.n < len(s.keys) {
		s.keys[s.n] = key
		s.n++
	}
	return false
}

// parseSize reads size-value of RFC 1870 3: up to 20 digits.
func parseSize(value string, into *int64) *mail.Reply {
	if len(value) > 20 || !isDigits(value) {
		return badSyntax()
	}
	n, err := strconv.ParseInt(value, 10, 64)
	if err != nil {
		n = 1<<63 - 1 // 20 digits do not fit, and are too many in any case
	}
	*into = n
	return nil
}

func parseBody(value string, into *string) *mail.Reply {
	switch v := strings.ToUpper(value); v {
	case "7BIT", "8BITMIME":
		*into = v
		return nil
	case "BINARYMIME":
		return binaryRefused()
	}
	return badSyntax()
}

// parseNotify reads NEVER alone or a list of the others without repetition.
func parseNotify(value string) (string, bool) {
	value = strings.ToUpper(value)
	if value == "NEVER" {
		return value, true
	}
	var seen seenKeys
	for _, word := range strings.Split(value, ",") {
		if word != "SUCCESS" && word != "FAILURE" && word != "DELAY" || seen.again(word) {
			return "", false
		}
	}
	return value, true
}

// parseORcpt reads "addr-type;xtext" and returns it decoded.
func parseORcpt(value string) (string, bool) {
	kind, addr, ok := strings.Cut(value, ";")
	if !ok || kind == "" || addr == "" || len(value) > maxORcpt || !isAtom(kind) {
		return "", false
	}
	addr, ok = decodeXtext(addr)
	return strings.ToLower(kind) + ";" + addr, ok
}

func isDigits(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return s != ""
}

func isAtom(s string) bool {
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c != '-' && (c < '0' || c > '9') && (c|0x20 < 'a' || c|0x20 > 'z') {
			return false
		}
	}
	return true
}

// decodeXtext undoes xtext (RFC 3461 4). Control characters are refused in
// either form: the value ends up in header fields of a DSN.
func decodeXtext(s string) (string, bool) {
	var out []byte
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c == '+' {
			v, ok := hexPair(s[i+1:])
			if !ok {
				return "", false
			}
			if out == nil {
				out = append(make([]byte, 0, len(s)), s[:i]...)
			}
			c, i = v, i+2
		} else if c <= ' ' || c == '=' {
			return "", false
		}
		if c < ' ' || c == 0x7f {
			return "", false
		}
		if out != nil {
			out = append(out, c)
		}
	}
	if out == nil {
		return s, true
	}
	return string(out), true
}

func hexPair(s string) (byte, bool) {
	if len(s) < 2 || strings.ContainsAny(s[:2], "abcdef+-_") {
		return 0, false
	}
	v, err := strconv.ParseUint(s[:2], 16, 8)
	return byte(v), err == nil
}

// appendXtext writes s as xtext.
func appendXtext(dst []byte, s string) []byte {
	const hex = "0123456789ABCDEF"
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c < '!' || c > '~' || c == '+' || c == '=' {
			dst = append(dst, '+', hex[c>>4], hex[c&15])
			continue
		}
		dst = append(dst, c)
	}
	return dst
}
