package mail

import (
	"bytes"
	"mime"
	"mime/quotedprintable"
	"strings"
	"time"
)

// DSN is a delivery status notification (RFC 3464) to be written.
type DSN struct {
	Kind       string  // "failed", "delayed", "delivered" or "relayed" (RFC 3464 2.3.3)
	Reporting  string  // our own name, Reporting-MTA
	From       string  // From field of the notification, a display form
	To         Address // the sender of the message that this is about
	MessageID  string  // of the notification itself
	EnvID      string  // Original-Envelope-Id
	Arrived    time.Time
	Now        time.Time
	WillRetry  time.Time // Will-Retry-Until, delayed only
	Recipients []DSNRecipient
	Original   []byte // the header section, or the whole message when Full
	Full       bool
	Boundary   string // unique per notification
}

// DSNRecipient is one recipient's part of a DSN.
type DSNRecipient struct {
	Address Address
	ORcpt   string
	Remote  string // host name of the remote MTA, may be empty
	Reply   Reply  // Diagnostic-Code and Status
	LastTry time.Time
}

// The kinds of notification (RFC 3464 2.3.3).
const (
	dsnFailed    = "failed"
	dsnDelayed   = "delayed"
	dsnDelivered = "delivered"
	dsnRelayed   = "relayed"
)

// NeedsUTF8 reports whether the notification must be sent with SMTPUTF8. It
// is only when it goes to an address that needs it: for anybody else UTF-8
// addresses are written in the ASCII form of RFC 6533 3.
func (d DSN) NeedsUTF8() bool { return d.To.NeedsUTF8() }

// WriteDSN renders a multipart/report message with CRLF line ends. It is sent
// with the null reverse-path (RFC 3461 6.1), as BODY=8BITMIME where it has
// bytes above 127.
func WriteDSN(d DSN) []byte {
	d.Kind = knownKind(d.Kind)
	parts := []part{d.humanPart(), d.statusPart(), d.originalPart()}
	boundary := freeBoundary(d.Boundary, parts)
	var b bytes.Buffer
	d.writeHeader(&b, boundary, parts)
	for _, p := range parts {
		b.WriteString("\r\n--" + boundary + "\r\n")
		p.write(&b)
	}
	b.WriteString("\r\n--" + boundary + "--\r\n")
	return b.Bytes()
}

func knownKind(kind string) string {
	switch kind {
	case dsnDelayed, dsnDelivered, dsnRelayed:
		return kind
	}
	return dsnFailed
}

// writeHeader writes the notification's own header section, up to and not
// including the empty line, which is the first boundary's (RFC 2046 5.1.1).
func (d DSN) writeHeader(b *bytes.Buffer, boundary string, parts []part) {
	field := func(name, value string) {
		if value != "" {
			b.WriteString(name + ": " + value + "\r\n")
		}
	}
	field("Date", d.Now.Format(dateLayout))
	field("From", displayForm(d.From))
	field("To", "<"+clean(d.To.String(), maxText)+">")
	field("Subject", d.subject())
	field("Message-ID", messageID([]byte(d.MessageID)))
	// It answers the message it is about (RFC 3834 3.1.5). An identifier that
	// is not ASCII would make the notification need SMTPUTF8 by itself.
	if id := ScanHeader(d.Original, "").MessageID; isASCII(id) && len(id) <= maxText {
		field("In-Reply-To", id)
		field("References", id)
	}
	field("Auto-Submitted", "auto-replied") // RFC 3834 5
	field("MIME-Version", "1.0")
	field("Content-Type", "multipart/report; report-type=delivery-status;\r\n\tboundary=\""+boundary+"\"") // RFC 6522 3
	for _, p := range parts {
		if p.encoding == "8bit" {
			field("Content-Transfer-Encoding", "8bit") // RFC 2045 6.4
			break
		}
	}
}

func (d DSN) subject() string {
	switch d.Kind {
	case dsnDelayed:
		return "Your message is delayed"
	case dsnDelivered:
		return "Your message was delivered"
	case dsnRelayed:
		return "Your message was passed on"
	}
	return "Your message was not delivered"
}

