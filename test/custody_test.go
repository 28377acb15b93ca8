package test

import (
	"bytes"
	"encoding/pem"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/sallyport-mail/sallyport/internal/keeper/client"
	"github.com/sallyport-mail/sallyport/internal/testpeer"
	"github.com/sallyport-mail/sallyport/internal/testpeer/custodian"
)

// TestFilesGoIntoTheKeeper starts a gateway on a folder of the time when keys
// and passwords were files: they are the keeper's afterwards, and used.
func TestFilesGoIntoTheKeeper(t *testing.T) {
	p := newProcess(t, "")
	sink := testpeer.StartSink(t, testpeer.SinkRules{User: "gw", Password: "an old password"})
	p.start()
	host, port, _ := net.SplitHostPort(sink.Addr)
	p.must("tenant", "add", "acme", "--region", "uk")
	p.must("domain", "add", "acme", "acme.test")
	p.must("connection", "add", "acme", "mailbox", "--kind", "smtp", "--host", host, "--port", port, "--tls", "none", "--auth", "plain", "--user", "gw")
	p.stop()

	old := custodian.Files(t, p.dir)
	pair := testpeer.NewCA(t, "An old CA").Issue(t, nil, "mx.sallyport.test")
	if err := old.WriteServerCertificate("mx.sallyport.test", pair.CertPEM, pair.KeyPEM); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"mailbox", "gone"} {
		if err := old.SetCredential(t.Context(), "acme", name, client.Credential{User: "gw", Password: "an old password"}); err != nil {
			t.Fatal(err)
		}
	}

	p.start()
	block, _ := pem.Decode(pair.CertPEM)
	waitFor(t, "TLS", func() bool { return trySecure(p.smtp) == nil })
	if shownTo(t, p) != string(block.Bytes) {
		t.Error("the certificate is not the one that was there")
	}
	if err := converse(p.smtp, "x@example.org", "b@acme.test", nil, []byte("Subject: 1\r\n\r\n1\r\n")); err != nil {
		t.Fatal(err)
	}
	sink.Wait(t, 1, 20*time.Second)
	waitFor(t, "an end of the files", func() bool {
		pairs, secrets, _ := old.Left()
		left, err := filepath.Glob(filepath.Join(p.dir, "keeper", "*", "import", "*"))
		return err == nil && pairs == 0 && secrets == 0 && len(left) == 0
	})
	var list []struct{ Connection string }
	if list = object[[]struct{ Connection string }](p, "credential", "list", "acme"); len(list) != 1 || list[0].Connection != "mailbox" {
		t.Errorf("%+v", list)
	}
	// Nothing of the password is left in clear below the folder.
	err := filepath.WalkDir(p.dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		raw, err := os.ReadFile(path)
		if err == nil && containsAny(raw, "an old password", string(pair.KeyPEM[40:80])) {
			t.Errorf("%s has a secret in clear", path)
		}
		return err
	})
	if err != nil && !os.IsNotExist(err) {
		t.Error(err)
	}
}

func containsAny(b []byte, words ...string) bool {
	for _, w := range words {
		if bytes.Contains(b, []byte(w)) {
			return true
		}
	}
	return false
}
