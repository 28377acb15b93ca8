package test

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	gosmtp "github.com/emersion/go-smtp"

	"github.com/sallyport-mail/sallyport/internal/keeper/client"
	"github.com/sallyport-mail/sallyport/internal/testpeer"
)

// children are the process ids of the keepers that a gateway runs.
func (p *process) children() []int {
	p.t.Helper()
	found, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		p.t.Fatal(err)
	}
	var all []int
	for _, path := range found {
		line, err := os.ReadFile(path)
		if err != nil || !strings.Contains(string(line), "\x00--child") || !strings.Contains(string(line), p.dir+"/keeper/") {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path))); err == nil {
			all = append(all, pid)
		}
	}
	return all
}

// secure opens an SMTP session with STARTTLS.
func secure(addr string) (*gosmtp.Client, error) {
	nc, err := net.DialTimeout("tcp", addr, 5*time.Second)
	if err != nil {
		return nil, err
	}
	c, err := gosmtp.NewClientStartTLS(nc, &tls.Config{ServerName: "mx.sallyport.test", VerifyPeerCertificate: anyone, InsecureSkipVerify: true})
	if err == nil {
		err = c.Noop() // the handshake comes with the first command
	}
	return c, err
}

func trySecure(addr string) error {
	c, err := secure(addr)
	if err == nil {
		c.Close()
	}
	return err
}

// letGo submits a message on an open session.
func letGo(c *gosmtp.Client, to string) error {
	return c.SendMail("x@example.org", []string{to}, strings.NewReader("Subject: x\r\n\r\nx\r\n"))
}

