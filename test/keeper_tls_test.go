package test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sallyport-mail/sallyport/internal/testpeer"
)

// TestKeeperOverTLS has the keeper on another host, as it were: gateway and
// keeper know each other by certificates, and what a certificate may ask for is
// what its grant says.
func TestKeeperOverTLS(t *testing.T) {
	ca := testpeer.NewCA(t, "keepers")
	files := t.TempDir()
	ca.Issue(t, nil, "127.0.0.1").Write(t, files, "keeper")
	ca.Issue(t, nil, "gateway.test").Write(t, files, "gateway")
	ca.Issue(t, nil, "watcher.test").Write(t, files, "watcher")
	if err := os.WriteFile(filepath.Join(files, "ca.pem"), ca.PEM, 0o600); err != nil {
		t.Fatal(err)
	}
	address := freeAddresses(t, 1)[0]
	k := newKeeper(t, "us")
	settings, err := os.ReadFile(filepath.Join(k.dir, "keeper.toml"))
	if err != nil {
		t.Fatal(err)
	}
	in := func(name string) string { return fmt.Sprintf("%q", filepath.Join(files, name)) }
	more := "\n[listen]\naddress = \"" + address + "\"\ncertificate = " + in("keeper.crt") + "\nkey = " + in("keeper.key") + "\nclient_ca = " + in("ca.pem") +
		"\n[[grant]]\ncertificate = \"gateway.test\"\nacts = [\"all-gateway\"]\n[[grant]]\ncertificate = \"watcher.test\"\nacts = [\"status\"]\n"
	if err := os.WriteFile(filepath.Join(k.dir, "keeper.toml"), append(settings, more...), 0o600); err != nil {
		t.Fatal(err)
	}
	k.start()
	gateway := func(name string) *process {
		p := newProcess(t, "")
		p.appendSettings("\n[[keeper]]\nregion = \"us\"\naddress = \"" + address + "\"\ncertificate = " + in(name+".crt") + "\nkey = " + in(name+".key") + "\nca = " + in("ca.pem") + "\n")
		p.start()
		return p
	}
	p := gateway("gateway")
	if err := trySecure(p.smtp); err != nil {
		t.Errorf("STARTTLS with a keeper over TCP: %v", err)
	}
	if check := p.check("keepers"); !check.OK {
		t.Errorf("%+v", check)
	}
	p.stop()

	// One with less of a grant learns how the keeper is, and nothing else; the
	// keeper remembers that it asked.
	p = gateway("watcher")
	if err := trySecure(p.smtp); err == nil {
		t.Error("a certificate without the grant had a handshake signed")
	}
	if check := p.check("keepers"); check.OK || !strings.Contains(check.Detail, "alarm refused") {
		t.Errorf("%+v", check)
	}
}
