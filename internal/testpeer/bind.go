package testpeer

import (
	"bytes"
	"fmt"
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

	"github.com/miekg/dns"
)

// BINDConfig says what a BIND instance is for.
type BINDConfig struct {
	Addr string // at 127.0.0.1; "" is a free port
	// Keys are statements of named.conf, as tsig-keygen prints them.
	Keys string
	// Zones are primary zones.
	Zones []BINDZone
	// Secondaries are zones that it has from a primary, by their names.
	Secondaries map[string]*BIND
	// Recursion has it follow CNAME records from one of its zones into another.
	Recursion bool
}

// BINDZone is a primary zone. It begins with an SOA record and nothing else.
type BINDZone struct {
	Name    string
	Records string // in the form of RFC 1035 5.1, names below $ORIGIN; with NS records
	Policy  string // statements in update-policy { }, "" for no updates
	// Notify are addresses of secondaries that are told of changes; others learn
	// of them in an hour.
	Notify []string
}

// BIND is a DNS server of a test's own: a process that runs in a scratch folder.
type BIND struct {
	Addr    string
	dir     string
	program string
	owner   *syscall.Credential
	cmd     *exec.Cmd
	starts  int
	stop    func()
}

// BINDKey makes a key statement of a name with tsig-keygen.
func BINDKey(t testing.TB, name, algorithm string) string {
	t.Helper()
	out, err := exec.Command(Need(t, "bind9", "tsig-keygen")[0], "-a", algorithm, name).Output()
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// StartBIND starts an instance that ends with the test.
func StartBIND(t testing.TB, c BINDConfig) *BIND {
	t.Helper()
	program := Need(t, "bind9", "named")[0]
	owner, err := unprivileged()
	if err != nil {
		t.Fatal(err)
	}
	b := &BIND{dir: scratch(t, "bind"), owner: owner}
	afterwards(t, `rm -rf "$1" || { sleep 1; rm -rf "$1"; }`, b.dir)
	// AppArmor knows named by its path, and lets it into the packaged daemon's
	// folders alone.
	b.program = filepath.Join(b.dir, "named")
	raw, err := os.ReadFile(program)
	if err == nil {
		err = os.WriteFile(b.program, raw, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	if b.Addr = c.Addr; b.Addr == "" {
		port, err := freePort()
		if err != nil {
			t.Fatal(err)
		}
		b.Addr = loopback(port)
	}
	b.configure(t, c)
	b.Start(t)
	return b
}

// Start starts the instance, again after Stop.
func (b *BIND) Start(t testing.TB) {
	t.Helper()
	log, err := os.OpenFile(filepath.Join(b.dir, "named.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	b.starts++
	b.cmd = exec.Command(b.program, "-g", "-n", "1", "-c", filepath.Join(b.dir, "named.conf"))
	b.cmd.Dir, b.cmd.Stdout, b.cmd.Stderr = b.dir, log, log
	b.cmd.SysProcAttr = &syscall.SysProcAttr{Credential: b.owner}
	if err := b.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { defer close(ended); b.cmd.Wait() }()
	kill := afterwards(t, `kill -KILL "$1" 2>/dev/null`, strconv.Itoa(b.cmd.Process.Pid))
	b.stop = func() { kill(); <-ended }
	b.ready(t)
}

// Stop stops it at once, as a server that goes away.
func (b *BIND) Stop() { b.stop() }

// ready waits until it answers: it listens before its zones are loaded.
func (b *BIND) ready(t testing.TB) {
	t.Helper()
	for range 400 {
		m := new(dns.Msg).SetQuestion("version.bind.", dns.TypeTXT)
		m.Question[0].Qclass = dns.ClassCHAOS
		log, _ := os.ReadFile(filepath.Join(b.dir, "named.log"))
		if _, err := dns.Exchange(m, b.Addr); err == nil && bytes.Count(log, []byte("all zones loaded")) == b.starts {
			return
		}
		time.Sleep(25 * time.Millisecond) // a program starting up has no channel to wait on
	}
	t.Fatalf("BIND did not start:\n%s", b.Log())
}

func (b *BIND) configure(t testing.TB, c BINDConfig) {
	t.Helper()
	_, port, err := net.SplitHostPort(b.Addr)
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	fmt.Fprintf(&text, bindOptions, b.dir, port, map[bool]string{true: "yes", false: "no"}[c.Recursion])
	text.WriteString(c.Keys)
	for _, z := range c.Zones {
		file := filepath.Join(b.dir, z.Name+".db")
		records := fmt.Sprintf("$ORIGIN %s.\n$TTL 60\n@ IN SOA ns hostmaster 1 3600 60 86400 1\n%s", z.Name, z.Records)
		if err := os.WriteFile(file, []byte(records), 0o644); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&text, "zone %q { type primary; file %q;\n", z.Name, file)
		if z.Policy != "" {
			fmt.Fprintf(&text, "update-policy { %s };\n", z.Policy)
		}
		if len(z.Notify) > 0 {
			fmt.Fprintf(&text, "notify explicit; also-notify { %s };\n", bindAddresses(t, z.Notify))
		}
		text.WriteString("};\n")
	}
	for name, primary := range c.Secondaries {
		fmt.Fprintf(&text, "zone %q { type secondary; file %q; primaries { %s }; };\n", name, filepath.Join(b.dir, name+".db"), bindAddresses(t, []string{primary.Addr}))
	}
	if err := os.WriteFile(filepath.Join(b.dir, "named.conf"), []byte(text.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	if b.owner != nil {
		own(t, b.dir, int(b.owner.Uid))
		for _, z := range c.Zones {
			own(t, filepath.Join(b.dir, z.Name+".db"), int(b.owner.Uid))
		}
	}
}

// bindOptions tells secondaries of a change at once.
const bindOptions = `options {
  directory %q;
  pid-file none;
  session-keyfile none;
  listen-on port %s { 127.0.0.1; };
  listen-on-v6 { none; };
  recursion %s;
  allow-query { any; };
  allow-transfer { any; };
  dnssec-validation no;
  notify no;
  notify-delay 0;
};
controls { };
`

// bindAddresses writes addresses as named.conf has them.
func bindAddresses(t testing.TB, all []string) string {
	t.Helper()
	var text strings.Builder
	for _, a := range all {
		ip, port, err := net.SplitHostPort(a)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&text, "%s port %s; ", ip, port)
	}
	return text.String()
}

// Texts are the TXT records that it has of a name.
func (b *BIND) Texts(t testing.TB, name string) []string {
	t.Helper()
	r, err := dns.Exchange(new(dns.Msg).SetQuestion(dns.Fqdn(name), dns.TypeTXT), b.Addr)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, rr := range r.Answer {
		if one, ok := rr.(*dns.TXT); ok {
			all = append(all, strings.Join(one.Txt, ""))
		}
	}
	slices.Sort(all)
	return all
}

// Zone are the records of a zone, by a transfer, without its SOA.
func (b *BIND) Zone(t testing.TB, name string) []string {
	t.Helper()
	answers, err := new(dns.Transfer).In(new(dns.Msg).SetAxfr(dns.Fqdn(name)), b.Addr)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for a := range answers {
		if a.Error != nil {
			t.Fatal(a.Error)
		}
		for _, rr := range a.RR {
			if rr.Header().Rrtype != dns.TypeSOA {
				all = append(all, rr.String())
			}
		}
	}
	slices.Sort(all)
	return all
}

// Log is the instance's log.
func (b *BIND) Log() string {
	raw, _ := os.ReadFile(filepath.Join(b.dir, "named.log"))
	return string(raw)
}
