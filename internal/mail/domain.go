package mail

import (
	"strings"
	"unicode/utf8"

	"golang.org/x/net/idna"

	"github.com/sallyport-mail/sallyport/internal/fault"
)

// Limits of RFC 1035 2.3.4. A name of 255 octets on the wire has 253 in text.
const (
	maxDomain = 253
	maxLabel  = 63
)

// ParseDomain returns a domain name in A-label form and lower case (RFC 5891),
// without a trailing dot; invalid names give an error of kind invalid.
func ParseDomain(s string) (string, error) {
	d, problem := asciiDomain(strings.TrimSuffix(s, "."))
	if problem != "" {
		return "", fault.New(fault.Invalid, "mail.ParseDomain", problem).
			WithHint("Write the domain as example.com.")
	}
	return d, nil
}

// asciiDomain returns the A-label form of a domain, or what is wrong with it.
// Nothing is allocated for a name in lower case ASCII.
func asciiDomain(s string) (string, string) {
	if !isASCII(s) {
		return convertDomain(s)
	}
	upper, problem := scanDomain(s)
	if problem != "" {
		return "", problem
	}
	if upper {
		s = strings.ToLower(s)
	}
	return s, ""
}

// convertDomain turns U-labels into A-labels as for a look-up (RFC 5891 5).
// What the mapping yields is checked like any other name, for compatibility
// forms of "@", "[" or "/" become the character itself.
func convertDomain(s string) (string, string) {
	if len(s) > maxDomain*utf8.UTFMax || !utf8.ValidString(s) {
		return "", "the domain is too long or not UTF-8"
	}
	lookup := idna.New(idna.MapForLookup(), idna.BidiRule(), idna.Transitional(false),
		idna.StrictDomainName(false), idna.CheckHyphens(false))
	ascii, err := lookup.ToASCII(s)
	if err != nil || !isASCII(ascii) {
		return "", "the domain is not an internationalised name (RFC 5891)"
	}
	return asciiDomain(ascii)
}

// scanDomain checks the labels of an ASCII name and reports upper case. The
// underscore is let through: names with it do send mail, and Postfix takes
// them. A name of digits alone is refused as Postfix does, for it is an
// address that somebody forgot to put in brackets (RFC 1123 2.1).
func scanDomain(s string) (upper bool, problem string) {
	if s == "" {
		return false, "the domain is empty"
	}
	if len(s) > maxDomain {
		return false, "the domain is longer than 253 octets"
	}
	numeric, start := true, 0
	for i := 0; i <= len(s); i++ {
		if i == len(s) || s[i] == '.' {
			if problem := labelProblem(s[start:i]); problem != "" {
				return false, problem
			}
			start = i + 1
			continue
		}
		switch c := s[i]; {
		case c >= '0' && c <= '9':
		case c >= 'a' && c <= 'z' || c == '-' || c == '_':
			numeric = false
		case c >= 'A' && c <= 'Z':
			numeric, upper = false, true
		default:
			return false, "the domain has a character that no domain has"
		}
	}
	if numeric {
		return false, "the domain has only digits"
	}
	return upper, ""
}

func labelProblem(label string) string {
	switch {
	case label == "":
		return "the domain has an empty label"
	case len(label) > maxLabel:
		return "the domain has a label longer than 63 octets"
	case label[0] == '-' || label[len(label)-1] == '-':
		return "the domain has a hyphen at the start or end of a label"
	}
	return ""
}
