package main

import (
	"bytes"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// hardenedDir is the variable by which TestHardened starts itself again as a
// process that is confined, which cannot be undone.
const hardenedDir = "SALLYPORT_TEST_HARDENED"

// TestHardened has a confined process try what a keeper has no need of.
func TestHardened(t *testing.T) {
	if dir := os.Getenv(hardenedDir); dir != "" {
		inHarness(dir)
		return
	}
	if v := landlockVersion(); v < tcpLandlock {
		t.Skipf("the kernel has Landlock %d, %d is needed", v, tcpLandlock)
	}
	dir := t.TempDir()
	for _, sub := range []string{"keeper", "elsewhere"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "elsewhere", "secret"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	cmd := exec.Command(withoutC(t), "-test.run=^TestHardened$", "-test.count=1")
	cmd.Env = append(os.Environ(), hardenedDir+"="+dir, "ADDRESS="+l.Addr().String())
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var got []string
	for _, line := range strings.Split(string(out), "\n") {
		if word, ok := strings.CutPrefix(line, "try: "); ok {
			got = append(got, word)
		}
	}
	want := []string{"before true", "write own true", "rename own true", "remove own true", "write elsewhere false", "read elsewhere false",
		"make elsewhere false", "start a program false", "dial false", "read resolv.conf true", "log ok"}
	if strings.Join(got, ", ") != strings.Join(want, ", ") {
		t.Errorf("got  %q\nwant %q\n%s", got, want, out)
	}
}

// withoutC is this test as the keeper is built: all threads of a program with C
// in it, as one for the race detector is, cannot be confined at once.
func withoutC(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "test")
	build := exec.Command("go", "test", "-c", "-o", path, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return path
}

// inHarness is the process that is confined.
func inHarness(dir string) {
	own, elsewhere := filepath.Join(dir, "keeper"), filepath.Join(dir, "elsewhere")
	try := func(what string, err error) { fmt.Printf("try: %s %v\n", what, err == nil) }
	try("before", os.WriteFile(filepath.Join(elsewhere, "before"), nil, 0o600))
	var said bytes.Buffer
	harden(own, keeperConfig{Socket: filepath.Join(own, "s"), KEK: kekConfig{Driver: "file", File: filepath.Join(own, "kek")}}, slog.New(slog.NewTextHandler(&said, nil)))

	// On many threads: what is given up is given up by all of them.
	done := make(chan error, 50)
	for i := range cap(done) {
		go func() { done <- os.WriteFile(filepath.Join(elsewhere, fmt.Sprint(i)), nil, 0o600) }()
	}
	var slipped error = os.ErrPermission
	for range cap(done) {
		if err := <-done; err == nil {
			slipped = nil
		}
	}
	try("write own", os.WriteFile(filepath.Join(own, "a"), []byte("x"), 0o600))
	try("rename own", os.Rename(filepath.Join(own, "a"), filepath.Join(own, "b")))
	try("remove own", os.Remove(filepath.Join(own, "b")))
	try("write elsewhere", slipped)
	_, err := os.ReadFile(filepath.Join(elsewhere, "secret"))
	try("read elsewhere", err)
	try("make elsewhere", os.Mkdir(filepath.Join(elsewhere, "d"), 0o700))
	try("start a program", exec.Command("/bin/true").Run())
	_, err = net.Dial("tcp", os.Getenv("ADDRESS"))
	try("dial", err)
	_, err = os.ReadFile("/etc/resolv.conf")
	try("read resolv.conf", err)
	// Without the right to lock memory that is all that may be missing.
	for _, line := range strings.Split(strings.TrimSpace(said.String()), "\n") {
		if line != "" && !strings.Contains(line, "swap") {
			fmt.Println("try:", line)
		}
	}
	fmt.Println("try: log ok")
}

// What the settings need is left: a service over TCP, a witness' file, a token
// that an agent renews; and a PKCS#11 module is not confined at all.
func TestConfinement(t *testing.T) {
	base := keeperConfig{Socket: "/run/k/s", KEK: kekConfig{Driver: "file", File: "/k/kek"}}
	n := confinement("/k", base)
	if n.tcp || n.reason != "" || strings.Join(n.write, " ") != "/k /run/k" {
		t.Errorf("%+v", n)
	}
	for name, change := range map[string]func(*keeperConfig){
		"transit":  func(c *keeperConfig) { c.KEK = kekConfig{Driver: "transit", TokenFile: "/t/token"} },
		"witness":  func(c *keeperConfig) { c.Witnesses = []witnessConfig{{URL: "https://w"}} },
		"listen":   func(c *keeperConfig) { c.Listen = &keeperListen{} },
		"a CA":     func(c *keeperConfig) { c.ACME = &acmeConfig{Directory: "https://ca/dir"} },
		"postgres": func(c *keeperConfig) { c.Store = "postgres://h/d" },
		"standbys": func(c *keeperConfig) { c.KEKStandby = &kekConfig{Driver: "transit"} },
		"old KEK":  func(c *keeperConfig) { c.KEKOld = []kekConfig{{Driver: "transit"}} },
	} {
		c := base
		change(&c)
		if !confinement("/k", c).tcp {
			t.Errorf("%s: no TCP is left", name)
		}
	}
	for name, change := range map[string]func(*keeperConfig){
		"KEK":   func(c *keeperConfig) { c.KEK.Driver = "pkcs11" },
		"apart": func(c *keeperConfig) { c.KEKStandbyOld = []kekConfig{{Driver: "pkcs11"}} },
		"keys":  func(c *keeperConfig) { c.Keys.Module = "/usr/lib/module.so" },
	} {
		c := base
		change(&c)
		if confinement("/k", c).reason == "" {
			t.Errorf("%s: a module is confined", name)
		}
	}
	c := base
	c.ACME = &acmeConfig{Directory: "https://ca/dir", DNS: &acmeDNSConfig{KeyFile: "/k.tsig"}}
	if n := confinement("/k", c); !slices.Contains(n.read, "/k.tsig") {
		t.Errorf("the key of DNS UPDATE can't be read: %+v", n)
	}
	c = base
	c.KEKStandby = &kekConfig{Driver: "file", File: "/stick/kek.json", PassphraseFile: "/word/w"} // may come later
	if n := confinement("/k", c); n.tcp || !slices.Contains(n.read, "/stick") || !slices.Contains(n.read, "/word") {
		t.Errorf("%+v", n)
	}
	c = base
	c.Witnesses = []witnessConfig{{File: "/mnt/w/log"}}
	if n := confinement("/k", c); n.tcp || strings.Join(n.write, " ") != "/k /run/k /mnt/w" {
		t.Errorf("%+v", n)
	}
}