// TestKeeperChild kills what serve keeps and what keeps it.
func TestKeeperChild(t *testing.T) {
	// In a folder whose sockets have paths that are too long for the kernel.
	long := filepath.Join(t.TempDir(), strings.Repeat("long", 25))
	if err := os.Mkdir(long, 0o700); err != nil {
		t.Fatal(err)
	}
	p := newProcessIn(t, filepath.Join(long, "data"), "")
	p.start()
	waitFor(t, "TLS from the first keeper", func() bool { return trySecure(p.smtp) == nil })
	first := p.children()
	if len(first) != 1 {
		t.Fatalf("%d keepers run for a gateway without tenants", len(first))
	}
	p.must("tenant", "add", "acme", "--region", "uk")
	waitFor(t, "a keeper for the tenant's region", func() bool { return len(p.children()) == 2 })

	// A keeper that dies is started again, with what it had.
	before := shownTo(t, p)
	if err := syscall.Kill(first[0], syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "another keeper in its place", func() bool { all := p.children(); return len(all) == 2 && !slices.Contains(all, first[0]) })
	waitFor(t, "TLS again", func() bool { return trySecure(p.smtp) == nil })
	if after := shownTo(t, p); after != before {
		t.Error("the keeper that was killed came back with another certificate")
	}

	// A gateway that is killed leaves no keeper behind; the next one's have the
	// folder.
	if err := syscall.Kill(p.cmd.Process.Pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-p.ended
	p.start()
	waitFor(t, "TLS after the gateway was killed", func() bool { return trySecure(p.smtp) == nil })
	if after := shownTo(t, p); after != before {
		t.Error("the next gateway's keeper has another certificate")
	}
	waitFor(t, "two keepers and no more", func() bool { return len(p.children()) == 2 })
	p.stop()
	if left := p.children(); len(left) > 0 {
		t.Errorf("keepers %v are left after the gateway was stopped", left)
	}
}

// shownTo is the certificate that a client is shown.
func shownTo(t *testing.T, p *process) string {
	t.Helper()
	c, err := secure(p.smtp)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	state, ok := c.TLSConnectionState()
	if !ok {
		t.Fatal("no TLS")
	}
	return string(state.PeerCertificates[0].Raw)
}

// TestKeeperHostCompromised: sessions that a server certificate was shown to end
// when it is compromised: one that is idle at once, one in DATA after its message,
// which is kept. Others go on, and new ones are shown another certificate.
func TestKeeperHostCompromised(t *testing.T) {
	p := newProcess(t, "")
	sink := testpeer.StartSink(t, testpeer.SinkRules{})
	p.start()
	host, port, _ := net.SplitHostPort(sink.Addr)
	p.must("tenant", "add", "acme", "--region", "us")
	p.must("domain", "add", "acme", "acme.test")
	p.must("connection", "add", "acme", "mailbox", "--kind", "smtp", "--host", host, "--port", port, "--tls", "none")
	waitFor(t, "TLS", func() bool { return trySecure(p.smtp) == nil })
	old := shownTo(t, p)
	var open [2]*gosmtp.Client
	for i := range open {
		c, err := secure(p.smtp)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		open[i] = c
	}
	idle, busy := open[0], open[1]
	if err := letGo(idle, "a@acme.test"); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(busy.Mail("x@example.org", nil), busy.Rcpt("b@acme.test", nil)); err != nil {
		t.Fatal(err)
	}
	body, err := busy.Data()
	if err != nil {
		t.Fatal(err)
	}
	inClear, err := gosmtp.Dial(p.smtp)
	if err != nil {
		t.Fatal(err)
	}
	defer inClear.Close()
	if err := inClear.Hello("c.test"); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256([]byte(old))
	var id string
	for _, i := range object[[]identity](p, "identity", "list") {
		if i.SHA256 == hex.EncodeToString(sum[:]) {
			id = i.ID
		}
	}
	p.must("identity", "compromise", id)

	ended := func(who string, err error) {
		t.Helper()
		var r *gosmtp.SMTPError
		if !errors.As(err, &r) || r.Code != 421 || r.EnhancedCode != (gosmtp.EnhancedCode{4, 3, 2}) {
			t.Errorf("%s: %v, want 421 4.3.2", who, err)
		}
	}
	ended("an idle session", idle.Noop())
	if _, err := io.WriteString(body, "Subject: x\r\n\r\nx\r\n"); err != nil {
		t.Fatal(err)
	}
	if err := body.Close(); err != nil {
		t.Errorf("the message that was under way: %v", err)
	}
	ended("the session that it came by", busy.Noop())
	if err := letGo(inClear, "c@acme.test"); err != nil {
		t.Errorf("a session in clear: %v", err)
	}
	if shownTo(t, p) == old {
		t.Error("the certificate that is compromised is shown again")
	}
	sink.Wait(t, 3, 20*time.Second)
}

// keeperProcess is a keeper of its own.
type keeperProcess struct {
	t       *testing.T
	dir     string
	socket  string
	wrapper []string // a program that runs it, as strace
	cmd     *exec.Cmd
	log     *lockedBuffer
}

func newKeeper(t *testing.T, region string) *keeperProcess {
	t.Helper()
	k := &keeperProcess{t: t, dir: filepath.Join(t.TempDir(), region)}
	k.socket = filepath.Join(k.dir, "keeper.sock")
	out, err := exec.Command(binary(t), "--data", k.dir, "keeper", "init", "--region", region, "--base-domain", "sallyport.test",
		"--host", "mx.us.sallyport.test", "--host", "out.us.sallyport.test", "--host", "mx.sallyport.test", "--host", "out.sallyport.test").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Cleanup(func() {
		if k.cmd != nil {
			k.kill()
		}
	})
	return k
}

func (k *keeperProcess) start() {
	k.t.Helper()
	args := append(slices.Clone(k.wrapper), binary(k.t), "keeper", "--data", k.dir)
	k.cmd = exec.Command(args[0], args[1:]...)
	k.log = &lockedBuffer{}
	k.cmd.Stderr = k.log
	k.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := k.cmd.Start(); err != nil {
		k.t.Fatal(err)
	}
	r := k.remote()
	defer r.Close()
	waitFor(k.t, "the keeper's answer", func() bool { _, err := r.Status(k.t.Context()); return err == nil })
}

func (k *keeperProcess) kill() {
	syscall.Kill(-k.cmd.Process.Pid, syscall.SIGKILL)
	k.cmd.Wait()
	k.cmd = nil
}

// stop asks it to end, and tells whether it did so in order.
func (k *keeperProcess) stop() {
	k.t.Helper()
	syscall.Kill(-k.cmd.Process.Pid, syscall.SIGTERM)
	if err := k.cmd.Wait(); err != nil {
		k.t.Errorf("the keeper ended with %v: %s", err, k.log)
	}
	k.cmd = nil
}

func (k *keeperProcess) remote() *client.Remote {
	k.t.Helper()
	return remoteAt(k.t, "us", k.socket)
}

// remoteAt asks a keeper as a gateway does; the test has the gateway's user.
func remoteAt(t testing.TB, region, socket string) *client.Remote {
	t.Helper()
	if len(socket) > 100 { // sun_path
		folder, err := os.Open(filepath.Dir(socket))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { folder.Close() })
		socket = fmt.Sprintf("/proc/self/fd/%d/%s", folder.Fd(), filepath.Base(socket))
	}
	r, err := client.NewRemote(client.RemoteConfig{Region: region, Socket: socket})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return r
}

