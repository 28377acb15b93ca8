package test

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/sallyport-mail/sallyport/internal/keeper/act"
	"github.com/sallyport-mail/sallyport/internal/testpeer"
)

// TestBeyondTheGrant has a gateway ask its keeper for an act that the keeper's
// settings do not grant it: it is refused, alarmed and entered, and what is
// granted goes on.
func TestBeyondTheGrant(t *testing.T) {
	k := newKeeper(t, "us")
	settings := filepath.Join(k.dir, "keeper.toml")
	raw, err := os.ReadFile(settings)
	if err != nil {
		t.Fatal(err)
	}
	var granted []string
	for _, a := range act.All() {
		if a != act.IssueIdentity {
			granted = append(granted, strconv.Quote(string(a)))
		}
	}
	text := strings.Replace(string(raw), "'all-gateway'", strings.Join(granted, ", "), 1)
	if text == string(raw) {
		t.Fatalf("the settings name no grant:\n%s", raw)
	}
	if err := os.WriteFile(settings, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	k.start()
	p := newProcess(t, "")
	p.appendSettings("\n[[keeper]]\nregion = \"us\"\nsocket = " + strconv.Quote(k.socket) + "\n")
	p.start()
	if check := p.check("keepers"); !check.OK {
		t.Errorf("before anything was refused: %+v", check)
	}
	sink := testpeer.StartSink(t, testpeer.SinkRules{User: "gw", Password: "a password"})
	host, port, _ := net.SplitHostPort(sink.Addr)
	p.must("tenant", "add", "acme", "--region", "us")
	p.must("domain", "add", "acme", "acme.test")
	p.must("connection", "add", "acme", "mailbox", "--kind", "smtp", "--host", host, "--port", port, "--tls", "none", "--auth", "plain", "--user", "gw")
	_, said, code := p.cli("connection", "add", "acme", "partner", "--kind", "smtp", "--direction", "outbound", "--host", host, "--port", port, "--tls", "mutual")
	if code != 1 || !strings.Contains(said, "may not ask for issue-identity") {
		t.Errorf("a connection that needs an identity: %d, %s", code, said)
	}

	wanted := fmt.Sprintf("us: alarm refused: %s by uid ", act.IssueIdentity)
	waitFor(t, "the alarm", func() bool {
		check := p.check("keepers")
		return !check.OK && strings.Contains(check.Detail, wanted)
	})
	if all := object[[]identity](p, "identity", "list", "--tenant", "acme"); len(all) != 0 {
		t.Errorf("it has issued %+v", all)
	}

	// What is granted goes on: a password is sealed, opened and used.
	file := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(file, []byte("a password"), 0o600); err != nil {
		t.Fatal(err)
	}
	p.must("credential", "set", "acme", "mailbox", "--file", file)
	if err := converse(p.smtp, "x@example.org", "b@acme.test", nil, []byte("Subject: 1\r\n\r\n1\r\n")); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "mail that needs a granted act", func() bool { return len(sink.Messages()) == 1 })

	// Refusals are summed up for a minute, and entered at the latest when the
	// keeper stops.
	k.stop()
	k.start()
	type entry struct {
		Act, Actor, Subject, Outcome string
		Count                        int64
	}
	// Whose the request was is not entered: one that is not granted is not read.
	found := object[[]entry](p, "ledger", "search", "--region", "us", "--act", string(act.IssueIdentity))
	if len(found) != 1 || !strings.HasPrefix(found[0].Outcome, "refused") || !strings.HasPrefix(found[0].Actor, "uid ") || found[0].Count < 1 {
		t.Errorf("the ledger has %+v", found)
	}
	alarms := object[[]entry](p, "ledger", "search", "--region", "us", "--act", "alarm")
	if len(alarms) == 0 || !strings.Contains(alarms[0].Subject, string(act.IssueIdentity)) {
		t.Errorf("the ledger's alarms are %+v", alarms)
	}
	p.must("ledger", "verify", "--region", "us")
}
