package test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/sallyport-mail/sallyport/internal/api/client"
)

// binary builds the gateway once for all stories, without C and without the
// race detector: what is killed and measured is what users run.
func binary(t testing.TB) string {
	t.Helper()
	path, err := buildOnce()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

var buildOnce = sync.OnceValues(func() (string, error) {
	path := filepath.Join(os.Getenv(buildDir), "sallyport")
	cmd := exec.Command("go", "build", "-o", path, "../cmd/sallyport")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build: %w\n%s", err, out)
	}
	return path, nil
})

// buildDir is the variable that names the directory of what buildOnce makes.
const buildDir = "SALLYPORT_TEST_BUILD"

// TestMain makes and removes that directory.
func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "sallyport-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Setenv(buildDir, dir)
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// process is a gateway that runs as a process of its own.
type process struct {
	t            testing.TB
	binary, dir  string
	smtp, submit string
	api          string
	wrapper      []string // a program that runs it, as strace
	cmd          *exec.Cmd
	log          *lockedBuffer
	ended        chan struct{}
}

// lockedBuffer keeps a process's log for the failure message.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// lifted are limits for tests that come from one address.
const lifted = "\n[limits]\nconnections_per_ip = 5000\nconnections_per_network = 20000\nconnects_per_ip_minute = 10000000\nmessages_per_ip_minute = 10000000\nrecipients_per_ip_minute = 10000000\n"

// newProcess runs init in an empty folder. store is "" for SQLite.
func newProcess(t testing.TB, store string) *process {
	t.Helper()
	return newProcessIn(t, filepath.Join(t.TempDir(), "data"), store)
}

func newProcessIn(t testing.TB, dir, store string) *process {
	t.Helper()
	p := &process{t: t, binary: binary(t), dir: dir}
	addrs := freeAddresses(t, 3)
	p.smtp, p.submit, p.api = addrs[0], addrs[1], addrs[2]
	args := []string{"init", "--base-domain", "sallyport.test", "--smtp", p.smtp, "--submission", p.submit, "--api", p.api}
	if store != "" {
		args = append(args, "--store", store)
	}
	p.must(args...)
	p.appendSettings(lifted)
	t.Cleanup(p.kill)
	return p
}

// freeAddresses finds loopback addresses that nobody listens on.
func freeAddresses(t testing.TB, n int) []string {
	t.Helper()
	var out []string
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		out = append(out, l.Addr().String())
	}
	return out
}

