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

// judge reads the result of a transaction with n recipients. With LMTP each
// accepted recipient gets an answer of its own (RFC 2033 4.2).
func judge(r smtp.Result, err error, n int, lmtp bool) judgement {
	j := judgement{broken: err != nil || closing(r)}
	accepted, heard := 0, 0
	for i := range r.Rcpt {
		if r.Rcpt[i].Code != 0 {
			heard++
		}
		if r.Rcpt[i].Positive() {
			accepted++
		}
	}
	answers := 1
	if lmtp && r.Sent {
		answers = accepted
	}
	switch {
	case r.Mail.Code == 0:
		j.lost("mail", ours(err))
	case r.Mail.Code == 421:
		j.lost("mail", &r.Mail)
	case !r.Mail.Positive():
		j.stage, j.whole = "mail", &r.Mail
	case heard < n || has421(r.Rcpt):
		j.lost("rcpt", lastWord(r.Rcpt, err))
	case accepted == 0:
		j.stage, j.replies = "rcpt", r.Rcpt
	case len(r.Data) >= answers:
		j.answered(r, accepted)
	case r.Sent:
		j.unknown(r, accepted, err)
	default:
		j.stage, j.whole = "data", ours(err)
	}
	return j
}

// lost is a connection that ended before content was asked for.
func (j *judgement) lost(stage string, why *mail.Reply) {
	j.stage, j.whole, j.unsent, j.broken = stage, why, true, true
}

// answered spreads the replies to the content over the recipients that were
// accepted: one for all of them, or one each.
func (j *judgement) answered(r smtp.Result, accepted int) {
	j.stage = "data"
	if len(r.Data) == 1 && accepted == len(r.Rcpt) && !r.Data[0].Positive() {
		j.whole = &r.Data[0]
		return
	}
	if len(r.Data) == 1 {
		j.replies = spread(r.Rcpt, nil, r.Data[0])
		return
	}
	j.replies = spread(r.Rcpt, r.Data, mail.Reply{})
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
	j.replies = spread(r.Rcpt, r.Data, *silence)
}

// spread gives each recipient its reply: the refused ones theirs, the accepted
// ones the answers in order, and rest when these are used up.
func spread(rcpt, answers []mail.Reply, rest mail.Reply) []mail.Reply {
	all := make([]mail.Reply, len(rcpt))
	for i := range rcpt {
		switch {
		case !rcpt[i].Positive():
			all[i] = rcpt[i]
		case len(answers) > 0:
			all[i], answers = answers[0], answers[1:]
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
