package test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sallyport-mail/sallyport/internal/testpeer"
)

// bootDir is the variable with the folder in which TestUnderSystemd has its
// child build a machine.
const bootDir = "SALLYPORT_TEST_BOOT"

const systemd = "/lib/systemd/systemd"

// TestUnderSystemd installs the gateway as the unit's first lines say, on a
// machine that systemd runs, and kills, restarts and stops it there.
//
// The machine is this one: its root, with what is written kept in memory, in
// namespaces of its own. That needs root and a kernel that allows it, so it is
// of the long form.
func TestUnderSystemd(t *testing.T) {
	if !chaos() {
		t.Skip("only in the long form: it needs root")
	}
	m := bootMachine(t)
	m.must("useradd", "--system", "--home", "/var/lib/sallyport", "sallyport")
	m.must("install", "-d", "-o", "sallyport", "-g", "sallyport", "-m", "700", "/var/lib/sallyport")
	m.sallyport("init", "--base-domain", "sallyport.test")
	m.must("systemctl", "enable", "sallyport.service")
	m.must("systemctl", "start", "sallyport.service")
	m.active()
	sink := m.command(testpeer.Need(t, "postfix", "smtp-sink")[0], "-u", "nobody", "127.0.0.1:2601", "100")
	if err := sink.Start(); err != nil {
		t.Fatal(err)
	}
	m.sallyport("tenant", "add", "acme", "--region", "us")
	m.sallyport("domain", "add", "acme", "acme.test")
	m.sallyport("connection", "add", "acme", "mailbox", "--kind", "smtp", "--host", "127.0.0.1", "--port", "2601", "--tls", "none")
	first := m.send(1)
	m.isConfined()

	m.must("kill", "-KILL", first)
	m.active()
	if again := m.send(2); again == first {
		t.Error("the gateway was killed and is the same process")
	}
	m.must("systemctl", "stop", "sallyport.service")
	if said := m.must("systemctl", "show", "-p", "Result,ActiveState,ExecMainStatus", "sallyport.service"); said != "Result=success\nExecMainStatus=0\nActiveState=inactive\n" {
		t.Errorf("after the stop: %s", said)
	}
	if said := m.must("journalctl", "--unit", "sallyport.service", "--output", "cat"); strings.Contains(said, "not permitted") || strings.Contains(said, "denied") {
		t.Errorf("the unit forbids what the gateway does:\n%s", said)
	}
}

// machine is a systemd in namespaces of its own.
type machine struct {
	t   *testing.T
	pid int
}

// bootMachine starts one and waits until systemd answers.
func bootMachine(t *testing.T) *machine {
	if os.Geteuid() != 0 {
		t.Fatal("namespaces with a root of their own need root")
	}
	dir := t.TempDir()
	for name, from := range map[string]string{"sallyport": binary(t), "sallyport.service": unitFile} {
		data, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	testpeer.Need(t, "systemd", "systemctl", "journalctl")
	cmd := exec.Command(os.Args[0], "-test.run=^TestMachine$")
	cmd.Env = append(os.Environ(), bootDir+"="+dir)
	said := &lockedBuffer{}
	cmd.Stdout, cmd.Stderr = said, said
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Pdeathsig:  syscall.SIGKILL,
		Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS | unix.CLONE_NEWNET,
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		removeGroups(t)
	})
	m := &machine{t: t, pid: cmd.Process.Pid}
	var state string
	for range 300 {
		out, _ := m.command("systemctl", "is-system-running").Output()
		state = strings.TrimSpace(string(out))
		if state == "running" || state == "degraded" {
			return m
		}
		time.Sleep(100 * time.Millisecond) // a machine starting up has no channel to wait on
	}
	t.Fatalf("systemd is %q: %s", state, said)
	return nil
}

// command is a program on the machine.
func (m *machine) command(args ...string) *exec.Cmd {
	return exec.Command("nsenter", append([]string{"--target", strconv.Itoa(m.pid), "--mount", "--pid", "--ipc", "--uts", "--net", "--"}, args...)...)
}

func (m *machine) must(args ...string) string {
	m.t.Helper()
	out, err := m.command(args...).CombinedOutput()
	if err != nil {
		log, _ := m.command("journalctl", "--no-pager", "--lines", "40").CombinedOutput()
		m.t.Fatalf("%s: %v\n%s\n%s", strings.Join(args, " "), err, out, log)
	}
	return string(out)
}

