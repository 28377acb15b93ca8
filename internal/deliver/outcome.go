package deliver

import (
	"errors"
	"net"
	"os"
	"strings"

	"github.com/sallyport-mail/sallyport/internal/mail"
	"github.com/sallyport-mail/sallyport/internal/queue"
	"github.com/sallyport-mail/sallyport/internal/smtp"
	"github.com/sallyport-mail/sallyport/internal/trace"
)

// judgement is what a transaction's result means for the queue and for the
// connection.
type judgement struct {
	stage   string
	whole   *mail.Reply
	replies []mail.Reply
	broken  bool // the connection is of no more use
	unsent  bool // it broke before content was asked for: another way may be tried
}

// judge reads the result of a transaction with n recipients.
func judge(r smtp.Result, err error, n int) judgement {
	j := judgement{broken: err != nil || closing(r)}
	accepted := 0
	for _, reply := range r.Rcpt {
		if reply.Positive() {
			accepted++
		}
	}
	switch {
	case r.Mail.Code == 0:
		j.stage, j.whole, j.unsent = "mail", ours(err), true
	case r.Mail.Code == 421:
		j.stage, j.whole, j.unsent = "mail", &r.Mail, true
	case !r.Mail.Positive():
		j.stage, j.whole = "mail", &r.Mail
	case len(r.Rcpt) < n || has421(r.Rcpt):
		j.stage, j.whole, j.unsent = "rcpt", lastWord(r.Rcpt, err), true
	case accepted == 0:
		j.stage, j.replies = "rcpt", r.Rcpt
	case r.Sent && len(r.Data) < accepted && len(r.Data) != 1:
		j.unknown(r, accepted, err)
	case len(r.Data) == 0:
		j.stage, j.whole = "data", ours(err)
	default:
		j.answered(r, accepted)
	}
	return j
}

// answered spreads the replies to the content over the recipients that were
// accepted: one for all of them, or with LMTP one each (RFC 2033 4.2).
func (j *judgement) answered(r smtp.Result, accepted int) {
	j.stage = "data"
	if len(r.Data) == 1 && accepted == len(r.Rcpt) && !r.Data[0].Positive() {
		j.whole = &r.Data[0]
		return
	}
	j.replies = spread(r, accepted, mail.Reply{})
}

// unknown is the case nobody likes: the content was sent to its end and not
// every recipient got an answer. The message may have been delivered; as this
// cannot be known it is sent again later, with the same Message-ID and trace
// id (RFC 5321 4.5.3.2.6 and RFC 1047).
func (j *judgement) unknown(r smtp.Result, accepted int, err error) {
	j.stage = "sent"
	silence := ours(err)
	silence.Text = "no answer after the whole message was sent, it may have been delivered: " + silence.Text
	if len(r.Data) == 0 && accepted == len(r.Rcpt) {
		j.whole = silence
		return
	}
	silence.Code, silence.Enhanced = 421, "4.4.2"
	j.replies = spread(r, accepted, *silence)
}

// spread gives each recipient its reply; rest is for those accepted that have
// got none.
func spread(r smtp.Result, accepted int, rest mail.Reply) []mail.Reply {
	all := make([]mail.Reply, len(r.Rcpt))
	next := 0
	for i, reply := range r.Rcpt {
		switch {
		case !reply.Positive():
			all[i] = reply
		case len(r.Data) == 1 && (accepted == 1 || rest.Code == 0):
			all[i] = r.Data[0]
		case next < len(r.Data):
			all[i] = r.Data[next]
			next++
		default:
			all[i] = rest
		}
	}
	return all
}

// closing reports whether some reply says that the server closes the
// connection (RFC 5321 3.8).
func closing(r smtp.Result) bool {
	return r.Mail.Code == 421 || has421(r.Rcpt) || has421(r.Data)
}

func has421(replies []mail.Reply) bool {
	for i := range replies {
		if replies[i].Code == 421 {
			return true
		}
	}
	return false
}

// lastWord is the 421 among replies, or our own words for what happened.
func lastWord(replies []mail.Reply, err error) *mail.Reply {
	for i := range replies {
		if replies[i].Code == 421 {
			return &replies[i]
		}
	}
	return ours(err)
}

// ours is a reply in our own words.
func ours(err error) *mail.Reply {
	if err == nil {
		err = errors.New("the server gave no answer")
	}
	return &mail.Reply{Text: words(err)}
}

// words says in a person's words what happened to a connection.
func words(err error) string {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return "no answer in the time that RFC 5321 4.5.3.2 allows"
	}
	var op *net.OpError
	if errors.As(err, &op) && op.Err != nil {
		return op.Err.Error()
	}
	return err.Error()
}

// failure is one way that could not be used.
type failure struct {
	peer, stage string
	reply       mail.Reply
	tls         *trace.TLS
}

func (f failure) String() string {
	if f.reply.Code != 0 {
		return f.stage + ": " + firstLine(f.reply.String())
	}
	return f.stage + ": " + firstLine(f.reply.Text)
}

// failures are the ways that were tried before.
type failures []failure

func (fs *failures) add(f failure) { *fs = append(*fs, f) }

// attempt is what is reported when no way was left. It is final only when each
// way said so: one that may come back is hope. What failed at each stands in
// the text.
func (fs failures) attempt() queue.Attempt {
	if len(fs) == 0 {
		return skipped()
	}
	decisive := fs[len(fs)-1]
	for _, f := range fs {
		if !f.reply.Permanent() {
			decisive = f
		}
	}
	whole := decisive.reply
	if len(fs) > 1 {
		whole.Text = fs.text()
	}
	return queue.Attempt{Peer: decisive.peer, TLS: decisive.tls, Stage: decisive.stage, Whole: &whole}
}

// annotate adds to an attempt's replies what went wrong before.
func (fs failures) annotate(a *queue.Attempt) {
	if len(fs) == 0 || a.Skipped {
		return
	}
	note := "\n(tried before: " + fs.text() + ")"
	if a.Whole != nil {
		whole := *a.Whole
		whole.Text += note
		a.Whole = &whole
		return
	}
	for i := range a.Replies {
		a.Replies[i].Text += note
	}
}

func (fs failures) text() string {
	lines := make([]string, len(fs))
	for i, f := range fs {
		lines[i] = f.peer + ": " + f.String()
	}
	return strings.Join(lines, "; ")
}
