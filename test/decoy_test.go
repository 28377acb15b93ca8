package test

import (
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sallyport-mail/sallyport/internal/testpeer"
)

// TestDecoySeen plants a decoy whose partner is a real mailbox server. A thief
// who logs in there is reported by the server, and people are told.
func TestDecoySeen(t *testing.T) {
	testpeer.Need(t, "curl", "curl")
	p := newProcess(t, "")
	p.start()
	p.must("tenant", "add", "acme", "--region", "us")
	awake := func() bool { _, _, code := p.cli("ledger", "search", "--region", "us"); return code == 0 }
	waitFor(t, "the region's keeper", awake)
	key := p.operators("us", "anna")[0]
	waitFor(t, "the region's keeper again", awake)

	order := filepath.Join(t.TempDir(), "decoy.json")
	p.must("order", "make", "plant-decoy", "--region", "us", "--set", "tenant=acme", "--set", "connection=old-relay", "--set", "host=127.0.0.1",
		"--set", "port=993", "--set", "kind=credential", "--set", "user=relay-7", "--key", key, "--out", order)
	planted := object[struct{ Secret, Report string }](p, "order", "submit", order, "--socket", filepath.Join(p.dir, "keeper", "us", "keeper.sock"))
	if planted.Secret == "" || !strings.HasPrefix(planted.Report, "us.") {
		t.Fatalf("%+v", planted)
	}

	ca := testpeer.NewCA(t, "partner")
	script := fmt.Sprintf(`case "$USER" in relay-7) curl -s -m 5 -H 'Content-Type: application/json' `+
		`-d "{\"code\":\"%s\",\"from\":\"$IP\",\"note\":\"imap\"}" http://%s/v1/sightings >/dev/null;; esac`, planted.Report, p.api)
	partner := testpeer.StartDovecot(t, testpeer.DovecotConfig{Cert: ca.Issue(t, nil, "127.0.0.1"), AfterLogin: script})
	partner.IMAP(t, ca, "somebody")
	if got := p.check("keepers"); strings.Contains(got.Detail, "decoy") {
		t.Errorf("an ordinary login was reported: %+v", got)
	}
	partner.IMAP(t, ca, "relay-7")
	var seen []struct{ Act, Tenant, Connection, Subject, Outcome string }
	waitFor(t, "the report", func() bool {
		seen = object[[]struct{ Act, Tenant, Connection, Subject, Outcome string }](p, "ledger", "search", "--region", "us", "--act", "report-sighting")
		return len(seen) == 2
	})
	if e := seen[0]; e.Tenant != "acme" || e.Connection != "old-relay" || !strings.Contains(e.Subject, "from "+net.IPv4(127, 0, 0, 1).String()+" (imap)") {
		t.Errorf("%+v", e)
	}
	waitFor(t, "the alarm", func() bool {
		return strings.Contains(p.check("keepers").Detail, "acme/old-relay was used at its partner")
	})
}
