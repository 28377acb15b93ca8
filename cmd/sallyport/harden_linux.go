package main

import (
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// harden takes from the process what a keeper does not need, before it holds a
// key. What the machine does not allow is said in the log; the unit of the
// service manager does the same from outside.
func harden(dir string, c keeperConfig, log *slog.Logger) {
	for _, step := range []struct {
		what string
		do   func() error
	}{
		{"no other process of this user may look into the keeper's memory", undumpable},
		{"no core dump is written", noCore},
		{"memory is not written to swap", lockMemory},
		{"no program that is started gains rights", noNewPrivileges},
		{"nothing is written outside of the keeper's folders", func() error { return confine(confinement(dir, c)) }},
	} {
		if err := step.do(); err != nil {
			log.Warn("the keeper is less confined than it could be", "not_so", step.what, "because", err.Error())
		}
	}
}

// undumpable also gives /proc/<pid> to root (proc(5), PR_SET_DUMPABLE).
func undumpable() error { return unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0) }

func noCore() error { return unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}) }

// lockMemory locks pages as they are used. With a limit on locked memory it is
// not done: the first allocation beyond the limit would end the process.
func lockMemory() error {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &limit); err != nil {
		return err
	}
	if limit.Cur != unix.RLIM_INFINITY && !may(unix.CAP_IPC_LOCK) {
		return errors.New("locked memory is limited: set LimitMEMLOCK=infinity")
	}
	return unix.Mlockall(unix.MCL_CURRENT | unix.MCL_FUTURE | unix.MCL_ONFAULT)
}

// may reports whether the process has a capability in effect.
func may(capability uint) bool {
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	return unix.Capget(&head, &data[0]) == nil && data[capability/32].Effective&(1<<(capability%32)) != 0
}

// noNewPrivileges is of each thread, so all are told.
func noNewPrivileges() error {
	return onAllThreads(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0)
}

// onAllThreads makes a system call on every thread there is; those to come
// inherit. A process with C in it cannot: its threads are not Go's alone.
func onAllThreads(call, a, b, c uintptr) error {
	_, _, err := syscall.AllThreadsSyscall(call, a, b, c)
	if err == syscall.ENOTSUP {
		return errors.New("this binary has C in it: use the unit of the service manager")
	}
	if err != 0 {
		return err
	}
	return nil
}

// confines is what a process may still do with files, and whether it needs
// TCP. An empty reason means that it can be confined.
type confines struct {
	reason string
	write  []string // folders
	list   []string // folders, names alone
	read   []string // folders and files
	tcp    bool
}

// confinement is what the settings need.
func confinement(dir string, c keeperConfig) confines {
	// The store has the folder's own name on disk, for which it opens the one above.
	n := confines{write: []string{dir}, list: []string{filepath.Dir(dir)}, read: []string{
		"/proc", "/etc", "/run/systemd/resolve", "/usr/share", "/usr/local/share", "/usr/lib/ssl", "/var/lib/ca-certificates", // resolver, roots, time zones
	}}
	if c.Socket != "" {
		n.write = append(n.write, filepath.Dir(c.Socket))
	}
	n.tcp = c.Listen != nil || c.Store != "" && c.Store != "sqlite"
	if c.Listen != nil {
		n.read = append(n.read, c.Listen.Certificate, c.Listen.Key, c.Listen.ClientCA)
	}
	for _, w := range c.Witnesses {
		if w.File != "" {
			n.write = append(n.write, filepath.Dir(w.File))
		}
		n.tcp = n.tcp || w.URL != ""
	}
	for _, k := range c.keks() {
		n.tcp = n.tcp || k.Driver == "transit"
		n.read = append(n.read, k.File, k.PassphraseFile, k.CA)
		if k.TokenFile != "" { // an agent replaces it
			n.read = append(n.read, filepath.Dir(k.TokenFile))
		}
		if k.Driver == "pkcs11" {
			n.reason = "the PKCS#11 module may need files and sockets of its own"
		}
	}
	for _, k := range c.standbyKEKs() { // which may come and go
		for _, path := range []string{k.File, k.PassphraseFile} {
			if path != "" {
				n.read = append(n.read, filepath.Dir(path))
			}
		}
	}
	if d := os.Getenv("CREDENTIALS_DIRECTORY"); d != "" {
		n.read = append(n.read, d)
	}
	if c.ACME != nil {
		n.tcp = true
		n.read = append(n.read, c.ACME.Roots, c.ACME.EABKeyFile)
		if c.ACME.DNS != nil {
			n.read = append(n.read, c.ACME.DNS.KeyFile)
		}
	}
	if c.Keys.Module != "" {
		n.reason = "the PKCS#11 module may need files and sockets of its own"
	}
	return n
}

