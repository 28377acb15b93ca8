package test

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-mail/sallyport/internal/testpeer"
)

// A connection's test shows the server what deliveries will show it: the
// source address of the tenant's pool, its EHLO name, and the credential.
func TestConnectionTestIsLikeDelivery(t *testing.T) {
	p := newProcess(t, "")
	p.appendSettings("\n[[delivery.pool]]\nname = \"default\"\n[[delivery.pool.source]]\naddress = \"127.0.0.2\"\nhello = \"out2.sallyport.test\"\n")
	mailbox := testpeer.StartRogueSCRAM(t, testpeer.SCRAM{Offers: "PLAIN SCRAM-SHA-256", User: "relay", Password: "secret"})
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p.start()
	p.must("tenant", "add", "acme", "--region", "us")
	p.must("domain", "add", "acme", "acme.test", "--recipients", "none")
	p.connection("acme", "mailbox", mailbox.Addr, "--tls", "none", "--auth", "scram", "--user", "relay")
	p.must("credential", "set", "acme", "mailbox", "--file", secret)
	report := object[struct {
		OK    bool
		Steps []struct{ Name, Detail string }
	}](p, "connection", "test", "acme", "mailbox")
	for name, want := range map[string]string{"connect": "from 127.0.0.2 as out2.sallyport.test", "auth": "AUTH SCRAM-SHA-256"} {
		said := ""
		for _, s := range report.Steps {
			if s.Name == name {
				said = s.Detail
			}
		}
		if !report.OK || !strings.Contains(said, want) {
			t.Errorf("the step %s says %q, want %q: %+v", name, said, want, report)
		}
	}
	if out, code := testpeer.Swaks(t, p.smtp, "--from", "a@example.org", "--to", "b@acme.test"); code != 0 {
		t.Fatalf("swaks: %s", out)
	}
	for end := time.Now().Add(20 * time.Second); len(mailbox.Messages()) < 2 && time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
	}
	all := mailbox.Messages()
	if len(all) != 2 {
		t.Fatalf("%d messages", len(all))
	}
	for _, m := range all {
		if host, _, _ := net.SplitHostPort(m.Remote); host != "127.0.0.2" || m.Hello != "out2.sallyport.test" || m.User != "relay" {
			t.Errorf("a message came from %s as %s by %q", m.Remote, m.Hello, m.User)
		}
	}
}
