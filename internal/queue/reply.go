package queue

import (
	"strconv"
	"strings"

	"github.com/sallyport-mail/sallyport/internal/mail"
)

// scope is whom a reply is about. Only route and host keep more than the one
// recipient waiting.
type scope int

const (
	ofRecipient scope = iota
	ofMessage
	ofHost  // the host is away or busy
	ofRoute // it refuses us as such: our address, our certificate, our rate
)

// String names the scope as docs and cases do.
func (s scope) String() string {
	return [...]string{"recipient", "message", "host", "route"}[s]
}

// effect is what a reply does to a recipient.
type effect int

const (
	stays     effect = iota // as it was: the destination is in trouble
	delivered               // it has the message
	deferred                // later
	atOnce                  // in the next transaction, with fewer recipients
	refused                 // for good
)

// String names the effect as docs and cases do.
func (e effect) String() string {
	return [...]string{"stays", "delivered", "deferred", "at once", "refused"}[e]
}

// rule is one line of the table that classifies replies; zero fields match
// everything. The first line that matches counts.
type rule struct {
	code      int    // exactly, or 4 and 5 for the class
	enhanced  string // "4.7.500", "x.3.4" (any class), "4.2.x" (any detail)
	to        int    // the last detail of a range that begins with enhanced's
	stages    string // of the attempt
	scope     scope
	effect    effect
	therefore string // why
}

const beforeMail = "resolve connect greeting hello tls auth"

// rules has the replies of RFC 5321, 3463 and 7504, and those of Exchange
// Online, whose scope is wider than their code says.
var rules = [...]rule{
	{code: 0, stages: beforeMail + " mail", scope: ofHost, effect: stays, therefore: "nobody answered"},
	{code: 0, scope: ofMessage, effect: deferred, therefore: "the connection was lost amid the message"},

	// The host's name is the answer, not the host: RFC 7505 4.1 (null MX), RFC 3463 X.1.2.
	{code: 5, stages: "resolve", scope: ofRecipient, effect: refused, therefore: "the domain does not exist or takes no mail"},
	{code: 4, stages: "resolve", scope: ofHost, effect: stays, therefore: "the domain cannot be looked up"},

	{code: 4, enhanced: "4.7.500", to: 699, scope: ofRoute, effect: stays, therefore: "Exchange Online throttles or suspects us"},
	{code: 4, enhanced: "4.7.850", to: 899, scope: ofRoute, effect: stays, therefore: "Exchange Online throttles or suspects us"},
	{code: 432, enhanced: "4.3.2", scope: ofRoute, effect: stays, therefore: "Exchange Online's limit of deliveries at a time"},
	{code: 5, enhanced: "5.7.51", scope: ofRoute, effect: stays, therefore: "a partner connector does not know our certificate or address"},
	{code: 5, enhanced: "5.7.64", scope: ofRoute, effect: stays, therefore: "no connector attributes us to the tenant"},
	{code: 5, enhanced: "5.7.68", scope: ofRoute, effect: stays, therefore: "direct send is refused and no connector matches"},
	{code: 5, enhanced: "5.7.57", scope: ofRoute, effect: stays, therefore: "the far end wants us to authenticate"},
	{code: 530, scope: ofRoute, effect: stays, therefore: "the far end wants TLS or AUTH (RFC 3207 4, RFC 4954 6)"},
	{code: 5, stages: "auth", scope: ofRoute, effect: stays, therefore: "our credentials are refused"},

	{code: 421, scope: ofHost, effect: stays, therefore: "the host closes (RFC 5321 3.8)"},
	{code: 4, stages: beforeMail, scope: ofHost, effect: stays, therefore: "the host does not let us in for now"},
	{code: 5, stages: beforeMail, scope: ofHost, effect: stays, therefore: "the host does not let us in"},
	{code: 452, enhanced: "4.5.3", scope: ofRecipient, effect: atOnce, therefore: "too many recipients (RFC 5321 4.5.3.1.10)"},
	{code: 4, enhanced: "4.3.1", scope: ofHost, effect: stays, therefore: "the host's disk is full"},
	{code: 4, enhanced: "4.3.2", scope: ofHost, effect: stays, therefore: "the host takes no mail now"},
	{code: 4, enhanced: "4.4.x", stages: "mail", scope: ofHost, effect: stays, therefore: "the host has trouble with its network"},

	{code: 4, enhanced: "4.1.x", scope: ofRecipient, effect: deferred, therefore: "the address cannot be judged now"},
	{code: 4, enhanced: "4.2.x", scope: ofRecipient, effect: deferred, therefore: "the mailbox takes nothing now"},
	{code: 5, enhanced: "5.1.x", scope: ofRecipient, effect: refused, therefore: "no such address"},
	{code: 5, enhanced: "5.2.x", scope: ofRecipient, effect: refused, therefore: "the mailbox takes nothing"},
	{code: 5, enhanced: "5.6.x", scope: ofMessage, effect: refused, therefore: "the content is not taken"},
	{code: 5, enhanced: "5.3.4", scope: ofMessage, effect: refused, therefore: "the message is too big"},
	{code: 552, scope: ofMessage, effect: refused, therefore: "the message is too big"},
	{code: 4, stages: "rcpt", scope: ofRecipient, effect: deferred, therefore: "not now, as with greylisting"},
	{code: 5, stages: "rcpt", scope: ofRecipient, effect: refused, therefore: "this recipient is refused"},
	{code: 4, scope: ofMessage, effect: deferred, therefore: "not now"},
	{code: 5, scope: ofMessage, effect: refused, therefore: "this message is refused"},
}

