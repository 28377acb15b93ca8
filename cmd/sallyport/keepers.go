package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/keeper/client"
)

// keeperAt is where a region's keeper is, when it is not a child of serve.
type keeperAt struct {
	Region      string `toml:"region"`
	Socket      string `toml:"socket,omitempty"`
	Address     string `toml:"address,omitempty" comment:"host:port, with certificate, key and ca."`
	Certificate string `toml:"certificate,omitempty" comment:"The gateway's client certificate (PEM)."`
	Key         string `toml:"key,omitempty"`
	CA          string `toml:"ca,omitempty" comment:"CA of the keeper's certificate (PEM)."`
}

func (k keeperAt) check(regions []string) error {
	known := false
	for _, r := range regions {
		known = known || r == k.Region
	}
	switch {
	case !known:
		return errors.New("[[keeper]] region " + k.Region + " is not one of the regions")
	case (k.Socket == "") == (k.Address == ""):
		return errors.New("[[keeper]] " + k.Region + " has a socket or an address")
	case k.Address != "" && (k.Certificate == "" || k.Key == "" || k.CA == ""):
		return errors.New("[[keeper]] " + k.Region + " with an address needs certificate, key and ca")
	}
	return nil
}

// remote makes the client of a keeper that runs elsewhere.
func (k keeperAt) remote(hostEnded func(sha256 string)) (*client.Remote, error) {
	c := client.RemoteConfig{Region: k.Region, Socket: k.Socket, Address: k.Address, HostEnded: hostEnded}
	if k.Address != "" {
		pem, err := os.ReadFile(k.CA)
		if err != nil {
			return nil, fault.Wrap(fault.Invalid, "keeper", err)
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(pem) {
			return nil, fault.New(fault.Invalid, "keeper", k.CA+" holds no certificate").WithHint("Name the PEM file of the CA of the keeper's certificate.")
		}
		c.TLS = &tls.Config{RootCAs: pool, GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			pair, err := tls.LoadX509KeyPair(k.Certificate, k.Key) // anew, so that it can be renewed
			return &pair, err
		}}
	}
	return client.NewRemote(c)
}

// child is a keeper that serve runs itself, for trying out: started when it is
// asked for the first time, started again when it ends, ended with serve.
type child struct {
	region  string
	dir     string // the keeper's folder
	base    string // domain
	hosts   []string
	log     *slog.Logger
	program string

	ctx  context.Context // of serve
	end  context.CancelFunc
	done sync.WaitGroup

	making sync.Mutex // the folder

	mu    sync.Mutex
	begun bool
	up    bool
	turn  chan struct{} // closed when up changes
}

// Times of a child.
const (
	childStart = 30 * time.Second // to be ready; it may wait for the one before it
	childEnd   = 15 * time.Second // to finish its acts
	childPause = 100 * time.Millisecond
	childPatch = 10 * time.Second // the longest pause between two starts
)

func newChild(region, dir string, hosts []string, base string, log *slog.Logger) (*child, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, fault.Wrap(fault.Internal, "keeper", err)
	}
	c := &child{region: region, dir: dir, base: base, hosts: hosts, log: log, program: program, turn: make(chan struct{})}
	c.ctx, c.end = context.WithCancel(context.Background())
	return c, nil
}

// wake returns when the keeper may be asked. It starts it at the first call.
func (c *child) wake(ctx context.Context) error {
	for {
		c.begin()
		c.mu.Lock()
		up, turn := c.up, c.turn
		c.mu.Unlock()
		if up {
			return nil
		}
		select {
		case <-turn:
		case <-ctx.Done():
			return c.away()
		case <-c.ctx.Done():
			return c.away()
		}
	}
}

// begin starts it, unless that has been done.
func (c *child) begin() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.begun && c.ctx.Err() == nil {
		c.begun = true
		c.done.Go(c.supervise)
	}
}

func (c *child) hasBegun() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.begun
}

func (c *child) away() error {
	return fault.New(fault.Later, "keeper", "the keeper of "+c.region+" does not run").WithHint("Look at the gateway's log for why it ended.")
}

// stop ends it and waits until it is gone.
func (c *child) stop() {
	c.end()
	c.done.Wait()
}

func (c *child) set(up bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.up != up {
		c.up = up
		close(c.turn)
		c.turn = make(chan struct{})
	}
}

