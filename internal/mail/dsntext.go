package mail

import (
	"strings"
)

// humanPart tells a person what happened, in the remote server's words, and
// what can be done (RFC 6522 3, first part).
func (d DSN) humanPart() part {
	var t textWriter
	t.paragraph("This is the mail system at " + d.Reporting + ".")
	t.paragraph(d.happened())
	for _, r := range d.Recipients {
		t.recipient(d.Kind, r)
	}
	t.aboutOriginal(d)
	body := []byte(t.b.String())
	p := part{kind: "text/plain; charset=utf-8", body: body}
	if !isSevenBit(body) {
		p.encoding, p.body = "quoted-printable", quotePrintable(body)
	}
	return p
}

func (d DSN) happened() string {
	switch d.Kind {
	case dsnDelayed:
		s := "Your message has not been delivered yet to the recipients below. " +
			"You need not send it again: delivery is tried again and again"
		if !d.WillRetry.IsZero() {
			s += " until " + d.WillRetry.Format(dateLayout)
		}
		return s + ". You will be told if it fails for good."
	case dsnDelivered:
		return "Your message was delivered to the recipients below, as you asked to be told."
	case dsnRelayed:
		return "Your message was handed to the mail systems of the recipients below. " +
			"They do not report deliveries, so this is the last you will hear."
	}
	return "Your message could not be delivered to the recipients below. " +
		"No further attempt will be made."
}

// textWriter writes wrapped text.
type textWriter struct {
	b strings.Builder
}

func (t *textWriter) paragraph(s string) {
	t.wrap("", s)
	t.b.WriteString("\r\n")
}

// wrap writes s in lines of at most 72 columns behind an indent.
func (t *textWriter) wrap(indent, s string) {
	column := 0
	for _, word := range strings.Fields(clean(s, maxDiagnostic)) {
		switch {
		case column == 0:
			t.b.WriteString(indent)
			column = len(indent)
		case column+1+len(word) > 72:
			t.b.WriteString("\r\n" + indent)
			column = len(indent)
		default:
			t.b.WriteByte(' ')
			column++
		}
		t.b.WriteString(word)
		column += len(word)
	}
	if column > 0 {
		t.b.WriteString("\r\n")
	}
}

func (t *textWriter) recipient(kind string, r DSNRecipient) {
	t.wrap("  ", "<"+r.Address.String()+">")
	if r.Reply.Code != 0 || r.Reply.Text != "" {
		t.wrap("    ", speaker(r))
		for line := range strings.SplitSeq(cut(words(r.Reply), maxDiagnostic), "\n") {
			t.wrap("      ", line)
		}
	}
	if advice := r.advice(kind); advice != "" {
		t.wrap("    ", "What you can do: "+advice)
	}
	t.b.WriteString("\r\n")
}

func speaker(r DSNRecipient) string {
	switch {
	case r.Reply.Code == 0:
		return "No answer from the recipient's mail system:"
	case r.Remote != "":
		return "The mail server " + r.Remote + " answered:"
	}
	return "The reason:"
}

func words(r Reply) string {
	if r.Code == 0 {
		return r.Text
	}
	return r.String()
}

// advice says what a sender can do, by the subject of the status (RFC 3463
// 3): nothing where all is well or where waiting is enough.
func (r DSNRecipient) advice(kind string) string {
	if kind != dsnFailed {
		return ""
	}
	status := r.status(kind)
	switch rest := status[1:]; {
	case rest == ".1.8" || rest == ".1.7":
		return "your own address was refused; ask your administrator."
	case strings.HasPrefix(rest, ".1."):
		return "check the address for mistakes and send the message again."
	case rest == ".2.2":
		return "the mailbox is full; tell the recipient in another way, or try again later."
	case rest == ".2.3" || rest == ".3.4":
		return "the message is too large for the recipient; send a smaller one."
	case rest == ".6.7":
		return "the recipient's mail system does not take international addresses; use an address in ASCII."
	case strings.HasPrefix(rest, ".7."):
		return "the recipient's mail system refused the message by its own rules; ask the recipient's administrator, and quote the answer above."
	case status[0] == '4' || strings.HasPrefix(rest, ".4."):
		return "the recipient's mail system could not be reached in all that time; send the message again later."
	}
	return "ask the recipient's administrator, and quote the answer above."
}

// aboutOriginal says which message this is about.
func (t *textWriter) aboutOriginal(d DSN) {
	s := ScanHeader(d.Original, "")
	if s.Subject != "" {
		t.wrap("", "Subject of your message: "+s.Subject)
	}
	if s.MessageID != "" {
		t.wrap("", "Message-ID: "+s.MessageID)
	}
	if !d.Arrived.IsZero() {
		t.wrap("", "It arrived here: "+d.Arrived.Format(dateLayout))
	}
}