// sallyport is a verb as the service's user.
func (m *machine) sallyport(args ...string) string {
	m.t.Helper()
	return m.must(append([]string{"runuser", "-u", "sallyport", "--", "/usr/local/bin/sallyport", "--data", "/var/lib/sallyport/data"}, args...)...)
}

// active waits until the gateway greets on port 25.
func (m *machine) active() {
	m.t.Helper()
	var said []byte
	for range 100 {
		said, _ = m.command("swaks", "--server", "127.0.0.1:25", "--quit-after", "HELO").CombinedOutput()
		if strings.Contains(string(said), "250") {
			return
		}
		time.Sleep(100 * time.Millisecond) // as above
	}
	m.t.Fatalf("nobody greets on port 25:\n%s\n%s", said, m.must("systemctl", "status", "--no-pager", "sallyport.service"))
}

// send has n messages delivered in all, one of them new, and tells the
// gateway's process.
func (m *machine) send(n int) (pid string) {
	m.t.Helper()
	m.must("swaks", "--server", "127.0.0.1:25", "--from", "a@example.org", "--to", "b@acme.test")
	var list []struct{ State string }
	for range 100 {
		if err := json.Unmarshal([]byte(m.sallyport("message", "list", "--tenant", "acme", "--state", "delivered", "--json")), &list); err != nil {
			m.t.Fatal(err)
		}
		if len(list) == n {
			return strings.TrimSpace(m.must("systemctl", "show", "-p", "MainPID", "--value", "sallyport.service"))
		}
		time.Sleep(100 * time.Millisecond) // as above
	}
	m.t.Fatalf("%d messages are delivered, not %d: %+v", len(list), n, list)
	return ""
}

// isConfined looks at what the kernel holds the gateway to.
func (m *machine) isConfined() {
	m.t.Helper()
	pid := strings.TrimSpace(m.must("systemctl", "show", "-p", "MainPID", "--value", "sallyport.service"))
	status := m.must("cat", "/proc/"+pid+"/status")
	for _, want := range []string{"CapEff:\t0000000000000400", "CapBnd:\t0000000000000400", "NoNewPrivs:\t1", "Seccomp:\t2"} {
		if !strings.Contains(status, want+"\n") {
			m.t.Errorf("the gateway's status has no %q:\n%s", want, status)
		}
	}
	if strings.Contains(status, "\nUid:\t0") {
		m.t.Error("the gateway runs as root")
	}
}