// supervise runs it again and again, at distances that grow while it does not
// stay.
func (c *child) supervise() {
	pause := childPause
	for c.ctx.Err() == nil {
		begin := time.Now()
		err := c.run()
		c.set(false)
		if c.ctx.Err() != nil {
			return
		}
		if time.Since(begin) > childPatch {
			pause = childPause
		}
		c.log.Error("a keeper ended; it is started again", "keeper", c.region, "error", err, "after", pause.String())
		select {
		case <-c.ctx.Done():
		case <-time.After(pause):
		}
		pause = min(2*pause, childPatch)
	}
}

// run is one life of the process. Its standard input stays open as long as
// serve lives; that ends with serve, also when serve is killed, and then the
// child ends by itself.
func (c *child) run() error {
	if err := c.makeFolder(); err != nil {
		return err
	}
	cmd := exec.Command(c.program, "--data", c.dir, "keeper", "--child")
	lifeline, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	ready, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	said := &logLines{log: c.log.With("keeper", c.region)}
	cmd.Stderr = said
	if err := cmd.Start(); err != nil {
		return err
	}
	over := make(chan struct{})
	go func() {
		defer close(over)
		r := bufio.NewReader(ready)
		if line, _ := r.ReadString('\n'); line == childReady+"\n" {
			c.set(true)
		}
		io.Copy(io.Discard, r)
	}()
	late := time.AfterFunc(childStart, func() {
		if !c.isUp() {
			cmd.Process.Kill()
		}
	})
	defer late.Stop()
	gone := make(chan struct{})
	go c.follow(cmd.Process, lifeline, gone)
	<-over // before Wait, which closes the pipe
	err = cmd.Wait()
	close(gone)
	said.flush()
	return err
}

// follow ends a process when serve ends.
func (c *child) follow(p *os.Process, lifeline io.Closer, gone <-chan struct{}) {
	select {
	case <-gone:
		return
	case <-c.ctx.Done():
		lifeline.Close()
	}
	select {
	case <-gone:
	case <-time.After(childEnd):
		p.Kill()
	}
}

func (c *child) isUp() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.up
}

// makeFolder makes the folder of a child that has none. A kill leaves a whole
// one or none.
func (c *child) makeFolder() error {
	c.making.Lock()
	defer c.making.Unlock()
	if _, err := os.Stat(filepath.Join(c.dir, keeperConfigName)); !errors.Is(err, fs.ErrNotExist) {
		return fault.Wrap(fault.Invalid, "keeper", err)
	}
	fresh := c.dir + ".new"
	if err := os.RemoveAll(fresh); err != nil {
		return fault.Wrap(fault.Invalid, "keeper", err)
	}
	if err := os.MkdirAll(filepath.Dir(c.dir), 0o700); err != nil {
		return fault.Wrap(fault.Invalid, "keeper", err)
	}
	// By a process of its own: the passphrase's Argon2id takes 64 MiB, which the
	// gateway would not give back for a long time.
	args := []string{"--data", fresh, "keeper", "init", "--region", c.region, "--base-domain", c.base}
	for _, h := range c.hosts {
		args = append(args, "--host", h)
	}
	if said, err := exec.Command(c.program, args...).CombinedOutput(); err != nil {
		return fault.New(fault.Invalid, "keeper", "the folder of the keeper of "+c.region+" could not be made: "+string(bytes.TrimSpace(said))).
			WithHint("Look at the disk and the rights of " + filepath.Dir(c.dir) + ".")
	}
	if err := os.Rename(fresh, c.dir); err != nil {
		return fault.New(fault.Conflict, "keeper", c.dir+" is there and has no "+keeperConfigName+": "+err.Error()).
			WithHint("Put the keeper's folder back from a copy. A new one would not open what the old one sealed.")
	}
	return syncFolder(filepath.Dir(c.dir))
}

// logLines hands a child's lines to the log: its own are JSON, whatever else
// it says (a panic) is text.
type logLines struct {
	log  *slog.Logger
	rest []byte
}

const longestLine = 64 << 10

func (l *logLines) Write(p []byte) (int, error) {
	l.rest = append(l.rest, p...)
	for {
		line, rest, ok := bytes.Cut(l.rest, []byte("\n"))
		if !ok {
			break
		}
		l.say(line)
		l.rest = append(l.rest[:0], rest...)
	}
	if len(l.rest) > longestLine {
		l.flush()
	}
	return len(p), nil
}

func (l *logLines) flush() {
	if len(l.rest) > 0 {
		l.say(l.rest)
		l.rest = l.rest[:0]
	}
}

func (l *logLines) say(line []byte) {
	level, msg, attrs, ok := parseLogLine(line)
	if !ok {
		level, msg = slog.LevelError, string(line)
	}
	l.log.LogAttrs(context.Background(), level, msg, attrs...)
}
