package testpeer

import (
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// PostfixConfig says what a Postfix instance is for.
type PostfixConfig struct {
	Hostname  string   // default "postfix.test"
	Domains   []string // whose mail it keeps in a Maildir, whoever the recipient is
	RelayHost string   // where everything else goes: host:port; "" refuses it
	Cert      *Cert    // offers STARTTLS with it
	// ClientCert is presented to the relay host, over TLS or not at all.
	ClientCert *Cert
	// Main are further settings of main.cf, which win.
	Main map[string]string
}

// Postfix is a whole Postfix instance of a test's own: configuration, queue
// and data in one directory, listening on one loopback port.
type Postfix struct {
	Addr string
	dir  string
	now  func()
}

// postfixServices is master.cf but for the listener, nothing in a chroot.
const postfixServices = `pickup    unix  n  -  n  60    1  pickup
cleanup   unix  n  -  n  -     0  cleanup
qmgr      unix  n  -  n  300   1  qmgr
tlsmgr    unix  -  -  n  1000? 1  tlsmgr
rewrite   unix  -  -  n  -     -  trivial-rewrite
bounce    unix  -  -  n  -     0  bounce
defer     unix  -  -  n  -     0  bounce
trace     unix  -  -  n  -     0  bounce
verify    unix  -  -  n  -     1  verify
flush     unix  n  -  n  1000? 0  flush
proxymap  unix  -  -  n  -     -  proxymap
proxywrite unix -  -  n  -     1  proxymap
smtp      unix  -  -  n  -     -  smtp
relay     unix  -  -  n  -     -  smtp
showq     unix  n  -  n  -     -  showq
error     unix  -  -  n  -     -  error
retry     unix  -  -  n  -     -  error
discard   unix  -  -  n  -     -  discard
virtual   unix  -  n  n  -     -  virtual
lmtp      unix  -  -  n  -     -  lmtp
anvil     unix  -  -  n  -     1  anvil
scache    unix  -  -  n  -     1  scache
postlog   unix-dgram n - n -   1  postlogd
`

// StartPostfix starts an instance that ends with the test.
func StartPostfix(t testing.TB, c PostfixConfig) *Postfix {
	t.Helper()
	programs := Need(t, "postfix", "postfix", "master")
	if os.Getuid() != 0 {
		t.Skip("Postfix starts as root alone: run this test as root")
	}
	p := &Postfix{dir: scratch(t, "postfix")}
	for _, d := range []string{"etc", "queue", "data", "mail", "log"} {
		if err := os.Mkdir(filepath.Join(p.dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	nobody := unprivilegedID(t, "nobody")
	own(t, filepath.Join(p.dir, "mail"), nobody)
	own(t, filepath.Join(p.dir, "data"), unprivilegedID(t, "postfix"))
	port, err := freePort()
	if err != nil {
		t.Fatal(err)
	}
	p.Addr = net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	p.configure(t, c, filepath.Dir(programs[1]), nobody)
	p.now = afterwards(t, `postfix -c "$1/etc" abort >/dev/null 2>&1; rm -rf "$1"`, p.dir)
	p.Start(t)
	return p
}

// Start starts the instance, again after Stop.
func (p *Postfix) Start(t testing.TB) {
	t.Helper()
	if out, err := p.command("postfix", "start").CombinedOutput(); err != nil {
		t.Fatalf("postfix start: %v\n%s%s", err, out, p.Log())
	}
	if !answers(p.Addr, true) {
		t.Fatalf("Postfix did not start:\n%s", p.Log())
	}
}

// Stop stops it at once, as a destination that goes away.
func (p *Postfix) Stop(t testing.TB) {
	t.Helper()
	if out, err := p.command("postfix", "abort").CombinedOutput(); err != nil {
		t.Fatalf("postfix abort: %v\n%s", err, out)
	}
}

func (p *Postfix) configure(t testing.TB, c PostfixConfig, daemons string, mailUser int) {
	t.Helper()
	main := map[string]string{
		"compatibility_level":     "3.6",
		"queue_directory":         filepath.Join(p.dir, "queue"),
		"data_directory":          filepath.Join(p.dir, "data"),
		"daemon_directory":        daemons,
		"command_directory":       "/usr/sbin",
		"mail_owner":              "postfix",
		"setgid_group":            "postdrop",
		"maillog_file":            filepath.Join(p.dir, "log", "mail.log"),
		"maillog_file_prefixes":   p.dir,
		"myhostname":              "postfix.test",
		"mydestination":           "",
		"alias_maps":              "",
		"alias_database":          "",
		"local_recipient_maps":    "",
		"inet_interfaces":         "127.0.0.1",
		"inet_protocols":          "ipv4",
		"mynetworks":              "127.0.0.0/8",
		"smtp_host_lookup":        "native",
		"smtp_dns_support_level":  "disabled",
		"default_transport":       "error:no relay host",
		"virtual_mailbox_domains": strings.Join(c.Domains, ", "),
		"virtual_mailbox_base":    filepath.Join(p.dir, "mail"),
		"virtual_mailbox_maps":    "static:box/",
		"virtual_minimum_uid":     "1",
		"virtual_uid_maps":        "static:" + strconv.Itoa(mailUser),
		"virtual_gid_maps":        "static:" + strconv.Itoa(mailUser),
	}
	if c.Hostname != "" {
		main["myhostname"] = c.Hostname
	}
	if c.RelayHost != "" {
		host, port, err := net.SplitHostPort(c.RelayHost)
		if err != nil {
			t.Fatal(err)
		}
		main["relayhost"] = "[" + host + "]:" + port
		main["default_transport"] = "smtp"
	}
	if c.Cert != nil {
		c.Cert.Write(t, filepath.Join(p.dir, "etc"), "server")
		main["smtpd_tls_security_level"] = "may"
		main["smtpd_tls_cert_file"], main["smtpd_tls_key_file"] = c.Cert.CertFile, c.Cert.Key
		main["smtpd_tls_loglevel"], main["smtpd_tls_received_header"] = "1", "yes"
	}
	if c.ClientCert != nil {
		c.ClientCert.Write(t, filepath.Join(p.dir, "etc"), "client")
		main["smtp_tls_security_level"] = "encrypt"
		main["smtp_tls_cert_file"], main["smtp_tls_key_file"] = c.ClientCert.CertFile, c.ClientCert.Key
	}
	maps.Copy(main, c.Main)
	var text strings.Builder
	for _, k := range slices.Sorted(maps.Keys(main)) {
		fmt.Fprintf(&text, "%s = %s\n", k, main[k])
	}
	p.write(t, "etc/main.cf", text.String())
	p.write(t, "etc/master.cf", p.Addr+" inet n - n - - smtpd\n"+postfixServices)
}

func (p *Postfix) write(t testing.TB, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(p.dir, name), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// command is a Postfix command on this instance.
func (p *Postfix) command(name string, args ...string) *exec.Cmd {
	return exec.Command(name, append([]string{"-c", filepath.Join(p.dir, "etc")}, args...)...)
}

// Command runs a command of Postfix (postqueue, postsuper…) on this instance.
func (p *Postfix) Command(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := p.command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", name, err, out)
	}
	return string(out)
}

// Messages are the messages in its Maildir, in the order of their arrival.
func (p *Postfix) Messages(t testing.TB) [][]byte {
	t.Helper()
	return maildir(t, filepath.Join(p.dir, "mail", "box"))
}

// Wait waits until its Maildir has n messages.
func (p *Postfix) Wait(t testing.TB, n int, patience time.Duration) [][]byte {
	t.Helper()
	return waitMail(t, n, patience, func() [][]byte { return p.Messages(t) }, p.Log)
}

// Log is the instance's log.
func (p *Postfix) Log() string {
	text, err := os.ReadFile(filepath.Join(p.dir, "log", "mail.log"))
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// CPU is what the instance has used so far: its master with every child that
// ended, and the children that run.
func (p *Postfix) CPU(t testing.TB) time.Duration {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(p.dir, "queue", "pid", "master.pid"))
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(raw)))
	if err != nil {
		t.Fatal(err)
	}
	return TreeCPU(t, pid)
}