func (p *process) appendSettings(text string) {
	p.t.Helper()
	f, err := os.OpenFile(filepath.Join(p.dir, "sallyport.toml"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		p.t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString(text); err != nil {
		p.t.Fatal(err)
	}
}

// setTop puts settings before all tables.
func (p *process) setTop(text string) {
	p.t.Helper()
	name := filepath.Join(p.dir, "sallyport.toml")
	old, err := os.ReadFile(name)
	if err != nil {
		p.t.Fatal(err)
	}
	if err := os.WriteFile(name, append([]byte(text), old...), 0o600); err != nil {
		p.t.Fatal(err)
	}
}

// cli runs a verb on this gateway's folder.
func (p *process) cli(args ...string) (stdout, stderr string, code int) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, p.binary, append([]string{"--data", p.dir}, args...)...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if _, exited := err.(*exec.ExitError); err != nil && !exited {
		p.t.Fatalf("%v: %v", args, err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// must is cli for a verb that has to succeed.
func (p *process) must(args ...string) string {
	p.t.Helper()
	out, errs, code := p.cli(args...)
	if code != 0 {
		p.t.Fatalf("sallyport %s: exit %d\n%s%s", strings.Join(args, " "), code, out, errs)
	}
	return out
}

// object is must for a verb whose --json is to be read.
func object[T any](p *process, args ...string) T {
	p.t.Helper()
	var v T
	out := p.must(append(args, "--json")...)
	if err := json.Unmarshal([]byte(out), &v); err != nil {
		p.t.Fatalf("sallyport %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return v
}

// call does one request to the API with the operator's token, which a story
// with many of them prefers to a process for each.
func (p *process) call(method, path string, in, out any, query ...string) error {
	token, err := os.ReadFile(filepath.Join(p.dir, "operator.token"))
	if err != nil {
		return err
	}
	c := &client.Client{Base: "http://" + p.api, Token: strings.TrimSpace(string(token))}
	q := url.Values{}
	for i := 0; i < len(query); i += 2 {
		q.Set(query[i], query[i+1])
	}
	return c.Do(context.Background(), method, path, q, in, out)
}

// mustCall is call for a request that has to succeed.
func (p *process) mustCall(method, path string, in, out any, query ...string) {
	p.t.Helper()
	if err := p.call(method, path, in, out, query...); err != nil {
		p.t.Fatalf("%s %s: %v", method, path, err)
	}
}

// start runs serve and waits until it takes mail.
func (p *process) start() {
	p.t.Helper()
	args := append(append([]string{}, p.wrapper...), p.binary, "serve", "--data", p.dir, "--log-level", "warn")
	p.cmd = exec.Command(args[0], args[1:]...)
	p.log = &lockedBuffer{}
	p.cmd.Stderr = p.log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	p.ended = make(chan struct{})
	go func(cmd *exec.Cmd, ended chan struct{}) { cmd.Wait(); close(ended) }(p.cmd, p.ended)
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); {
		if greets(p.smtp) {
			return
		}
		select {
		case <-p.ended:
			p.t.Fatalf("the gateway ended: %s", p.log)
		case <-time.After(10 * time.Millisecond):
		}
	}
	p.t.Fatalf("the gateway does not greet: %s", p.log)
}

// greets reports whether an SMTP server answers with 220.
func greets(addr string) bool {
	c, err := net.DialTimeout("tcp", addr, time.Second)
	if err != nil {
		return false
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(2 * time.Second))
	b := make([]byte, 3)
	n, _ := c.Read(b)
	return string(b[:n]) == "220"
}

// kill ends the process and what wraps it at once.
func (p *process) kill() {
	if p.cmd == nil {
		return
	}
	syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
	<-p.ended
	p.cmd = nil
}

// stop asks it to end, and waits.
func (p *process) stop() {
	p.t.Helper()
	syscall.Kill(-p.cmd.Process.Pid, syscall.SIGTERM)
	select {
	case <-p.ended:
	case <-time.After(40 * time.Second):
		p.t.Errorf("the gateway does not stop: %s", p.log)
		p.kill()
	}
	p.cmd = nil
}

// tenant adds a tenant with one domain and a mailbox at an address.
func (p *process) tenant(name, region, domain, mailbox string) {
	p.t.Helper()
	host, port, err := net.SplitHostPort(mailbox)
	if err != nil {
		p.t.Fatal(err)
	}
	p.must("tenant", "add", name, "--region", region)
	p.must("domain", "add", name, domain)
	p.must("connection", "add", name, "mailbox", "--kind", "smtp", "--host", host, "--port", port, "--tls", "none")
}

// addTenant is tenant by the API.
func (p *process) addTenant(name, domain, mailbox string) {
	p.t.Helper()
	host, port, err := net.SplitHostPort(mailbox)
	if err != nil {
		p.t.Fatal(err)
	}
	number, err := strconv.Atoi(port)
	if err != nil {
		p.t.Fatal(err)
	}
	p.mustCall("POST", "/v1/tenants", map[string]any{"name": name, "region": "us"}, nil)
	p.mustCall("POST", "/v1/tenants/"+name+"/domains", map[string]any{"name": domain}, nil)
	p.mustCall("POST", "/v1/tenants/"+name+"/connections", map[string]any{"name": "mailbox", "kind": "smtp",
		"hosts": []map[string]any{{"host": host, "port": number}}, "tls": "none"}, nil)
}

// eachProcess runs a story on a gateway over SQLite and one over PostgreSQL.
func eachProcess(t *testing.T, f func(t *testing.T, p *process)) {
	t.Run("sqlite", func(t *testing.T) { f(t, newProcess(t, "")) })
	t.Run("postgres", func(t *testing.T) {
		f(t, newProcess(t, postgresURL(t)))
	})
}