// TestMachine is the child of TestUnderSystemd: process 1 of the namespaces.
func TestMachine(t *testing.T) {
	dir := os.Getenv(bootDir)
	if dir == "" {
		t.Skip("only as a child of TestUnderSystemd")
	}
	runtime.LockOSThread() // the thread that leaves its group is the one that becomes systemd
	if err := build(dir); err != nil {
		t.Fatal(err)
	}
	// pivot_root(2): both roots may be one place, from which the old is taken.
	if err := errors.Join(os.Chdir(filepath.Join(dir, "root")), unix.PivotRoot(".", "."), unix.Unmount(".", unix.MNT_DETACH)); err != nil {
		t.Fatal(err)
	}
	err := unix.Exec(systemd, []string{systemd, "--system", "--log-target=journal-or-kmsg", "--show-status=0", "--unit=basic.target"},
		[]string{"container=sallyport-test", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"})
	t.Fatal(err)
}

// build makes the machine's root below dir.
func build(dir string) error {
	if err := leaveGroups(); err != nil {
		return err
	}
	root, kept := filepath.Join(dir, "root"), filepath.Join(dir, "kept")
	mount := func(kind, at string, flags uintptr, options string) error {
		at = filepath.Join(root, at)
		if err := os.MkdirAll(at, 0o755); err != nil {
			return err
		}
		return wrapped(unix.Mount(kind, at, kind, flags, options), at)
	}
	if err := errors.Join(
		wrapped(unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""), "/"),
		os.MkdirAll(kept, 0o755),
		wrapped(unix.Mount("tmpfs", kept, "tmpfs", 0, ""), kept),
		os.Mkdir(filepath.Join(kept, "upper"), 0o755), os.Mkdir(filepath.Join(kept, "work"), 0o755),
		mount("overlay", "", 0, "lowerdir=/,upperdir="+kept+"/upper,workdir="+kept+"/work"),
		mount("proc", "proc", 0, ""), mount("tmpfs", "run", 0, "mode=755"), mount("tmpfs", "tmp", 0, ""), mount("tmpfs", "dev", 0, "mode=755"),
		mount("devpts", "dev/pts", 0, "newinstance,ptmxmode=666"), mount("tmpfs", "dev/shm", 0, ""), os.Symlink("pts/ptmx", root+"/dev/ptmx"),
		mount("sysfs", "sys", unix.MS_RDONLY, ""),
		// The kernel's settings are the real machine's.
		wrapped(unix.Mount(root+"/proc/sys", root+"/proc/sys", "", unix.MS_BIND, ""), "/proc/sys"),
		wrapped(unix.Mount("", root+"/proc/sys", "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""), "/proc/sys"),
	); err != nil {
		return err
	}
	return errors.Join(mountGroups(mount), devices(root), install(dir, root))
}

func wrapped(err error, what string) error {
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

func devices(root string) error {
	for _, name := range []string{"null", "zero", "full", "random", "urandom", "tty"} {
		at := filepath.Join(root, "dev", name)
		if err := os.WriteFile(at, nil, 0o666); err != nil {
			return err
		}
		if err := unix.Mount("/dev/"+name, at, "", unix.MS_BIND, ""); err != nil {
			return wrapped(err, at)
		}
	}
	return nil
}

// install puts the gateway and its unit where an operator does, and turns off
// what belongs to the real machine.
func install(dir, root string) error {
	units := filepath.Join(root, "run/systemd/system")
	err := os.MkdirAll(units, 0o755)
	for _, off := range []string{"systemd-sysctl", "systemd-modules-load", "systemd-remount-fs", "systemd-udevd", "systemd-udev-trigger", "systemd-random-seed", "systemd-tmpfiles-setup", "modprobe@", "apt-daily", "man-db"} {
		err = errors.Join(err, os.Symlink("/dev/null", filepath.Join(units, off+".service")))
	}
	modes := map[string]os.FileMode{"sallyport": 0o755, "sallyport.service": 0o644}
	for name, to := range map[string]string{"sallyport": "usr/local/bin/sallyport", "sallyport.service": "etc/systemd/system/sallyport.service"} {
		data, e := os.ReadFile(filepath.Join(dir, name))
		to = filepath.Join(root, to)
		err = errors.Join(err, e, os.MkdirAll(filepath.Dir(to), 0o755), os.WriteFile(to, data, modes[name]))
	}
	return err
}

// Control groups: one tree on newer machines, on older ones one for each
// controller, of which systemd needs its own and the unified one.
const (
	groups   = "/sys/fs/cgroup"
	ourGroup = "sallyport-test"
)

func groupTrees() []string {
	if _, err := os.Stat(groups + "/cgroup.controllers"); err == nil {
		return []string{groups}
	}
	return []string{groups + "/systemd", groups + "/unified"}
}

// leaveGroups makes a group of our own the root of what the machine sees.
func leaveGroups() error {
	for _, tree := range groupTrees() {
		ours := filepath.Join(tree, ourGroup)
		if err := errors.Join(os.MkdirAll(ours, 0o755), os.WriteFile(ours+"/cgroup.procs", []byte("0"), 0)); err != nil {
			return err
		}
	}
	return wrapped(unix.Unshare(unix.CLONE_NEWCGROUP), "control groups")
}

func mountGroups(mount func(kind, at string, flags uintptr, options string) error) error {
	if len(groupTrees()) == 1 {
		return mount("cgroup2", groups, 0, "")
	}
	return errors.Join(
		mount("tmpfs", groups, 0, "mode=755"),
		mount("cgroup", groups+"/systemd", 0, "none,name=systemd,xattr"),
		mount("cgroup2", groups+"/unified", 0, ""),
	)
}

// removeGroups removes what the machine has left, the innermost first.
func removeGroups(t *testing.T) {
	for _, tree := range groupTrees() {
		var dirs []string
		filepath.WalkDir(filepath.Join(tree, ourGroup), func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				dirs = append(dirs, path)
			}
			return nil
		})
		for i := len(dirs) - 1; i >= 0; i-- {
			if err := unix.Rmdir(dirs[i]); err != nil {
				t.Errorf("%s: %v", dirs[i], err)
			}
		}
	}
}
