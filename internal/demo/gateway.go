package demo

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/sallyport-mail/sallyport/internal/api/client"
)

// gateway is the gateway's process, which is killed and started again.
type gateway struct {
	binary, dir, smtp, api string

	mu  sync.Mutex
	cmd *exec.Cmd
	log *bytes.Buffer
}

// newGateway runs init in a folder below dir. Its ports are free ones: they
// are fixed in the settings because the second process must have them again.
func newGateway(ctx context.Context, binary, dir string) (*gateway, error) {
	ports, err := freePorts(3)
	if err != nil {
		return nil, err
	}
	g := &gateway{binary: binary, dir: filepath.Join(dir, "data"), smtp: ports[0], api: ports[2]}
	out, err := exec.CommandContext(ctx, binary, "init", "--data", g.dir, "--base-domain", "sallyport.test",
		"--smtp", g.smtp, "--submission", ports[1], "--api", g.api, "--regions", strings.Join(regions(), ",")).CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("init: %w\n%s", err, out)
	}
	// A demonstration comes from one address, which would meet the limits that
	// a real sender has.
	return g, g.liftLimits()
}

// liftLimits appends limits for a single busy address to the settings.
func (g *gateway) liftLimits() error {
	path := filepath.Join(g.dir, "sallyport.toml")
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString("\n[limits]\nconnections_per_ip = 500\nconnections_per_network = 500\nconnects_per_ip_minute = 1000000\nmessages_per_ip_minute = 1000000\nrecipients_per_ip_minute = 1000000\n")
	if closed := f.Close(); err == nil {
		err = closed
	}
	return err
}

// freePorts finds addresses that nobody listens on.
func freePorts(n int) ([]string, error) {
	var out []string
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close() // all are held until the last is found, so that they differ
		out = append(out, l.Addr().String())
	}
	return out, nil
}

// start runs serve and waits until it is ready.
func (g *gateway) start(ctx context.Context) error {
	g.mu.Lock()
	g.log = &bytes.Buffer{}
	g.cmd = exec.Command(g.binary, "serve", "--data", g.dir, "--log-level", "warn")
	g.cmd.Stderr = g.log
	err := g.cmd.Start()
	g.mu.Unlock()
	if err != nil {
		return err
	}
	deadline := time.Now().Add(15 * time.Second)
	for time.Now().Before(deadline) {
		if err = g.client().Do(ctx, "GET", "/readyz", nil, nil, nil); err == nil {
			return nil
		}
		if pause(ctx, 20*time.Millisecond) != nil {
			return ctx.Err()
		}
	}
	g.kill()
	return fmt.Errorf("the gateway did not become ready: %w\n%s", err, g.log)
}

// run is a command of an operator at a shell. Its JSON is read into v, nil for
// none.
func (g *gateway) run(ctx context.Context, v any, args ...string) error {
	c := exec.CommandContext(ctx, g.binary, append([]string{"--data", g.dir}, args...)...)
	var said bytes.Buffer
	c.Stderr = &said
	out, err := c.Output()
	if err != nil {
		return fmt.Errorf("sallyport %s: %w\n%s%s", strings.Join(args, " "), err, out, &said)
	}
	if v == nil {
		return nil
	}
	return json.Unmarshal(out, v)
}

// kill ends the process as a power cut would, and waits until it is gone.
func (g *gateway) kill() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.cmd == nil || g.cmd.Process == nil {
		return
	}
	g.cmd.Process.Kill()
	g.cmd.Wait()
	g.cmd = nil
}

func (g *gateway) pid() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.cmd == nil || g.cmd.Process == nil {
		return 0
	}
	return g.cmd.Process.Pid
}

func (g *gateway) client() *client.Client {
	token, _ := os.ReadFile(filepath.Join(g.dir, "operator.token"))
	return &client.Client{Base: "http://" + g.api, Token: strings.TrimSpace(string(token))}
}

// status is the part of the gateway's figures that is shown.
type status struct {
	Queue struct {
		Queued   int64 `json:"queued"`
		InFlight int64 `json:"in_flight"`
	} `json:"queue"`
}

func (g *gateway) status(ctx context.Context) (s status, err error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	err = g.client().Do(ctx, "GET", "/v1/status", nil, nil, &s)
	return s, err
}
