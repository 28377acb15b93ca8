package mail

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// maxDiagnostic bounds what of a remote server's words is passed on.
const maxDiagnostic = 800

// statusPart is the part that machines read (RFC 3464 2.1).
func (d DSN) statusPart() part {
	s := statusWriter{global: d.NeedsUTF8()}
	s.field("Reporting-MTA", "dns; "+d.Reporting)
	s.field("Original-Envelope-Id", d.EnvID)
	s.date("Arrival-Date", d.Arrived)
	for _, r := range d.Recipients {
		s.b.WriteString("\r\n")
		s.recipient(d, r)
	}
	if s.global {
		return part{kind: "message/global-delivery-status", encoding: "8bit", body: s.b.Bytes()}
	}
	return part{kind: "message/delivery-status", body: s.b.Bytes()}
}

// statusWriter writes fields. When global is false it writes ASCII only.
type statusWriter struct {
	b      bytes.Buffer
	global bool
}

// recipient writes the fields of one recipient in the order of RFC 3464 2.3.
func (s *statusWriter) recipient(d DSN, r DSNRecipient) {
	if r.ORcpt != "" {
		s.field("Original-Recipient", s.originalRecipient(r.ORcpt))
	}
	s.field("Final-Recipient", s.finalRecipient(r.Address))
	s.field("Action", d.Kind)
	s.field("Status", r.status(d.Kind))
	if r.Remote != "" {
		s.field("Remote-MTA", "dns; "+r.Remote)
	}
	s.field("Diagnostic-Code", r.diagnostic())
	s.date("Last-Attempt-Date", r.LastTry)
	if d.Kind == dsnDelayed {
		s.date("Will-Retry-Until", d.WillRetry)
	}
}

func (s *statusWriter) finalRecipient(a Address) string {
	if !a.NeedsUTF8() {
		return "rfc822; " + a.String()
	}
	return "utf-8; " + s.address(a.String())
}

// originalRecipient gives the ORCPT back as it was said (RFC 3461 6.3).
func (s *statusWriter) originalRecipient(orcpt string) string {
	kind, address, ok := strings.Cut(orcpt, ";")
	if !ok {
		kind, address = "rfc822", orcpt
	}
	if !isASCII(address) {
		kind, address = "utf-8", s.address(address)
	}
	return strings.TrimSpace(kind) + ";" + strings.TrimSpace(address)
}

// address writes a UTF-8 address: as it is, or as utf-8-addr-xtext, where
// everything but QCHAR is \x{HEX} (RFC 6533 3).
func (s *statusWriter) address(a string) string {
	if s.global {
		return a
	}
	var b strings.Builder
	for _, r := range a {
		if r > ' ' && r <= '~' && r != '+' && r != '=' && r != '\\' {
			b.WriteRune(r)
		} else {
			fmt.Fprintf(&b, `\x{%02X}`, r)
		}
	}
	return b.String()
}

// status is the Status field: the enhanced code, else what the reply's first
// digit or the action says (RFC 3463 2). Where no server answered at all it
// is a matter of the network (X.4.0).
func (r DSNRecipient) status(kind string) string {
	if n := enhancedLength(r.Reply.Enhanced); n > 0 && n == len(r.Reply.Enhanced) {
		return r.Reply.Enhanced
	}
	switch {
	case kind == dsnDelivered || kind == dsnRelayed:
		return "2.0.0"
	case r.Reply.Code == 0 && kind == dsnDelayed:
		return "4.4.0"
	case r.Reply.Code == 0:
		return "5.4.0"
	case r.Reply.Temporary() || kind == dsnDelayed:
		return "4.0.0"
	}
	return "5.0.0"
}

// diagnostic is the reply as it was heard. The type "smtp" promises real
// words of a server; where none answered the text is ours.
func (r DSNRecipient) diagnostic() string {
	text := strings.Join(strings.Fields(r.Reply.Text), " ")
	if r.Reply.Code == 0 {
		if text == "" {
			return ""
		}
		return "x-sallyport; " + text
	}
	s := "smtp; " + strconv.Itoa(r.Reply.Code)
	if r.Reply.Enhanced != "" {
		s += " " + r.Reply.Enhanced
	}
	return s + " " + text
}

func (s *statusWriter) date(name string, t time.Time) {
	if !t.IsZero() {
		s.field(name, t.Format(dateLayout))
	}
}

// field writes one field, folded between words; a value that is empty after
// cleaning gives no field, for an empty line would end the group.
func (s *statusWriter) field(name, value string) {
	value = clean(value, maxDiagnostic)
	if !s.global {
		value = asciiOnly(value)
	}
	if value == "" {
		return
	}
	s.b.WriteString(name + ":")
	column := len(name) + 1
	for i, word := range strings.Fields(value) {
		if i > 0 && column+1+len(word) > width {
			s.b.WriteString("\r\n\t")
			column = 8
		} else {
			s.b.WriteByte(' ')
			column++
		}
		s.b.WriteString(word)
		column += len(word)
	}
	s.b.WriteString("\r\n")
}

// asciiOnly puts a question mark for what ASCII has not.
func asciiOnly(s string) string {
	return strings.Map(func(r rune) rune {
		if r >= utf8.RuneSelf {
			return '?'
		}
		return r
	}, s)
}
