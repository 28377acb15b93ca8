package test

import (
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/keeper/act"
	"github.com/sallyport-mail/sallyport/internal/testpeer"
)

// TestKeeperStandbyKEK gives a keeper a second KEK in another folder, makes a
// standby, and takes that folder's content away, under the keeper that runs and
// under one that starts without it.
func TestKeeperStandbyKEK(t *testing.T) {
	k := newKeeper(t, "us")
	apart := filepath.Join(t.TempDir(), "stick")
	if err := os.Mkdir(apart, 0o700); err != nil {
		t.Fatal(err)
	}
	file, word := filepath.Join(apart, "kek.json"), filepath.Join(apart, "passphrase")
	k.appendSettings(fmt.Sprintf("\n[kek_standby]\ndriver = \"file\"\nfile = %q\npassphrase_file = %q\n", file, word))
	create := func() (string, error) {
		said, err := exec.Command(binary(t), "keeper", "create-kek", "--standby", "--data", k.dir).CombinedOutput()
		return string(said), err
	}
	if said, err := create(); err != nil || !strings.Contains(said, file) {
		t.Fatalf("%v: %s", err, said)
	}
	if said, err := create(); err == nil || !strings.Contains(said, "there already") {
		t.Errorf("over another: %v, %s", err, said)
	}
	k.start()
	r := k.remote()
	if err := r.BindConnection(t.Context(), "acme", "mailbox", act.Binding{Host: "mx.acme.test", Port: 25}); err != nil {
		t.Fatal(err)
	}
	issue := func(q act.Issue) (act.Identity, error) {
		return r.IssueIdentity(t.Context(), "acme", "mailbox", "smtp-client", q)
	}
	move := func(i act.Identity, to act.IdentityState) error {
		_, err := r.MoveIdentity(t.Context(), i, to)
		return err
	}
	first, err := issue(act.Issue{})
	if err != nil || move(first, act.Active) != nil {
		t.Fatal(err)
	}
	ready, err := issue(act.Issue{Epoch: 2, Standby: true})
	if err != nil || !ready.Apart {
		t.Fatalf("%+v: %v", ready, err)
	}
	// Another passphrase of its own, while the keeper runs: standbys go on.
	if said, err := k.passphrase("", "--standby", "--new-file", put(t, "another passphrase\n")); err != nil || !strings.Contains(said, word) {
		t.Errorf("%v: %s", err, said)
	}
	backup := filepath.Join(t.TempDir(), "us.tar")
	if said, err := exec.Command(binary(t), "keeper", "backup", backup, "--data", k.dir).CombinedOutput(); err != nil || !strings.Contains(string(said), "KEK of standbys, apart from the others: "+file) {
		t.Errorf("%v: %s", err, said)
	}

	away := apart + ".away"
	swap := func(from, to string) { // what is in the folder, as the folder itself is what the keeper may read
		for _, name := range []string{"kek.json", "passphrase"} {
			if err := os.Rename(filepath.Join(from, name), filepath.Join(to, name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := os.Mkdir(away, 0o700); err != nil {
		t.Fatal(err)
	}
	goesOn := func(when string) {
		t.Helper()
		if err := move(ready, act.Staged); !fault.Is(err, fault.Later) || !strings.Contains(err.Error(), "KEK of standbys is away") || !strings.Contains(fault.HintOf(err), file) {
			t.Errorf("%s: the standby is used: %v", when, err)
		}
		if _, err := issue(act.Issue{Epoch: 3, Standby: true}); !fault.Is(err, fault.Later) {
			t.Errorf("%s: a standby is made: %v", when, err)
		}
		s, err := r.Status(t.Context())
		if err != nil || s.StandbyAway == "" || s.StandbyDriver != "file" || s.Custody != "none" {
			t.Errorf("%s: %+v, %v", when, s, err)
		}
		cert, err := r.ClientCertificate(t.Context(), "acme", "mailbox")
		if err != nil {
			t.Fatalf("%s: %v", when, err)
		}
		if err := handshake(t, cert); err != nil {
			t.Errorf("%s: the active one: %v", when, err)
		}
		renewed, err := issue(act.Issue{Renew: 1})
		if err != nil || move(renewed, act.Retired) != nil {
			t.Errorf("%s: a renewal: %v", when, err)
		}
	}
	swap(apart, away)
	goesOn("taken away")
	k.kill()
	k.start()
	goesOn("not there at the start")

	// A replacement does without: the standby's turn is over then.
	next, err := issue(act.Issue{Epoch: 3})
	if err != nil || next.Apart || move(next, act.Active) != nil {
		t.Errorf("%+v: %v", next, err)
	}
	if err := move(first, act.Retired); err != nil {
		t.Error(err)
	}
	k.kill()
	swap(away, apart)
	k.start()
	if err := move(ready, act.Staged); err != nil {
		t.Errorf("back again: %v", err)
	}
	cert, err := r.IdentityCertificate(t.Context(), "acme", "mailbox", ready.ID)
	if err == nil {
		err = handshake(t, cert)
	}
	if err != nil {
		t.Error(err)
	}

	// One key for both is no second one.
	k.kill()
	settings := filepath.Join(k.dir, "keeper.toml")
	raw, err := os.ReadFile(settings)
	if err != nil {
		t.Fatal(err)
	}
	both := strings.NewReplacer(file, filepath.Join(k.dir, "kek.json"), word, filepath.Join(k.dir, "kek.passphrase")).Replace(string(raw))
	if err := os.WriteFile(settings, []byte(both), 0o600); err != nil {
		t.Fatal(err)
	}
	if said, err := exec.Command(binary(t), "keeper", "--data", k.dir).CombinedOutput(); err == nil || !strings.Contains(string(said), "is the region's KEK too") {
		t.Errorf("%v: %s", err, said)
	}
}

// handshake has a certificate of the keeper's sign for a client that shows it.
func handshake(t *testing.T, cert *tls.Certificate) error {
	t.Helper()
	us, them := net.Pipe()
	defer us.Close()
	defer them.Close()
	server := testpeer.NewCA(t, "acme").Issue(t, nil, "mx.acme.test").TLS
	ended := make(chan error, 1)
	go func() {
		c := tls.Server(them, &tls.Config{Certificates: []tls.Certificate{server}, ClientAuth: tls.RequireAnyClientCert, MinVersion: tls.VersionTLS13})
		ended <- c.Handshake()
	}()
	c := tls.Client(us, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return cert, nil }})
	if err := c.Handshake(); err != nil {
		return err
	}
	go c.Read(make([]byte, 1)) // the server's last words
	return <-ended
}
