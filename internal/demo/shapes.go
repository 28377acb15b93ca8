package demo

import (
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"strings"

	"github.com/sallyport-mail/sallyport/internal/mail"
)

// compose makes message n: who it is from, for whom, and its bytes. Shapes
// turn: plain text, text with HTML, an attachment, a newsletter with long
// lines and dots, a bounce, a message for several tenants at once.
func compose(n int, r *rand.Rand) (mail.Envelope, []byte, []copyKey) {
	seq := fmt.Sprintf("%06d", n)
	env := mail.Envelope{From: mail.Address{Local: fmt.Sprintf("writer%d", r.IntN(500)), Domain: "example.org"}}
	all := tenants()
	first := r.IntN(len(all))
	recipients := 1
	if n%17 == 0 { // to several tenants at once
		recipients = 2 + r.IntN(3)
	}
	for i := range recipients {
		t := all[(first+i)%len(all)]
		to := mail.Address{Local: fmt.Sprintf("user%d", r.IntN(200)), Domain: t.domain()}
		env.To = append(env.To, mail.Recipient{Address: to})
	}
	if n%29 == 0 { // a bounce
		env.From = mail.Address{}
	}
	keys := make([]copyKey, len(env.To))
	for i, to := range env.To {
		keys[i] = copyKey{messageID(seq), to.Address.String()}
	}
	return env, content(n, seq, env, r), keys
}

// messageID is by which a message is known again in the mailboxes.
func messageID(seq string) string { return "<" + seq + ".demo@example.org>" }

// content writes the message with CRLF line ends.
func content(n int, seq string, env mail.Envelope, r *rand.Rand) []byte {
	var b strings.Builder
	from := "MAILER-DAEMON@example.org"
	if !env.From.IsNull() {
		from = env.From.String()
	}
	subject := subjects()[n%len(subjects())]
	fmt.Fprintf(&b, "From: <%s>\r\nTo: <%s>\r\nSubject: %s\r\nMessage-ID: %s\r\n", from, env.To[0].Address, subject, messageID(seq))
	b.WriteString("Date: Mon, 02 Nov 2026 09:00:00 +0000\r\nMIME-Version: 1.0\r\n")
	switch n % 5 {
	case 0:
		plain(&b, r, 4+r.IntN(30))
	case 1:
		alternative(&b, r)
	case 2:
		attachment(&b, r, 2000+r.IntN(16000))
	case 3:
		dots(&b, r)
	default:
		if n%100 == 4 {
			attachment(&b, r, 150_000+r.IntN(150_000))
		} else {
			plain(&b, r, 60)
		}
	}
	return []byte(b.String())
}

// subjects are plain, encoded (RFC 2047) and long.
func subjects() []string {
	return []string{"Quarterly figures", "=?utf-8?q?R=C3=A9union_de_jeudi?=", "Re: Re: delivery note 4471", "=?utf-8?b?5rOo5paH56K66KqN?=",
		"Minutes of the meeting, with everything that was said about the second item of the agenda and then withdrawn", "lunch?"}
}

func plain(b *strings.Builder, r *rand.Rand, lines int) {
	b.WriteString("Content-Type: text/plain; charset=us-ascii\r\n\r\n")
	words(b, r, lines)
}

// words writes lines of text.
func words(b *strings.Builder, r *rand.Rand, lines int) {
	list := strings.Fields("the invoice of last month is attached please confirm by Friday whether the delivery can be moved to the north gate thank you")
	for range lines {
		for range 9 {
			b.WriteString(list[r.IntN(len(list))])
			b.WriteByte(' ')
		}
		b.WriteString("\r\n")
	}
}

func alternative(b *strings.Builder, r *rand.Rand) {
	b.WriteString("Content-Type: multipart/alternative; boundary=\"alt\"\r\n\r\n--alt\r\n")
	plain(b, r, 10)
	b.WriteString("--alt\r\nContent-Type: text/html; charset=us-ascii\r\n\r\n<html><body><p>\r\n")
	words(b, r, 25)
	b.WriteString("</p></body></html>\r\n--alt--\r\n")
}

func attachment(b *strings.Builder, r *rand.Rand, size int) {
	b.WriteString("Content-Type: multipart/mixed; boundary=\"mix\"\r\n\r\n--mix\r\n")
	plain(b, r, 5)
	b.WriteString("--mix\r\nContent-Type: application/octet-stream\r\nContent-Disposition: attachment; filename=\"figures.bin\"\r\nContent-Transfer-Encoding: base64\r\n\r\n")
	raw := make([]byte, 57)
	for range size / len(raw) {
		for i := range raw {
			raw[i] = byte(r.Uint32())
		}
		b.WriteString(base64.StdEncoding.EncodeToString(raw))
		b.WriteString("\r\n")
	}
	b.WriteString("--mix--\r\n")
}

// dots writes what looks like an end of data to a careless reader.
func dots(b *strings.Builder, r *rand.Rand) {
	b.WriteString("Content-Type: text/plain\r\n\r\n.\r\n..\r\n. \r\n.hidden\r\n")
	words(b, r, 20)
	b.WriteString(strings.Repeat("long ", 180) + "\r\n.\r\n")
}