// TestKeeperAway has the keeper come and go: mail that needs it waits, what is
// under way goes on, and people are told.
func TestKeeperAway(t *testing.T) {
	k := newKeeper(t, "us")
	p := newProcess(t, "")
	p.appendSettings("\n[[keeper]]\nregion = \"us\"\nsocket = " + strconv.Quote(k.socket) + "\n")
	sink := testpeer.StartSink(t, testpeer.SinkRules{User: "gw", Password: "a password"})
	p.start()
	host, port, _ := net.SplitHostPort(sink.Addr)
	for _, name := range []string{"acme", "globex"} {
		p.must("tenant", "add", name, "--region", "us")
		p.must("domain", "add", name, name+".test")
		p.must("connection", "add", name, "mailbox", "--kind", "smtp", "--host", host, "--port", port, "--tls", "none", "--auth", "plain", "--user", "gw")
	}

	// Before it was ever there.
	var refused *gosmtp.SMTPError
	if err := trySecure(p.smtp); !errors.As(err, &refused) || refused.Code != 454 {
		t.Errorf("STARTTLS without a keeper: %v", err)
	}
	file := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(file, []byte("a password"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, said, code := p.cli("credential", "set", "acme", "mailbox", "--file", file); code != 1 || !strings.Contains(said, "keeper") {
		t.Errorf("a password was set without a keeper: %d, %s", code, said)
	}
	if check := p.check("keepers"); check.OK || !strings.Contains(check.Detail, "us: away") {
		t.Errorf("doctor: %+v", check)
	}

	k.start()
	p.must("credential", "set", "acme", "mailbox", "--file", file)
	p.must("credential", "set", "globex", "mailbox", "--file", file)
	if err := converse(p.smtp, "x@example.org", "b@acme.test", nil, []byte("Subject: 1\r\n\r\n1\r\n")); err != nil {
		t.Fatal(err)
	}
	sink.Wait(t, 1, 20*time.Second)
	under, err := secure(p.smtp)
	if err != nil {
		t.Fatal(err)
	}
	defer under.Close()
	if check := p.check("keepers"); !check.OK {
		t.Errorf("doctor: %+v", check)
	}

	k.stop()
	if err := letGo(under, "b@globex.test"); err != nil {
		t.Errorf("a session that was under way: %v", err)
	}
	if err := converse(p.smtp, "x@example.org", "b@globex.test", nil, []byte("Subject: 3\r\n\r\n3\r\n")); err != nil {
		t.Errorf("mail in clear without a keeper: %v", err)
	}
	if err := trySecure(p.smtp); !errors.As(err, &refused) || refused.Code != 454 {
		t.Errorf("STARTTLS without a keeper: %v", err)
	}
	waitFor(t, "the route to be down", func() bool { return !p.check("destinations").OK })
	if len(sink.Messages()) != 1 || len(object[[]any](p, "queue", "list")) != 2 {
		t.Errorf("%d delivered, %d wait", len(sink.Messages()), len(object[[]any](p, "queue", "list")))
	}
	if err := p.call("GET", "/readyz", nil, nil); err != nil {
		t.Errorf("without a keeper the gateway is not ready: %v", err)
	}

	k.start()
	sink.Wait(t, 3, 20*time.Second) // well before the route's own next probe would have become rare
	waitFor(t, "TLS again", func() bool { return trySecure(p.smtp) == nil })
}

type checkView struct {
	Name, Detail string
	OK           bool
}

// check is one line of doctor.
func (p *process) check(name string) checkView {
	p.t.Helper()
	var all []checkView
	p.mustCall("GET", "/v1/doctor", nil, &all)
	at := slices.IndexFunc(all, func(c checkView) bool { return c.Name == name })
	if at < 0 {
		p.t.Fatalf("doctor does not look at %s: %+v", name, all)
	}
	return all[at]
}

// TestKeeperConfined looks at what the kernel holds a keeper to.
func TestKeeperConfined(t *testing.T) {
	k := newKeeper(t, "us")
	k.start()
	proc := "/proc/" + strconv.Itoa(k.cmd.Process.Pid)
	status, err := os.ReadFile(proc + "/status")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(status), "NoNewPrivs:\t1\n") {
		t.Errorf("%s", status)
	}
	limits, err := os.ReadFile(proc + "/limits")
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range strings.Split(string(limits), "\n") {
		if strings.HasPrefix(line, "Max core file size") && strings.Fields(line)[4] != "0" {
			t.Error(line)
		}
	}
	if os.Geteuid() == 0 && strings.Contains(string(status), "VmLck:\t       0 kB") {
		t.Error("root's keeper has not locked its memory")
	}
	// A second keeper of the folder is refused.
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, binary(t), "keeper", "--data", k.dir).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "another keeper") {
		t.Errorf("%v: %s", err, out)
	}
	// One that was killed leaves its socket's file, which is no hindrance.
	k.kill()
	if _, err := os.Stat(k.socket); err != nil {
		t.Fatal(err)
	}
	k.start()
	k.stop()
	if _, err := os.Stat(k.socket); err == nil {
		t.Error("a keeper that was stopped has left its socket")
	}
}
