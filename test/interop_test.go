package test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-mail/sallyport/internal/testpeer"
)

// Postfix hands mail to the gateway, the gateway to another Postfix: every
// message arrives once, with everything in it.
func TestPostfixToPostfix(t *testing.T) {
	p := newProcess(t, "")
	mailbox := testpeer.StartPostfix(t, testpeer.PostfixConfig{Hostname: "inside.test", Domains: []string{"acme.test"}})
	p.start()
	p.tenant("acme", "us", "acme.test", mailbox.Addr)
	outside := testpeer.StartPostfix(t, testpeer.PostfixConfig{Hostname: "outside.test", RelayHost: p.smtp})
	const n = 100
	testpeer.RunSource(t, outside.Addr, testpeer.Load{
		Senders: 5, Messages: n, Size: 10240, From: "a@outside.test", To: "b@acme.test", Numbered: true,
	})
	got := mailbox.Wait(t, n, 60*time.Second)
	seen := map[string]bool{}
	for _, m := range got {
		text := string(m)
		to, _, _ := strings.Cut(text[strings.Index(text, "X-Original-To: "):], "\n")
		if seen[to] {
			t.Errorf("%s came twice", to)
		}
		seen[to] = true
		if len(m) < 10240 || !strings.Contains(text, "sallyport.test") || !strings.Contains(text, "by outside.test") {
			t.Fatalf("%s arrived as %.600s", to, text)
		}
	}
	if len(got) != n || len(seen) != n {
		t.Errorf("%d messages to %d recipients arrived", len(got), len(seen))
	}
}

// A user submits to Dovecot, over TLS and with a password, whose submission
// service relays through the gateway to the mailbox.
func TestDovecotSubmissionRelays(t *testing.T) {
	p := newProcess(t, "")
	sink := testpeer.StartSink(t, testpeer.SinkRules{})
	p.start()
	p.tenant("acme", "us", "acme.test", sink.Addr)
	ca := testpeer.NewCA(t, "test CA")
	d := testpeer.StartDovecot(t, testpeer.DovecotConfig{Cert: ca.Issue(t, nil, "dovecot.test"), Relay: p.smtp})
	transcript, code := testpeer.Swaks(t, d.Submission, "--tls", "--auth", "PLAIN", "--auth-user", "u@else.test",
		"--auth-password", testpeer.DovecotPassword, "--from", "u@else.test", "--to", "b@acme.test", "--body", "through Dovecot")
	if code != 0 {
		t.Fatalf("swaks: exit %d\n%s\n%s", code, transcript, d.Log())
	}
	if m := sink.Wait(t, 1, 20*time.Second)[0]; !strings.Contains(string(m.Data), "through Dovecot") {
		t.Errorf("the mailbox got %q", m.Data)
	}
}

// Mailboxes that misbehave at every stage cost nobody else anything: their
// senders get 250, their mail waits, the neighbour's is delivered at once.
func TestBadDestinations(t *testing.T) {
	p := newProcess(t, "")
	p.start()
	good := testpeer.StartSink(t, testpeer.SinkRules{})
	p.tenant("good", "us", "good.test", good.Addr)
	type bad struct{ stage, do, domain string }
	var all []bad
	for _, stage := range testpeer.RogueStages() {
		// Twice those that hang: together they could take every slot there is.
		for i, do := range []string{testpeer.Hang, testpeer.Hang, testpeer.Endless, testpeer.Hangup} {
			b := bad{stage, do, fmt.Sprintf("%s-%s%d.test", stage, do, i)}
			rogue := testpeer.StartRogue(t, testpeer.Fault{Stage: stage, Do: do})
			p.tenant(strings.TrimSuffix(b.domain, ".test"), "us", b.domain, rogue.Addr)
			all = append(all, b)
		}
	}
	const each = 25
	for _, b := range all {
		testpeer.RunSource(t, p.smtp, testpeer.Load{Senders: 2, Messages: each, Size: 10240, From: "a@outside.test", To: "b@" + b.domain})
	}
	begun := time.Now()
	testpeer.RunSource(t, p.smtp, testpeer.Load{Senders: 5, Messages: 200, Size: 10240, From: "a@outside.test", To: "b@good.test"})
	good.Wait(t, 200, 20*time.Second)
	t.Logf("200 messages beside %d bad destinations took %v", len(all), time.Since(begun))
	waiting := object[[]struct {
		Destination string `json:"destination"`
		State       string `json:"state"`
	}](p, "queue", "list")
	if len(waiting) != len(all)*each {
		t.Errorf("%d messages wait, %d were accepted for bad destinations", len(waiting), len(all)*each)
	}
	if rss := highWater(t, p.cmd.Process.Pid) >> 20; rss > 150 {
		t.Errorf("the gateway has %d MiB resident", rss)
	}
}
