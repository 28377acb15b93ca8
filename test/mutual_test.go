package test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-mail/sallyport/internal/testpeer"
)

// TestMutualPostfix is the walkthrough of a partner that checks fingerprints
// and chains: the command line gives what he has to put where, and the
// replacement waits for him.
func TestMutualPostfix(t *testing.T) {
	testpeer.Need(t, "postfix", "postfix")
	ca := testpeer.NewCA(t, "Partner CA")
	p := newProcess(t, "")
	p.start()
	p.must("tenant", "add", "acme", "--region", "us")
	p.must("domain", "add", "acme", "acme.test", "--recipients", "none")
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	clients, root, caFile := filepath.Join(dir, "clients"), filepath.Join(dir, "root.pem"), filepath.Join(dir, "ca.pem")
	write := func(name, text string) {
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write(clients, "")
	write(root, string(ca.PEM)) // until ours is known
	write(caFile, string(ca.PEM))
	postfix := testpeer.StartPostfix(t, testpeer.PostfixConfig{Hostname: "mail.acme.test", Domains: []string{"acme.test"}, Cert: ca.Issue(t, nil, "mail.acme.test"),
		Main: map[string]string{
			"smtpd_tls_security_level": "encrypt", "smtpd_tls_req_ccert": "yes", "smtpd_tls_CAfile": root, "smtpd_tls_fingerprint_digest": "sha256",
			"relay_clientcerts": "texthash:" + clients, "smtpd_client_restrictions": "permit_tls_clientcerts, reject", "mynetworks": "192.0.2.1/32",
		}})
	host, port, err := net.SplitHostPort(postfix.Addr)
	if err != nil {
		t.Fatal(err)
	}
	p.must("connection", "add", "acme", "mailbox", "--kind", "smtp", "--host", host, "--port", port, "--tls", "mutual", "--ca", caFile, "--server-name", "mail.acme.test")
	one := func(state string) identity {
		t.Helper()
		for end := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
			for _, i := range object[[]identity](p, "identity", "list", "--tenant", "acme") {
				if i.State == state {
					return i
				}
			}
			if time.Now().After(end) {
				t.Fatalf("no identity is %s", state)
			}
		}
	}
	accept := func(sums ...string) {
		text := ""
		for _, s := range sums {
			var pairs []string
			for i := 0; i < len(s); i += 2 {
				pairs = append(pairs, strings.ToUpper(s[i:i+2]))
			}
			text += strings.Join(pairs, ":") + " sallyport\n"
		}
		write(clients, text)
		postfix.Command(t, "postfix", "reload")
	}
	passes := func() {
		t.Helper()
		for end := time.Now().Add(15 * time.Second); ; time.Sleep(100 * time.Millisecond) {
			out, _, code := p.cli("connection", "test", "acme", "mailbox")
			if code == 0 {
				return
			}
			if time.Now().After(end) {
				t.Fatalf("%s\n%s", out, postfix.Log())
			}
		}
	}
	first := one("active")
	write(root, p.must("identity", "show", first.ID, "--root"))
	if out, _, code := p.cli("connection", "test", "acme", "mailbox"); code != 1 || !strings.Contains(out, "fix:") {
		t.Errorf("taken before its fingerprint is known: %d %s", code, out)
	}
	accept(first.SHA256)
	passes()

	wait := exec.Command(p.binary, "--data", p.dir, "connection", "replace", "acme", "mailbox", "--wait", "--json")
	var out, errs lockedBuffer
	wait.Stdout, wait.Stderr = &out, &errs
	if err := wait.Start(); err != nil {
		t.Fatal(err)
	}
	next := one("staged")
	if now := one("active"); now.ID != first.ID {
		t.Error("switched before the partner knows the new one")
	}
	accept(first.SHA256, next.SHA256)
	if err := wait.Wait(); err != nil {
		t.Fatalf("%v: %s\n%s", err, &out, &errs)
	}
	if !strings.Contains(errs.String(), "waiting for the partner") || !strings.Contains(out.String(), `"ok": true`) {
		t.Errorf("%s\n%s", &out, &errs)
	}
	accept(next.SHA256)
	passes()
	if now := one("active"); now.ID != next.ID || now.Epoch != 2 {
		t.Error(fmt.Sprint("active is ", now))
	}
}