// classify says whom a reply is about and what it does.
func classify(r mail.Reply, stage string) rule {
	if r.Code/100 == 2 {
		return rule{effect: delivered}
	}
	for _, u := range rules {
		if u.matches(r, stage) {
			return u
		}
	}
	// A code outside of 2xx to 5xx is garbage: the host's trouble.
	return rule{scope: ofHost, effect: stays, therefore: "the answer is none"}
}

func (u rule) matches(r mail.Reply, stage string) bool {
	switch {
	case u.code == 0 && r.Code != 0:
		return false
	case u.code >= 10 && u.code != r.Code, u.code > 0 && u.code < 10 && u.code != r.Code/100:
		return false
	case u.stages != "" && !hasWord(u.stages, stage):
		return false
	}
	return u.enhanced == "" || matchEnhanced(u.enhanced, u.to, r.Enhanced)
}

func hasWord(words, word string) bool {
	for w := range strings.FieldsSeq(words) {
		if w == word {
			return true
		}
	}
	return false
}

// matchEnhanced compares an enhanced code (RFC 3463 2) with a rule's.
func matchEnhanced(pattern string, to int, code string) bool {
	want, have := strings.Split(pattern, "."), strings.Split(code, ".")
	if len(want) != 3 || len(have) != 3 {
		return false
	}
	for i := range 2 {
		if want[i] != "x" && want[i] != have[i] {
			return false
		}
	}
	if to == 0 {
		return want[2] == "x" || want[2] == have[2]
	}
	low, err1 := strconv.Atoi(want[2])
	n, err2 := strconv.Atoi(have[2])
	return err1 == nil && err2 == nil && low <= n && n <= to
}

// verdict is what an attempt says about each recipient that was tried.
type verdict struct {
	scope   scope // the widest
	effects []effect
	replies []mail.Reply
	worst   mail.Reply // the reply that the scope comes from, or the first that is not positive
	whole   bool       // one reply is everybody's
	unknown int        // refused as "no such user"
}

// judge classifies an attempt on an item with n recipients waiting.
func judge(a Attempt, n int) verdict {
	v := verdict{effects: make([]effect, n), replies: make([]mail.Reply, n), whole: a.Whole != nil}
	for i := range n {
		v.replies[i] = a.replyTo(i)
		stage := a.Stage
		if a.Whole == nil && stage != "data" && stage != "sent" {
			stage = "rcpt"
		}
		u := classify(v.replies[i], stage)
		v.effects[i] = u.effect
		if u.scope > v.scope || (v.worst.Code == 0 && v.worst.Text == "" && u.effect != delivered) {
			v.scope, v.worst = max(u.scope, v.scope), v.replies[i]
		}
		if u.effect == refused && isUnknownUser(v.replies[i].Enhanced) {
			v.unknown++
		}
	}
	v.settle()
	return v
}

func (a *Attempt) replyTo(i int) mail.Reply {
	switch {
	case a.Whole != nil:
		return *a.Whole
	case i < len(a.Replies):
		return a.Replies[i]
	}
	return lost(a.Stage)
}

// settle looks at the recipients together: a route that delivers to one of
// them is not broken, one that refuses us as such refuses nobody in
// particular, and "too many recipients" is it only if some were taken.
func (v *verdict) settle() {
	took := v.count(delivered)
	if took > 0 {
		v.scope = min(v.scope, ofMessage)
	}
	for i, e := range v.effects {
		switch {
		case e == stays && v.scope < ofHost, e == atOnce && took == 0 && v.scope < ofHost:
			v.effects[i] = deferred
		case v.scope == ofRoute:
			v.effects[i] = stays
		}
	}
}

func (v *verdict) count(e effect) int {
	n := 0
	for _, x := range v.effects {
		if x == e {
			n++
		}
	}
	return n
}

// isUnknownUser reports the codes that are given for addresses that do not
// exist. 5.4.1 is Exchange Online's edge.
func isUnknownUser(enhanced string) bool {
	return strings.HasPrefix(enhanced, "5.1.") || enhanced == "5.4.1"
}
