package deliver

import (
	"errors"
	"net"
	"os"
	"reflect"
	"syscall"
	"testing"

	"github.com/sallyport-mail/sallyport/internal/mail"
	"github.com/sallyport-mail/sallyport/internal/smtp"
)

func say(code int, enhanced, text string) mail.Reply {
	return mail.Reply{Code: code, Enhanced: enhanced, Text: text}
}

func TestJudge(t *testing.T) {
	ok := say(250, "2.0.0", "ok")
	full := say(452, "4.2.2", "full")
	nobody := say(550, "5.1.1", "nobody")
	leaving := say(421, "4.3.2", "leaving")
	spam := say(554, "5.7.1", "spam")
	gone := &net.OpError{Op: "read", Err: os.NewSyscallError("read", syscall.ECONNRESET)}
	const goneWords = "read: connection reset by peer"
	silence := "no answer after the whole message was sent, it may have been delivered: " + goneWords
	list := func(r ...mail.Reply) []mail.Reply { return r }
	whole := func(r mail.Reply) *mail.Reply { return &r }

	for _, c := range []struct {
		name   string
		result smtp.Result
		err    error
		n      int
		lmtp   bool
		want   judgement
	}{
		{"all taken", smtp.Result{Mail: ok, Rcpt: list(ok, ok), Data: list(ok), Sent: true}, nil, 2, false,
			judgement{stage: "data", replies: list(ok, ok)}},
		{"one refused", smtp.Result{Mail: ok, Rcpt: list(nobody, ok), Data: list(ok), Sent: true}, nil, 2, false,
			judgement{stage: "data", replies: list(nobody, ok)}},
		{"all refused", smtp.Result{Mail: ok, Rcpt: list(nobody, full)}, nil, 2, false,
			judgement{stage: "rcpt", replies: list(nobody, full)}},
		{"MAIL refused", smtp.Result{Mail: spam}, nil, 1, false, judgement{stage: "mail", whole: whole(spam)}},
		{"421 to MAIL", smtp.Result{Mail: leaving, Rcpt: list(leaving)}, nil, 1, false,
			judgement{stage: "mail", whole: whole(leaving), broken: true, unsent: true}},
		{"421 to RCPT", smtp.Result{Mail: ok, Rcpt: list(ok, leaving, leaving)}, nil, 3, false,
			judgement{stage: "rcpt", whole: whole(leaving), broken: true, unsent: true}},
		{"closed before MAIL's reply", smtp.Result{}, gone, 1, false,
			judgement{stage: "mail", whole: whole(say(0, "", goneWords)), broken: true, unsent: true}},
		{"closed before RCPT's reply", smtp.Result{Mail: ok, Rcpt: list(ok, mail.Reply{})}, gone, 2, false,
			judgement{stage: "rcpt", whole: whole(say(0, "", goneWords)), broken: true, unsent: true}},
		{"closed in content", smtp.Result{Mail: ok, Rcpt: list(ok)}, gone, 1, false,
			judgement{stage: "data", whole: whole(say(0, "", goneWords)), broken: true}},
		{"DATA refused", smtp.Result{Mail: ok, Rcpt: list(ok, ok), Data: list(spam)}, nil, 2, false,
			judgement{stage: "data", whole: whole(spam)}},
		{"dot refused beside a refused recipient", smtp.Result{Mail: ok, Rcpt: list(ok, nobody), Data: list(spam), Sent: true}, nil, 2, false,
			judgement{stage: "data", replies: list(spam, nobody)}},
		{"421 to the dot", smtp.Result{Mail: ok, Rcpt: list(ok), Data: list(leaving), Sent: true}, nil, 1, false,
			judgement{stage: "data", whole: whole(leaving), broken: true}},
		{"taken, then closed", smtp.Result{Mail: ok, Rcpt: list(ok), Data: list(ok), Sent: true}, gone, 1, false,
			judgement{stage: "data", replies: list(ok), broken: true}},
		{"no answer to the dot", smtp.Result{Mail: ok, Rcpt: list(ok), Sent: true}, gone, 1, false,
			judgement{stage: "sent", whole: whole(say(0, "", silence)), broken: true}},
		{"no answer to the dot beside a refused recipient", smtp.Result{Mail: ok, Rcpt: list(nobody, ok), Sent: true}, gone, 2, false,
			judgement{stage: "sent", replies: list(nobody, say(421, "4.4.2", silence)), broken: true}},
		{"LMTP, each its own", smtp.Result{Mail: ok, Rcpt: list(ok, nobody, ok), Data: list(ok, full), Sent: true}, nil, 3, true,
			judgement{stage: "data", replies: list(ok, nobody, full)}},
		{"LMTP, closed after one of two", smtp.Result{Mail: ok, Rcpt: list(ok, ok), Data: list(ok), Sent: true}, gone, 2, true,
			judgement{stage: "sent", replies: list(ok, say(421, "4.4.2", silence)), broken: true}},
		{"LMTP, DATA refused", smtp.Result{Mail: ok, Rcpt: list(ok, ok), Data: list(full)}, nil, 2, true,
			judgement{stage: "data", whole: whole(full)}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := judge(c.result, c.err, c.n, c.lmtp); !reflect.DeepEqual(got, c.want) {
				t.Errorf("got  %+v (whole %+v)\nwant %+v (whole %+v)", got, got.whole, c.want, c.want.whole)
			}
		})
	}
}

