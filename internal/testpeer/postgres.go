package testpeer

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
)

// Postgres is a PostgreSQL server of a test's own.
type Postgres struct {
	dir    string // data directory
	port   int
	owner  *syscall.Credential // initdb and postgres refuse root
	server string              // path of the program postgres
	args   []string
	cmd    *exec.Cmd
	under  []string     // a program that runs it, as strace
	made   atomic.Int64 // databases
	reaper *os.File     // its end ends the server
}

// PostgresOption is a setting of the server, as after -c: "fsync=on".
type PostgresOption string

// StartPostgres starts a server that ends with the test. It runs without fsync
// unless an option says otherwise: a suite about something else need not wait
// for the disk.
func StartPostgres(t testing.TB, options ...PostgresOption) *Postgres {
	t.Helper()
	programs := Need(t, "postgresql", "initdb", "postgres")
	p, err := startPostgres(programs[0], programs[1], options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if p.cmd.ProcessState == nil {
			p.Stop(syscall.SIGINT)
		}
		p.reaper.Close()
	})
	return p
}

// startPostgres makes a server in a temporary directory. Both go when the
// reaper's pipe is closed, at the latest with this process.
func startPostgres(initdb, server string, options []PostgresOption) (*Postgres, error) {
	dir, err := os.MkdirTemp("", "sallyport-postgres-")
	if err != nil {
		return nil, err
	}
	p := &Postgres{dir: filepath.Join(dir, "data"), server: server}
	if p.reaper, err = reap(dir); err != nil {
		return nil, err
	}
	if err := p.settle(dir, initdb, options); err != nil {
		p.reaper.Close()
		return nil, err
	}
	return p, p.Start(context.Background())
}

// reap starts a shell that waits for the end of the returned pipe, ends the
// server whose process id is in dir by then, and removes dir. So nothing is
// left of a test that was killed.
func reap(dir string) (*os.File, error) {
	const script = `read _
pid=$(head -n 1 "$1/data/postmaster.pid") && kill -QUIT "$pid"
for i in 1 2 3 4 5 6 7 8 9 10; do test -e "$1/data/postmaster.pid" && sleep 0.1; done
rm -rf "$1" || { sleep 1; rm -rf "$1"; }`
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	shell := exec.Command("sh", "-c", script, "sh", dir)
	shell.Stdin = r
	if err := shell.Start(); err != nil {
		w.Close()
		return nil, err
	}
	go shell.Wait()
	return w, nil
}

func (p *Postgres) settle(dir, initdb string, options []PostgresOption) error {
	var err error
	if p.owner, err = unprivileged(); err != nil {
		return err
	}
	if p.owner != nil {
		if err := os.Chown(dir, int(p.owner.Uid), int(p.owner.Gid)); err != nil {
			return err
		}
	}
	make := p.command(initdb, "-D", p.dir, "-U", "sallyport", "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync")
	if out, err := make.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w\n%s", err, out)
	}
	if p.port, err = freePort(); err != nil {
		return err
	}
	p.args = []string{
		"-D", p.dir, "-p", strconv.Itoa(p.port), "-k", "", "-c", "listen_addresses=127.0.0.1",
		"-c", "fsync=off", "-c", "max_connections=200", "-c", "shared_buffers=64MB",
	}
	for _, o := range options {
		p.args = append(p.args, "-c", string(o))
	}
	return nil
}

