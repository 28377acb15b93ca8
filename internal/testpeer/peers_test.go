package testpeer

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestPostfixKeepsMail(t *testing.T) {
	ca := NewCA(t, "test CA")
	p := StartPostfix(t, PostfixConfig{Domains: []string{"b.test"}, Cert: ca.Issue(t, nil, "postfix.test")})
	said, code := Swaks(t, p.Addr, "--tls", "--from", "a@a.test", "--to", "x@b.test", "--body", "hello over TLS")
	if code != 0 {
		t.Fatalf("swaks ended with %d:\n%s", code, said)
	}
	mail := p.Wait(t, 1, 10*time.Second)
	if text := string(mail[0]); !strings.Contains(text, "hello over TLS") || !strings.Contains(text, "using TLSv1.3") {
		t.Errorf("the Maildir has\n%s", text)
	}
	if said, code := Swaks(t, p.Addr, "--from", "a@a.test", "--to", "x@elsewhere.test"); code == 0 && !strings.Contains(said, "550") {
		t.Logf("mail for elsewhere was taken, to be bounced:\n%s", said)
	}
	p.Stop(t)
	if _, code := Swaks(t, p.Addr, "--from", "a@a.test", "--to", "x@b.test"); code == 0 {
		t.Error("a stopped Postfix took mail")
	}
	p.Start(t)
	if said, code := Swaks(t, p.Addr, "--from", "a@a.test", "--to", "x@b.test"); code != 0 {
		t.Errorf("Postfix takes no mail after its restart:\n%s", said)
	}
}

func TestPostfixRelaysToSink(t *testing.T) {
	sink := StartSMTPSink(t, true)
	p := StartPostfix(t, PostfixConfig{RelayHost: sink.Addr})
	RunSource(t, p.Addr, Load{Senders: 2, Messages: 5, Size: 2000, From: "a@a.test", To: "x@b.test", Numbered: true})
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		got := sink.Messages(t)
		if len(got) == 5 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("%d of 5 messages came through:\n%s", len(got), p.Log())
		}
	}
}

func TestDovecotTakesLMTP(t *testing.T) {
	ca := NewCA(t, "test CA")
	d := StartDovecot(t, DovecotConfig{Cert: ca.Issue(t, nil, "dovecot.test", "127.0.0.1")})
	if said, code := Swaks(t, d.LMTP, "--protocol", "LMTP", "--tls", "--from", "a@a.test", "--to", "x@b.test"); code != 0 {
		t.Fatalf("swaks ended with %d:\n%s\n%s", code, said, d.Log())
	}
	d.Wait(t, "x@b.test", 1, 10*time.Second)
	if said := d.IMAP(t, ca, "x@b.test", "SELECT INBOX"); !strings.Contains(said, "* 1 EXISTS") {
		t.Errorf("IMAP says\n%s", said)
	}
}

func TestDovecotSubmits(t *testing.T) {
	sink := StartSMTPSink(t, true)
	ca := NewCA(t, "test CA")
	d := StartDovecot(t, DovecotConfig{Cert: ca.Issue(t, nil, "dovecot.test"), Relay: sink.Addr})
	said, code := Swaks(t, d.Submission, "--tls", "--auth", "PLAIN", "--auth-user", "u@b.test",
		"--auth-password", DovecotPassword, "--from", "u@b.test", "--to", "x@a.test")
	if code != 0 {
		t.Fatalf("swaks ended with %d:\n%s\n%s", code, said, d.Log())
	}
	if got := sink.Messages(t); len(got) != 1 || !strings.Contains(got[0], "u@b.test") {
		t.Errorf("the relay got %q", got)
	}
}

func TestBINDTakesUpdates(t *testing.T) {
	key := BINDKey(t, "suite.key", "hmac-sha256")
	b := StartBIND(t, BINDConfig{Keys: key, Zones: []BINDZone{{Name: "b.test", Records: "@ IN NS ns\nns IN A 127.0.0.1\nx IN TXT one\n",
		Policy: "grant suite.key zonesub TXT;"}}})
	second := StartBIND(t, BINDConfig{Secondaries: map[string]*BIND{"b.test": b}})
	file := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(file, []byte(key), 0o600); err != nil {
		t.Fatal(err)
	}
	host, port, _ := strings.Cut(b.Addr, ":")
	nsupdate := exec.Command(Need(t, "bind9-dnsutils", "nsupdate")[0], "-v", "-k", file)
	nsupdate.Stdin = strings.NewReader("server " + host + " " + port + "\nzone b.test\nupdate add x.b.test 60 TXT two\nsend\n")
	if out, err := nsupdate.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s\n%s", err, out, b.Log())
	}
	if got := strings.Join(b.Texts(t, "x.b.test"), " "); got != "one two" {
		t.Errorf("the server has %q", got)
	}
	for end := time.Now().Add(10 * time.Second); len(second.Texts(t, "x.b.test")) == 0; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("no transfer:\n%s", second.Log())
		}
	}
	b.Stop()
	b.Start(t)
	if all := b.Zone(t, "b.test"); len(all) != 4 {
		t.Errorf("after its restart it has %q", all)
	}
}