// displayForm writes a From value in ASCII: the name before the address as
// encoded words where it must be.
func displayForm(s string) string {
	s = clean(s, maxText)
	if isASCII(s) {
		return s
	}
	name, address := s, ""
	if i := strings.LastIndexByte(s, '<'); i >= 0 {
		name, address = s[:i], s[i:]
	}
	name = strings.Trim(name, `" `)
	return strings.TrimSpace(mime.QEncoding.Encode("utf-8", cut(name, 100)) + " " + asciiOnly(address))
}

// part is one body part of the report.
type part struct {
	kind     string // media type with parameters
	encoding string // "" is 7bit
	body     []byte // encoded already, with CRLF line ends
}

func (p part) write(b *bytes.Buffer) {
	b.WriteString("Content-Type: " + p.kind + "\r\n")
	if p.encoding != "" {
		b.WriteString("Content-Transfer-Encoding: " + p.encoding + "\r\n")
	}
	b.WriteString("\r\n")
	b.Write(p.body)
}

// freeBoundary lengthens the boundary until no part contains it: what comes
// back in a notification was written by strangers.
func freeBoundary(boundary string, parts []part) string {
	boundary = cut(strings.Map(boundaryRune, boundary), 40)
	if boundary == "" {
		boundary = "report"
	}
	for n := 0; n < len(parts); n++ {
		if bytes.Contains(parts[n].body, []byte("--"+boundary)) {
			boundary += "="
			n = -1
		}
	}
	return boundary
}

func boundaryRune(r rune) rune {
	if r < 128 && isAlphanumeric(byte(r)) || r == '_' || r == '-' || r == '.' {
		return r
	}
	return -1
}

func isAlphanumeric(c byte) bool {
	return c >= '0' && c <= '9' || lower(c) >= 'a' && lower(c) <= 'z'
}

// originalPart gives back the message, or its header section (RFC 3461 6.2).
func (d DSN) originalPart() part {
	header := d.Original[:ScanHeader(d.Original, "").Bytes]
	if d.Full {
		p := part{kind: "message/rfc822", body: crlf(d.Original)}
		if hasEightBit(header) {
			p.kind = "message/global" // RFC 6533 4
		}
		if !isSevenBit(p.body) {
			p.encoding = "8bit" // a message may not be encoded (RFC 2046 5.2.1)
		}
		return p
	}
	body := crlf(header)
	if isSevenBit(body) {
		return part{kind: "text/rfc822-headers", body: body}
	}
	return part{kind: "message/global-headers", encoding: "quoted-printable", body: quotePrintable(body)}
}

// crlf makes every line end CR LF. What has them already is not copied.
func crlf(b []byte) []byte {
	if !hasBareLineEnd(b) {
		return b
	}
	out := make([]byte, 0, len(b)+len(b)/32+2)
	for i, c := range b {
		switch {
		case c == '\r' || c == '\n' && (i == 0 || b[i-1] != '\r'):
			out = append(out, '\r', '\n')
		case c == '\n':
		default:
			out = append(out, c)
		}
	}
	return out
}

func hasBareLineEnd(b []byte) bool {
	for i, c := range b {
		if c == '\n' && (i == 0 || b[i-1] != '\r') || c == '\r' && (i+1 == len(b) || b[i+1] != '\n') {
			return true
		}
	}
	return false
}

// isSevenBit reports what may stand without an encoding (RFC 2045 2.7).
func isSevenBit(b []byte) bool {
	if hasEightBit(b) || bytes.IndexByte(b, 0) >= 0 {
		return false
	}
	for len(b) > 0 {
		i := bytes.IndexByte(b, '\n')
		if i < 0 {
			i = len(b)
		}
		if i > 999 {
			return false
		}
		b = b[min(i+1, len(b)):]
	}
	return true
}

func quotePrintable(b []byte) []byte {
	var out bytes.Buffer
	w := quotedprintable.NewWriter(&out)
	_, _ = w.Write(b) // a bytes.Buffer does not fail
	_ = w.Close()
	return out.Bytes()
}