// Start starts the server (again) and returns when it takes connections.
func (p *Postgres) Start(ctx context.Context) error {
	log, err := os.OpenFile(p.dir+".log", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	p.cmd = p.launch()
	p.cmd.Stdout, p.cmd.Stderr = log, log
	if err := p.cmd.Start(); err != nil {
		return err
	}
	for range 600 {
		conn, err := pgx.Connect(ctx, p.URL("postgres"))
		if err == nil {
			return conn.Close(ctx)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		time.Sleep(50 * time.Millisecond) // a server starting up has no channel to wait on
	}
	text, _ := os.ReadFile(p.dir + ".log")
	return fmt.Errorf("PostgreSQL did not start:\n%s", text)
}

// launch is the server's command. A program that runs it, as Under said, keeps
// the test's own rights: it writes where the test can.
func (p *Postgres) launch() *exec.Cmd {
	if len(p.under) == 0 {
		return p.command(p.server, p.args...)
	}
	words := append([]string{}, p.under...)
	if p.owner != nil {
		words = append(words, "setpriv", fmt.Sprint("--reuid=", p.owner.Uid), fmt.Sprint("--regid=", p.owner.Gid), "--clear-groups")
	}
	words = append(append(words, p.server), p.args...)
	cmd := p.command(words[0], words[1:]...)
	cmd.SysProcAttr = nil
	return cmd
}

// Under names a program with arguments that runs the server from its next
// Start on, as strace; none ends that.
func (p *Postgres) Under(program ...string) { p.under = program }

// Data is the server's directory.
func (p *Postgres) Data() string { return p.dir }

// Refill replaces the directory of a stopped server by what fill puts there.
func (p *Postgres) Refill(t testing.TB, fill func(dir string) error) {
	t.Helper()
	if err := os.RemoveAll(p.dir); err != nil {
		t.Fatal(err)
	}
	if err := fill(p.dir); err != nil {
		t.Fatal(err)
	}
	// Process ids begin anew with a machine that was without power.
	os.Remove(filepath.Join(p.dir, "postmaster.pid"))
	err := filepath.WalkDir(p.dir, func(name string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			err = os.Chmod(name, 0o700)
		}
		if err == nil && p.owner != nil {
			err = os.Chown(name, int(p.owner.Uid), int(p.owner.Gid))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// Stop ends the server: SIGINT for a fast shutdown, SIGQUIT for one like a
// crash.
func (p *Postgres) Stop(sig syscall.Signal) error {
	pid, err := p.pid()
	if err != nil {
		return err
	}
	if err := syscall.Kill(pid, sig); err != nil {
		return err
	}
	return p.cmd.Wait()
}

// pid is the server's own, which is not that of a program that runs it.
func (p *Postgres) pid() (int, error) {
	if len(p.under) == 0 {
		return p.cmd.Process.Pid, nil
	}
	text, err := os.ReadFile(filepath.Join(p.dir, "postmaster.pid"))
	if err != nil {
		return 0, err
	}
	first, _, _ := strings.Cut(string(text), "\n")
	return strconv.Atoi(first)
}

// URL is the address of a database of this server.
func (p *Postgres) URL(database string) string {
	u := url.URL{
		Scheme: "postgres", User: url.User("sallyport"), Path: "/" + database,
		Host: net.JoinHostPort("127.0.0.1", strconv.Itoa(p.port)), RawQuery: "sslmode=disable",
	}
	return u.String()
}

// Database makes an empty database and returns its address.
func (p *Postgres) Database(t testing.TB) string {
	t.Helper()
	c, err := pgx.ParseConfig(p.URL("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	db := stdlib.OpenDB(*c)
	defer db.Close()
	name := fmt.Sprintf("test%d", p.made.Add(1))
	create(t, db, name)
	t.Cleanup(func() { drop(c, name) })
	return p.URL(name)
}

func create(t testing.TB, db *sql.DB, name string) {
	t.Helper()
	if _, err := db.ExecContext(t.Context(), "CREATE DATABASE "+name); err != nil {
		t.Fatal(err)
	}
}

// drop gives the space of a test's database back; the server itself may be
// gone by then, and nothing hangs on it.
func drop(c *pgx.ConnConfig, name string) {
	db := stdlib.OpenDB(*c)
	defer db.Close()
	db.Exec("DROP DATABASE IF EXISTS " + name + " WITH (FORCE)")
}

func (p *Postgres) command(program string, args ...string) *exec.Cmd {
	cmd := exec.Command(program, args...)
	cmd.Dir = filepath.Dir(p.dir)
	cmd.Env = append(os.Environ(), "LC_ALL=C", "HOME="+cmd.Dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: p.owner}
	return cmd
}

// unprivileged is whom to run as when the test is root: postgres, or nobody.
func unprivileged() (*syscall.Credential, error) {
	if os.Getuid() != 0 {
		return nil, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, e1 := strconv.ParseUint(u.Uid, 10, 32)
		gid, e2 := strconv.ParseUint(u.Gid, 10, 32)
		if e1 == nil && e2 == nil {
			return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
		}
	}
	return nil, errors.New("neither postgres nor nobody is a user of this machine")
}

// freePort is a port that was free a moment ago: the server takes no listener
// from us.
func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}
