package testpeer

import (
	"bytes"
	"cmp"
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// DovecotConfig says what a Dovecot instance is for.
type DovecotConfig struct {
	Cert *Cert // for every listener
	// Relay is where its submission server sends what it accepted; "" has none.
	Relay string
	// RelayTLS is submission_relay_ssl: "", "starttls" or "smtps"; the relay's
	// certificate is not verified.
	RelayTLS string
	Quota    string // "10M", for each mailbox; "" has none
	// Mechanisms are those of AUTH, "plain" when empty.
	Mechanisms string
	// AfterLogin are lines of a shell script that runs before each IMAP session,
	// as nobody, with USER and IP in its environment; "" has none.
	AfterLogin string
}

// Dovecot is an instance of a test's own: every user exists, with the password
// "secret".
type Dovecot struct {
	LMTP       string // with STARTTLS
	IMAPS      string
	Submission string // with STARTTLS, "" without a relay
	dir        string
}

// DovecotPassword is every user's.
const DovecotPassword = "secret"

// StartDovecot starts an instance that ends with the test.
func StartDovecot(t testing.TB, c DovecotConfig) *Dovecot {
	t.Helper()
	program := Need(t, "dovecot-core", "dovecot")[0]
	Need(t, "dovecot-lmtpd", "lmtp")
	Need(t, "dovecot-imapd", "imap-login")
	if c.Relay != "" {
		Need(t, "dovecot-submissiond", "submission-login")
	}
	if os.Getuid() != 0 {
		t.Skip("Dovecot gives each process a user of its own: run this test as root")
	}
	d := &Dovecot{dir: scratch(t, "dovecot")}
	ports := [3]int{}
	for i := range ports {
		var err error
		if ports[i], err = freePort(); err != nil {
			t.Fatal(err)
		}
	}
	d.LMTP, d.IMAPS = loopback(ports[0]), loopback(ports[1])
	if c.Relay != "" {
		d.Submission = loopback(ports[2])
	}
	d.configure(t, c, ports)
	d.start(t, program)
	return d
}

func loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

func (d *Dovecot) start(t testing.TB, program string) {
	t.Helper()
	log, err := os.Create(filepath.Join(d.dir, "start.log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command(program, "-F", "-c", filepath.Join(d.dir, "dovecot.conf"))
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go cmd.Wait()
	afterwards(t, `kill "$1"; for i in 1 2 3 4 5 6 7 8 9 10; do kill -0 "$1" 2>/dev/null && sleep 0.1; done; rm -rf "$2"`,
		fmt.Sprint(cmd.Process.Pid), d.dir)
	if !answers(d.LMTP, true) {
		t.Fatalf("Dovecot did not start:\n%s", d.Log())
	}
}

func (d *Dovecot) configure(t testing.TB, c DovecotConfig, ports [3]int) {
	t.Helper()
	for _, sub := range []string{"run", "mail"} {
		if err := os.Mkdir(filepath.Join(d.dir, sub), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	own(t, filepath.Join(d.dir, "mail"), unprivilegedID(t, "nobody"))
	c.Cert.Write(t, d.dir, "server")
	protocols := "imap lmtp"
	if c.Relay != "" {
		protocols += " submission"
	}
	text := strings.NewReplacer("@DIR@", d.dir, "@PROTOCOLS@", protocols, "@MECHANISMS@", cmp.Or(c.Mechanisms, "plain"),
		"@LMTP@", strconv.Itoa(ports[0]), "@IMAPS@", strconv.Itoa(ports[1])).Replace(dovecotConf)
	if c.Relay != "" {
		host, port, err := net.SplitHostPort(c.Relay)
		if err != nil {
			t.Fatal(err)
		}
		ssl := "no"
		if c.RelayTLS != "" {
			ssl = c.RelayTLS
		}
		text += strings.NewReplacer("@HOST@", host, "@PORT@", port, "@SSL@", ssl,
			"@SUBMISSION@", strconv.Itoa(ports[2])).Replace(dovecotSubmission)
	}
	if c.Quota != "" {
		text += "mail_plugins = quota\nplugin {\n  quota = maildir:User quota\n  quota_rule = *:storage=" + c.Quota + "\n}\n"
	}
	if c.AfterLogin != "" {
		script := filepath.Join(d.dir, "after-login")
		if err := os.WriteFile(script, []byte("#!/bin/sh\n"+c.AfterLogin+"\nexec \"$@\"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
		text += strings.ReplaceAll(dovecotAfterLogin, "@SCRIPT@", script)
	}
	if err := os.WriteFile(filepath.Join(d.dir, "dovecot.conf"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// dovecotConf runs every process as nobody, nothing in a chroot. Wrong
// passwords cost no time: they are part of tests.
const dovecotConf = `base_dir = @DIR@/run
state_dir = @DIR@/run
log_path = @DIR@/dovecot.log
protocols = @PROTOCOLS@
listen = 127.0.0.1
default_internal_user = nobody
default_internal_group = nogroup
default_login_user = nobody
mail_location = maildir:@DIR@/mail/%u
mail_uid = nobody
mail_gid = nogroup
first_valid_uid = 1
first_valid_gid = 1
disable_plaintext_auth = yes
auth_mechanisms = @MECHANISMS@
auth_failure_delay = 0
ssl = yes
ssl_cert = <@DIR@/server.crt
ssl_key = <@DIR@/server.key
passdb {
  driver = static
  args = password=` + DovecotPassword + `
}
userdb {
  driver = static
  args = uid=nobody gid=nogroup home=@DIR@/mail/%u allow_all_users=yes
}
service anvil {
  chroot =
  unix_listener anvil-auth-penalty {
    mode = 0
  }
}
service lmtp {
  inet_listener lmtp {
    port = @LMTP@
  }
}
service imap-login {
  chroot =
  inet_listener imap {
    port = 0
  }
  inet_listener imaps {
    port = @IMAPS@
    ssl = yes
  }
}
`

const dovecotSubmission = `hostname = dovecot.test
submission_relay_host = @HOST@
submission_relay_port = @PORT@
submission_relay_ssl = @SSL@
submission_relay_ssl_verify = no
submission_relay_trusted = no
service submission-login {
  chroot =
  inet_listener submission {
    port = @SUBMISSION@
  }
  inet_listener submissions {
    port = 0
  }
}
`

const dovecotAfterLogin = `service imap {
  executable = imap after-login
}
service after-login {
  executable = script-login @SCRIPT@
  user = nobody
  unix_listener after-login {
  }
}
`

// Messages are those of a user, in the order of their arrival, unless somebody
// has read them over IMAP.
func (d *Dovecot) Messages(t testing.TB, user string) [][]byte {
	t.Helper()
	return maildir(t, filepath.Join(d.dir, "mail", user))
}

// Wait waits until a user has n messages.
func (d *Dovecot) Wait(t testing.TB, user string, n int, patience time.Duration) [][]byte {
	t.Helper()
	return waitMail(t, n, patience, func() [][]byte { return d.Messages(t, user) }, d.Log)
}

// IMAP logs in over TLS and runs commands without their tags, and returns what
// the server said.
func (d *Dovecot) IMAP(t testing.TB, ca *CA, user string, commands ...string) string {
	t.Helper()
	c, err := tls.Dial("tcp", d.IMAPS, &tls.Config{RootCAs: ca.Pool(), ServerName: "127.0.0.1"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	commands = append([]string{"LOGIN " + user + " " + DovecotPassword}, append(commands, "LOGOUT")...)
	for i, line := range commands {
		fmt.Fprintf(c, "a%d %s\r\n", i, line)
	}
	var said bytes.Buffer
	if _, err := said.ReadFrom(c); err != nil {
		t.Fatalf("IMAP: %v\n%s", err, said.String())
	}
	return said.String()
}

// Log is the instance's log.
func (d *Dovecot) Log() string {
	started, _ := os.ReadFile(filepath.Join(d.dir, "start.log"))
	ran, _ := os.ReadFile(filepath.Join(d.dir, "dovecot.log"))
	return string(started) + string(ran)
}
