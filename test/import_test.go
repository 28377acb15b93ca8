package test

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-mail/sallyport/internal/testpeer"
)

// TestImportPostfix takes over from a Postfix: its folder, written by Postfix's
// own commands, is read, and mail goes where it went.
func TestImportPostfix(t *testing.T) {
	postconf := testpeer.Need(t, "postfix", "postconf", "postmap")[0]
	sink := testpeer.StartSink(t, testpeer.SinkRules{})
	host, port, err := net.SplitHostPort(sink.Addr)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, text := range map[string]string{
		"main.cf":    "compatibility_level = 3.6\n",
		"transport":  "old.test\n    smtp:[" + host + "]:" + port + "\nopen.test smtp:[" + host + "]:" + port + "\n",
		"recipients": "Ann@old.test x\nbob@old.test x\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	out, err := exec.Command(postconf, "-c", dir, "-e", "relay_domains = old.test, open.test, bare.test",
		"transport_maps = hash:$config_directory/transport", "relay_recipient_maps = lmdb:"+dir+"/recipients").CombinedOutput()
	if err != nil {
		t.Fatalf("postconf: %v\n%s", err, out)
	}

	p := newProcess(t, "")
	p.start()
	p.must("tenant", "add", "acme", "--region", "us")
	dry := p.must("import", "postfix", dir, "--tenant", "acme", "--dry-run")
	if !strings.Contains(dry, "would import old.test to "+sink.Addr+", recipients: list of 2") || !strings.Contains(dry, "would import bare.test to no transport") {
		t.Errorf("dry run: %s", dry)
	}
	if list := object[[]struct{ Name string }](p, "domain", "list", "acme"); len(list) != 0 {
		t.Errorf("the dry run added %+v", list)
	}
	for range 2 { // the second time finds everything there
		p.must("import", "postfix", dir, "--tenant", "acme")
	}
	var domains []string
	for _, d := range object[[]struct{ Name, Recipients string }](p, "domain", "list", "acme") {
		domains = append(domains, d.Name+" "+d.Recipients)
	}
	if slices.Sort(domains); !slices.Equal(domains, []string{"bare.test probe", "old.test list", "open.test probe"}) {
		t.Errorf("domains: %q", domains)
	}
	if list := object[[]struct{ Name string }](p, "connection", "list", "acme"); len(list) != 1 {
		t.Errorf("connections: %+v", list)
	}
	for to, refused := range map[string]bool{"ann@old.test": false, "bob@old.test": false, "eve@old.test": true, "any@open.test": false} {
		err := converse(p.smtp, "x@example.org", to, nil, []byte("Subject: x\r\n\r\nhello\r\n"))
		if (err != nil) != refused {
			t.Errorf("to %s: %v", to, err)
		}
	}
	var got []string
	for _, m := range sink.Wait(t, 3, 20*time.Second) {
		got = append(got, strings.ToLower(m.To[0].String()))
	}
	if slices.Sort(got); !slices.Equal(got, []string{"ann@old.test", "any@open.test", "bob@old.test"}) {
		t.Errorf("delivered to %q", got)
	}
}
