package queue

import (
	"testing"

	"github.com/sallyport-mail/sallyport/internal/mail"
)

func TestClassify(t *testing.T) {
	for _, c := range []struct {
		stage    string
		code     int
		enhanced string
		scope    scope
		effect   effect
	}{
		{"sent", 250, "2.0.0", ofRecipient, delivered},
		{"rcpt", 251, "", ofRecipient, delivered},
		{"rcpt", 450, "4.2.1", ofRecipient, deferred},
		{"rcpt", 452, "4.2.2", ofRecipient, deferred},
		{"rcpt", 451, "4.7.1", ofRecipient, deferred}, // greylisting
		{"rcpt", 450, "", ofRecipient, deferred},
		{"rcpt", 452, "4.5.3", ofRecipient, atOnce},
		{"rcpt", 550, "5.1.1", ofRecipient, refused},
		{"rcpt", 550, "5.1.10", ofRecipient, refused},
		{"rcpt", 550, "5.4.1", ofRecipient, refused},
		{"rcpt", 554, "", ofRecipient, refused},
		{"rcpt", 553, "5.6.7", ofMessage, refused},
		{"mail", 552, "5.3.4", ofMessage, refused},
		{"mail", 552, "", ofMessage, refused},
		{"data", 550, "5.6.11", ofMessage, refused},
		{"data", 554, "5.7.1", ofMessage, refused},
		{"data", 451, "4.3.0", ofMessage, deferred},
		{"mail", 450, "4.7.1", ofMessage, deferred},
		// Exchange Online (docs: m365 replies).
		{"rcpt", 451, "4.7.500", ofRoute, stays},
		{"mail", 450, "4.7.699", ofRoute, stays},
		{"rcpt", 451, "4.7.700", ofRecipient, deferred},
		{"rcpt", 451, "4.7.499", ofRecipient, deferred},
		{"data", 451, "4.7.850", ofRoute, stays},
		{"data", 451, "4.7.899", ofRoute, stays},
		{"data", 451, "4.7.900", ofMessage, deferred},
		{"data", 432, "4.3.2", ofRoute, stays},
		{"rcpt", 550, "5.7.51", ofRoute, stays},
		{"rcpt", 550, "5.7.64", ofRoute, stays},
		{"mail", 550, "5.7.68", ofRoute, stays},
		{"rcpt", 550, "5.7.606", ofRecipient, refused},
		{"mail", 530, "5.7.0", ofRoute, stays},
		{"auth", 535, "5.7.8", ofRoute, stays},
		{"auth", 454, "4.7.0", ofHost, stays},
		// The host.
		{"connect", 0, "", ofHost, stays},
		{"tls", 0, "", ofHost, stays},
		{"mail", 0, "", ofHost, stays},
		{"data", 0, "", ofMessage, deferred},
		{"sent", 0, "", ofMessage, deferred},
		{"rcpt", 421, "4.7.0", ofHost, stays},
		{"data", 421, "", ofHost, stays},
		{"greeting", 554, "5.7.1", ofHost, stays},
		{"greeting", 450, "", ofHost, stays},
		{"hello", 504, "", ofHost, stays},
		{"mail", 452, "4.3.1", ofHost, stays},
		{"mail", 451, "4.4.2", ofHost, stays},
		{"data", 451, "4.4.2", ofMessage, deferred},
		{"resolve", 0, "", ofHost, stays},
		{"resolve", 451, "4.4.3", ofHost, stays},
		{"resolve", 550, "5.1.2", ofRecipient, refused},
		{"resolve", 556, "5.1.10", ofRecipient, refused},
		{"data", 354, "", ofHost, stays}, // no answer to a final dot
		{"data", 99, "", ofHost, stays},
		{"data", 700, "", ofHost, stays},
	} {
		u := classify(mail.Reply{Code: c.code, Enhanced: c.enhanced}, c.stage)
		if u.effect != c.effect || (c.effect != delivered && u.scope != c.scope) {
			t.Errorf("%s %d %s: %s, %s; want %s, %s", c.stage, c.code, c.enhanced, u.scope, u.effect, c.scope, c.effect)
		}
	}
}

func TestJudgeTogether(t *testing.T) {
	reply := func(code int, enhanced string) mail.Reply {
		return mail.Reply{Code: code, Enhanced: enhanced, Text: "x"}
	}
	for name, c := range map[string]struct {
		replies []mail.Reply
		scope   scope
		effects []effect
	}{
		"one taken, one refused by a route that works": {
			[]mail.Reply{ok250, reply(550, "5.7.64")}, ofMessage, []effect{delivered, deferred}},
		"a route that refuses us refuses nobody in particular": {
			[]mail.Reply{reply(550, "5.1.1"), reply(550, "5.7.64")}, ofRoute, []effect{stays, stays}},
		"a host that closes has said something before": {
			[]mail.Reply{reply(550, "5.1.1"), reply(421, "4.3.2")}, ofHost, []effect{refused, stays}},
		"too many recipients": {
			[]mail.Reply{ok250, ok250, reply(452, "4.5.3")}, ofRecipient, []effect{delivered, delivered, atOnce}},
		"too many recipients, but none was taken": {
			[]mail.Reply{reply(452, "4.5.3"), reply(452, "4.5.3")}, ofRecipient, []effect{deferred, deferred}},
		"fewer replies than recipients": {
			[]mail.Reply{ok250}, ofMessage, []effect{delivered, deferred}},
	} {
		v := judge(Attempt{Stage: "data", Replies: c.replies}, len(c.effects))
		if v.scope != c.scope {
			t.Errorf("%s: scope %s, want %s", name, v.scope, c.scope)
		}
		for i, e := range c.effects {
			if v.effects[i] != e {
				t.Errorf("%s: recipient %d %s, want %s", name, i, v.effects[i], e)
			}
		}
	}
}

func TestMatchEnhanced(t *testing.T) {
	for _, c := range []struct {
		pattern string
		to      int
		code    string
		want    bool
	}{
		{"4.7.500", 699, "4.7.500", true}, {"4.7.500", 699, "4.7.5000", false}, {"4.7.500", 699, "4.7.x", false},
		{"4.2.x", 0, "4.2.99", true}, {"4.2.x", 0, "4.2", false}, {"4.2.x", 0, "", false}, {"x.3.4", 0, "5.3.4", true},
		{"5.7.51", 0, "5.7.512", false}, {"5.7.51", 0, "5.7.51.1", false},
	} {
		if got := matchEnhanced(c.pattern, c.to, c.code); got != c.want {
			t.Errorf("%s %d %q: %v", c.pattern, c.to, c.code, got)
		}
	}
}

// FuzzJudge: whatever a far end says, every recipient gets an effect, and
// nothing is delivered or refused without such a reply.
func FuzzJudge(f *testing.F) {
	f.Add("rcpt", 550, "5.1.1", 452, "4.5.3", 3)
	f.Add("sent", 0, "", 250, "", 1)
	f.Fuzz(func(t *testing.T, stage string, c1 int, e1 string, c2 int, e2 string, n int) {
		n = max(0, min(n, 8))
		v := judge(Attempt{Stage: stage, Replies: []mail.Reply{{Code: c1, Enhanced: e1}, {Code: c2, Enhanced: e2}}}, n)
		for i, e := range v.effects {
			switch r := v.replies[i]; {
			case e == delivered && r.Code/100 != 2:
				t.Errorf("%d counts as delivered", r.Code)
			case e == refused && r.Code/100 != 5:
				t.Errorf("%d counts as refused", r.Code)
			}
		}
	})
}
