package alarm

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"mime"
	"mime/quotedprintable"
	"strings"
	"time"

	"github.com/sallyport-mail/sallyport/internal/mail"
)

// Notice is what changed at one look. More says how many alarms of both kinds
// it does not list.
type Notice struct {
	Gateway string    `json:"gateway"`
	Time    time.Time `json:"time"`
	Raised  []Alarm   `json:"raised"`
	Cleared []Alarm   `json:"cleared"`
	More    int       `json:"more"`
}

func (n Notice) empty() bool { return len(n.Raised)+len(n.Cleared) == 0 }

// cut puts the alarms in order and bounds the lists.
func (n Notice) cut() Notice {
	for _, list := range []*[]Alarm{&n.Raised, &n.Cleared} {
		sortAlarms(*list)
		if over := len(*list) - lists; over > 0 {
			*list = (*list)[:lists]
			n.More += over
		}
		if *list == nil {
			*list = []Alarm{}
		}
	}
	return n
}

// subject is the notice in one line.
func (n Notice) subject() string {
	switch {
	case len(n.Raised) == 1 && n.More == 0:
		return "Alarm: " + n.Raised[0].Key
	case len(n.Raised) > 0:
		return fmt.Sprintf("Alarm: %d raised, among them %s", len(n.Raised)+n.More, n.Raised[0].Key)
	case len(n.Cleared) == 1:
		return "Cleared: " + n.Cleared[0].Key
	default:
		return fmt.Sprintf("Cleared: %d alarms", len(n.Cleared)+n.More)
	}
}

// text is the notice for people.
func (n Notice) text() string {
	var b strings.Builder
	for _, a := range n.Raised {
		fmt.Fprintf(&b, "RAISED   %s\n  %s.\n  %s\n\n", a.Key, a.Detail, a.Fix)
	}
	for _, a := range n.Cleared {
		fmt.Fprintf(&b, "CLEARED  %s\n  raised at %s\n\n", a.Key, a.Since.Format(time.RFC3339))
	}
	if n.More > 0 {
		fmt.Fprintf(&b, "and %d more.\n\n", n.More)
	}
	fmt.Fprintf(&b, "Seen by %s at %s.\n", n.Gateway, n.Time.Format(time.RFC3339))
	return b.String()
}

// message is the notice as a message (RFC 5322). Auto-Submitted keeps
// responders quiet (RFC 3834 5).
func (n Notice) message(from mail.Address, to []mail.Address) []byte {
	var b bytes.Buffer
	field := func(name, value string) { fmt.Fprintf(&b, "%s: %s\r\n", name, value) }
	recipients := make([]string, len(to))
	for i, a := range to {
		recipients[i] = "<" + a.String() + ">"
	}
	field("From", "<"+from.String()+">")
	field("To", strings.Join(recipients, ",\r\n "))
	field("Subject", mime.QEncoding.Encode("utf-8", oneLine("["+n.Gateway+"] "+n.subject())))
	field("Date", n.Time.Format("Mon, 02 Jan 2006 15:04:05 -0700"))
	field("Message-ID", "<"+rand.Text()+"@"+from.Domain+">")
	field("Auto-Submitted", "auto-generated")
	field("MIME-Version", "1.0")
	field("Content-Type", "text/plain; charset=utf-8")
	field("Content-Transfer-Encoding", "quoted-printable")
	b.WriteString("\r\n")
	body := quotedprintable.NewWriter(&b)
	_, _ = body.Write([]byte(n.text())) // into memory
	_ = body.Close()
	return b.Bytes()
}

// oneLine keeps a remote's words from ending a header field.
func oneLine(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, s)
	if len(s) > 150 {
		s = strings.ToValidUTF8(s[:150], "") + "…"
	}
	return s
}