// Rights of Landlock (landlock(7)).
const (
	readRights  = unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_READ_DIR
	fileRights  = unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_TRUNCATE
	writeRights = readRights | fileRights | unix.LANDLOCK_ACCESS_FS_MAKE_DIR | unix.LANDLOCK_ACCESS_FS_MAKE_REG | unix.LANDLOCK_ACCESS_FS_MAKE_SOCK |
		unix.LANDLOCK_ACCESS_FS_REMOVE_DIR | unix.LANDLOCK_ACCESS_FS_REMOVE_FILE | unix.LANDLOCK_ACCESS_FS_REFER
	otherRights = unix.LANDLOCK_ACCESS_FS_EXECUTE | unix.LANDLOCK_ACCESS_FS_MAKE_CHAR | unix.LANDLOCK_ACCESS_FS_MAKE_BLOCK |
		unix.LANDLOCK_ACCESS_FS_MAKE_FIFO | unix.LANDLOCK_ACCESS_FS_MAKE_SYM
	// Not airtight: Landlock does not know Multipath TCP. That nothing else is
	// left of the network is up to the service manager (PrivateNetwork=).
	tcpRights = unix.LANDLOCK_ACCESS_NET_BIND_TCP | unix.LANDLOCK_ACCESS_NET_CONNECT_TCP
)

// What each version of Landlock knows: truncation came with 3, TCP with 4.
const (
	oldestLandlock = 3
	tcpLandlock    = 4
)

// landlockVersion is the kernel's, 0 without.
func landlockVersion() int {
	v, _, err := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if err != 0 {
		return 0
	}
	return int(v)
}

// confine gives up every other right, for this process and its like to come.
func confine(n confines) error {
	version := landlockVersion()
	if version < oldestLandlock {
		return errors.New("the kernel has no Landlock, or one before Linux 6.2")
	}
	if n.reason != "" {
		return errors.New(n.reason)
	}
	rules := unix.LandlockRulesetAttr{Handled_access_fs: writeRights | otherRights}
	size := unsafe.Sizeof(rules.Handled_access_fs)
	if version >= tcpLandlock && !n.tcp {
		rules.Handled_access_net = tcpRights
		size += unsafe.Sizeof(rules.Handled_access_net)
	}
	fd, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&rules)), size, 0)
	if errno != 0 {
		return errno
	}
	defer unix.Close(int(fd))
	for _, one := range []struct {
		paths  []string
		rights uint64
	}{{n.write, writeRights}, {n.read, readRights}, {n.list, unix.LANDLOCK_ACCESS_FS_READ_DIR}} {
		for _, path := range one.paths {
			if err := allow(fd, path, one.rights); err != nil {
				return err
			}
		}
	}
	return onAllThreads(unix.SYS_LANDLOCK_RESTRICT_SELF, fd, 0, 0)
}

// allow adds a rule for what is below a path. What is not there needs none.
func allow(rules uintptr, path string, rights uint64) error {
	if path == "" {
		return nil
	}
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var stat unix.Stat_t
	if err := unix.Fstat(fd, &stat); err != nil {
		return err
	}
	if stat.Mode&unix.S_IFMT != unix.S_IFDIR {
		rights &= fileRights
	}
	rule := unix.LandlockPathBeneathAttr{Allowed_access: rights, Parent_fd: int32(fd)}
	_, _, errno := unix.Syscall6(unix.SYS_LANDLOCK_ADD_RULE, rules, unix.LANDLOCK_RULE_PATH_BENEATH, uintptr(unsafe.Pointer(&rule)), 0, 0, 0)
	runtime.KeepAlive(&rule)
	if errno != 0 {
		return errno
	}
	return nil
}