// A judgement must account for every recipient, whatever the server said.
func FuzzJudge(f *testing.F) {
	f.Add(250, []byte{250, 55, 45}, []byte{250}, true, true, 3, false)
	f.Add(0, []byte{}, []byte{}, false, true, 1, false)
	f.Add(250, []byte{250, 250}, []byte{250}, true, true, 2, true)
	f.Fuzz(func(t *testing.T, first int, rcpt, data []byte, sent, fails bool, n int, lmtp bool) {
		if n < 1 || n > 100 || len(rcpt) > n {
			return
		}
		r := smtp.Result{Mail: mail.Reply{Code: first}, Rcpt: replies(rcpt), Data: replies(data), Sent: sent}
		var err error
		if fails {
			err = errors.New("broken")
		}
		j := judge(r, err, n, lmtp)
		if j.whole == nil && len(j.replies) != n {
			t.Errorf("%+v gives %d replies for %d recipients", r, len(j.replies), n)
		}
		if j.unsent && !j.broken {
			t.Errorf("%+v: unsent over a connection that is said to be whole", r)
		}
		if j.stage == "" {
			t.Errorf("%+v has no stage", r)
		}
	})
}

func replies(codes []byte) []mail.Reply {
	var all []mail.Reply
	for _, c := range codes {
		all = append(all, mail.Reply{Code: int(c) * 2})
	}
	return all
}

func TestFailuresAreFinalOnlyTogether(t *testing.T) {
	refused := failure{peer: "a [192.0.2.1]:25", stage: "greeting", reply: say(554, "5.3.2", "not here")}
	away := failure{peer: "b [192.0.2.2]:25", stage: "connect", reply: say(0, "", "connection refused")}
	const both = "a [192.0.2.1]:25: greeting: 554 5.3.2 not here; b [192.0.2.2]:25: connect: connection refused"
	for _, c := range []struct {
		name  string
		tried failures
		stage string
		code  int
		text  string
	}{
		{"one", failures{away}, "connect", 0, "connection refused"},
		{"one says never", failures{refused}, "greeting", 554, "not here"},
		{"never and away", failures{refused, away}, "connect", 0, both},
		{"both never", failures{refused, refused}, "greeting", 554, "a [192.0.2.1]:25: greeting: 554 5.3.2 not here; a [192.0.2.1]:25: greeting: 554 5.3.2 not here"},
	} {
		a := c.tried.attempt()
		if a.Stage != c.stage || a.Whole.Code != c.code || a.Whole.Text != c.text {
			t.Errorf("%s: stage %s, %d %q", c.name, a.Stage, a.Whole.Code, a.Whole.Text)
		}
	}
}
