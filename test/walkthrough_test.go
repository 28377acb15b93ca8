package test

import (
	"encoding/json"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-mail/sallyport/internal/testpeer"
)

// postgresURL is an empty database of a server that this test process shares.
func postgresURL(t testing.TB) string { return testpeer.SharedPostgres(t).Database(t) }

// message and step are the contract's fields.
type message struct {
	ID         string   `json:"id"`
	MessageID  string   `json:"message_id"`
	Tenant     string   `json:"tenant"`
	Region     string   `json:"region"`
	Direction  string   `json:"direction"`
	From       string   `json:"from"`
	To         []string `json:"to"`
	Subject    string   `json:"subject"`
	Size       int64    `json:"size"`
	ReceivedAt string   `json:"received_at"`
	State      string   `json:"state"`
	Steps      []step   `json:"steps"`
}

type step struct {
	Time string  `json:"time"`
	Step string  `json:"step"`
	Peer *string `json:"peer"`
	Code *int    `json:"code"`
	Text *string `json:"text"`
}

// TestWalkthrough types the README's walkthrough.
func TestWalkthrough(t *testing.T) {
	eachProcess(t, func(t *testing.T, p *process) {
		mailbox := testpeer.StartPostfix(t, testpeer.PostfixConfig{Domains: []string{"acme.test"}})
		p.start()
		p.tenant("acme", "us", "acme.test", mailbox.Addr)

		transcript, code := testpeer.Swaks(t, p.smtp, "--from", "a@example.org", "--to", "b@acme.test")
		if code != 0 {
			t.Fatalf("swaks: exit %d\n%s", code, transcript)
		}
		id := regexp.MustCompile(`250 2\.0\.0 .*?([0-9A-HJKMNP-TV-Z]{26})`).FindStringSubmatch(transcript)
		if id == nil {
			t.Fatalf("the 250 names no message id:\n%s", transcript)
		}
		got := mailbox.Wait(t, 1, 20*time.Second)
		if !strings.Contains(string(got[0]), id[1]) {
			t.Errorf("our Received field does not name %s:\n%s", id[1], got[0])
		}

		list := object[[]message](p, "message", "list", "--tenant", "acme")
		if len(list) != 1 || list[0].ID != id[1] || list[0].From != "a@example.org" || !slices.Equal(list[0].To, []string{"b@acme.test"}) ||
			list[0].Region != "us" || list[0].Direction != "inbound" {
			t.Errorf("message list: %+v", list)
		}
		m := waitState(t, p, id[1], "delivered")
		if last := m.Steps[len(m.Steps)-1]; last.Step != "delivered" || last.Code == nil || *last.Code != 250 {
			t.Errorf("the trace does not end with the delivery: %+v", m.Steps)
		}
		if byMessageID := object[message](p, "message", "trace", m.MessageID); byMessageID.ID != m.ID {
			t.Errorf("trace by Message-ID %s found %q", m.MessageID, byMessageID.ID)
		}
		if q := object[[]map[string]any](p, "queue", "list"); len(q) != 0 {
			t.Errorf("queue list: %v", q)
		}
		report := object[struct {
			OK    bool
			Steps []struct {
				Name string
				OK   bool
			}
		}](p, "connection", "test", "acme", "mailbox")
		if !report.OK || len(report.Steps) < 4 {
			t.Errorf("connection test: %+v", report)
		}
		mailbox.Wait(t, 2, 20*time.Second) // the test's own message is real
	})
}

// waitState waits until a message is in a state, and returns its trace.
func waitState(t testing.TB, p *process, id, state string) message {
	t.Helper()
	var m message
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if m = object[message](p, "message", "trace", id); m.State == state {
			return m
		}
	}
	t.Fatalf("%s is %s, not %s: %+v", id, m.State, state, m.Steps)
	return m
}

// TestCommandLine holds the contract's exit codes and error forms.
func TestCommandLine(t *testing.T) {
	p := newProcess(t, "")
	p.start()
	p.must("tenant", "add", "acme", "--region", "us")
	for _, c := range []struct {
		name string
		args string
		code int
		says string
	}{
		{"wrong verb", "tenant frobnicate", 2, "sallyport"},
		{"missing flag", "tenant add other", 2, "region"},
		{"exists", "tenant add acme --region us", 1, "acme"},
		{"exists, identical and allowed", "tenant add acme --region us --if-absent", 0, ""},
		{"exists, different", "tenant add acme --region uk --if-absent", 1, "acme"},
		{"unknown region", "tenant add other --region mars", 1, "mars"},
		{"unknown tenant", "domain add nobody nobody.test", 1, "nobody"},
		{"unknown message", "message trace 01ARZ3NDEKTSV4RRFFQ69G5FAV", 1, "01ARZ3NDEKTSV4RRFFQ69G5FAV"},
		{"init over something", "init --base-domain x.test", 1, "not empty"},
		{"bulk act without a filter", "queue drop", 2, "which mail"},
	} {
		t.Run(c.name, func(t *testing.T) {
			out, errs, code := p.cli(strings.Fields(c.args)...)
			if code != c.code || !strings.Contains(errs, c.says) {
				t.Errorf("exit %d, want %d; stdout %q, stderr %q must say %q", code, c.code, out, errs, c.says)
			}
			if code != 0 && out != "" {
				t.Errorf("a failure printed to stdout: %q", out)
			}
		})
	}
	_, errs, _ := p.cli("tenant", "add", "acme", "--region", "us", "--json")
	for _, field := range []string{`"type"`, `"title"`, `"status": 409`, `"detail"`} {
		if !strings.Contains(errs, field) {
			t.Errorf("the problem document has no %s: %s", field, errs)
		}
	}
}

// TestAllConnections acts on one of a tenant's connections, or on all.
func TestAllConnections(t *testing.T) {
	p := newProcess(t, "")
	p.start()
	mailbox := startForeignSink(t)
	p.tenant("acme", "us", "acme.test", mailbox.addr)
	p.must("connection", "add", "acme", "smarthost", "--kind", "smtp", "--direction", "outbound", "--host", "127.0.0.1", "--port", "9", "--tls", "none")
	type answers struct {
		Connections []struct {
			Name, State string
			OK          *bool
		}
	}
	if a := object[answers](p, "connection", "disable", "acme", "--all"); len(a.Connections) != 2 || a.Connections[0].State != "disabled" || a.Connections[1].State != "disabled" {
		t.Errorf("disable --all: %+v", a)
	}
	if a := object[struct{ Name, State string }](p, "connection", "enable", "acme", "mailbox"); a.Name != "mailbox" || a.State != "enabled" {
		t.Errorf("enable: %+v", a)
	}
	for _, args := range []string{"connection disable acme", "connection disable acme mailbox --all"} {
		if _, errs, code := p.cli(strings.Fields(args)...); code != 2 || !strings.Contains(errs, "--all") {
			t.Errorf("%s: exit %d, %s", args, code, errs)
		}
	}
	out, _, code := p.cli("connection", "test", "acme", "--all", "--rcpt", "b@acme.test", "--json")
	var a answers
	if err := json.Unmarshal([]byte(out), &a); err != nil || code != 1 || len(a.Connections) != 2 {
		t.Fatalf("test --all: exit %d, %v, %s", code, err, out)
	}
	for _, c := range a.Connections {
		if c.OK == nil || *c.OK != (c.Name == "mailbox") {
			t.Errorf("test --all: %s", out)
		}
	}
	p.must("connection", "remove", "acme", "--all")
	if left := object[[]any](p, "connection", "list", "acme"); len(left) != 0 {
		t.Errorf("left after remove --all: %v", left)
	}
}
