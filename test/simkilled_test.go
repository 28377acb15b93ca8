package test

import (
	"encoding/json"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/sallyport-mail/sallyport/internal/exchange/sim"
)

// simProcess is a simulated Microsoft 365 as a process of its own.
type simProcess struct {
	t          *testing.T
	dir        string
	smtp, http string
	cmd        *exec.Cmd

	mu    sync.Mutex
	begun []time.Time // of each life
}

func startSim(t *testing.T) *simProcess {
	t.Helper()
	addrs := freeAddresses(t, 2)
	s := &simProcess{t: t, dir: filepath.Join(t.TempDir(), "m365"), smtp: addrs[0], http: addrs[1]}
	s.start()
	t.Cleanup(s.kill)
	return s
}

func (s *simProcess) start() {
	s.t.Helper()
	s.mu.Lock()
	s.begun = append(s.begun, time.Now())
	s.mu.Unlock()
	s.cmd = exec.Command(binary(s.t), "sim", "m365", "--data", s.dir, "--tenants", "1", "--listen-smtp", s.smtp, "--listen-http", s.http, "--log-level", "error")
	said := &lockedBuffer{}
	s.cmd.Stderr = said
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	waitFor(s.t, "the simulator", func() bool { return greets(s.smtp) })
	if strings.Contains(said.String(), "does not know") {
		s.t.Errorf("%s", said)
	}
}

func (s *simProcess) kill() {
	s.cmd.Process.Kill()
	s.cmd.Wait()
}

// life tells in which life something happened.
func (s *simProcess) life(at time.Time) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for n < len(s.begun) && !at.Before(s.begun[n]) {
		n++
	}
	return n
}

// arrivals are what it has written down; a line that a kill has cut is none.
func (s *simProcess) arrivals() []sim.Arrival {
	s.t.Helper()
	raw, err := os.ReadFile(filepath.Join(s.dir, "arrivals.json"))
	if err != nil && !os.IsNotExist(err) {
		s.t.Error(err)
	}
	var all []sim.Arrival
	for line := range strings.Lines(string(raw)) {
		var row struct {
			R sim.Arrival `json:"r"`
		}
		if strings.HasSuffix(line, "\n") && json.Unmarshal([]byte(line), &row) == nil {
			all = append(all, row.R)
		}
	}
	return all
}

// TestReplaceSimulatorKilled kills the simulator again and again while
// identities are replaced and one is compromised, and mail flows: all of it
// comes to its end, and what arrives twice had not been answered for.
func TestReplaceSimulatorKilled(t *testing.T) {
	s := startSim(t)
	list, err := sim.ListDir(s.dir)
	if err != nil {
		t.Fatal(err)
	}
	c := customerOf(t, list[0], list[0].CAFile, s.arrivals)
	stop, sent := make(chan struct{}), 0
	var load sync.WaitGroup
	load.Go(func() { sent = c.load(stop, 2*time.Millisecond) })
	c.await(10)
	began := time.Now()
	for i := range 3 {
		before := c.active("smtp-client")
		s.killWhile(3, func() { c.cli("connection", "replace", "acme", "mailbox") }) // asked for again below
		r := object[replacement](c.process, "connection", "replace", "acme", "mailbox", "--wait")
		now := c.active("smtp-client")
		if !r.OK || now.Epoch <= before.Epoch || now.Name != r.To {
			t.Fatalf("replacement %d: %+v, active is %+v\n%s", i, r, now, c.log)
		}
	}
	stolen := c.active("smtp-client")
	s.killWhile(3, func() { c.cli("identity", "compromise", stolen.ID, "--json") }) // that may end before it is done
	r := object[replacement](c.process, "identity", "compromise", stolen.ID)
	if !r.OK || !r.OldRefused || r.Identity.State != "compromised" || r.Next == nil || r.Next.Epoch <= stolen.Epoch {
		t.Errorf("%+v\n%s", r, c.log)
	}
	last := c.active("smtp-client")
	moved := time.Now()
	close(stop)
	load.Wait()
	// A message that got no answer waits longer than others before it is sent
	// again, since it may have arrived.
	c.mustCall("POST", "/v1/queue/retry", map[string]any{"all": true}, nil)
	all := c.await(sent)
	t.Logf("%d messages, %d arrivals over %d lives of the simulator in %s", sent, all, len(s.begun), time.Since(began).Round(time.Millisecond))
	s.onlyUnanswered()
	if names := c.connectors(); len(names) != 1 || names[0] != last.Name {
		t.Errorf("the connectors name %v, not %s", names, last.Name)
	}
	for _, a := range s.arrivals() {
		if a.Time.After(moved) && a.Certificate != last.Name {
			t.Errorf("%s came as %q after the move to %s", a.MessageID, a.Certificate, last.Name)
		}
	}
	for _, i := range object[[]identity](c.process, "identity", "list", "--tenant", "acme") {
		if i.Purpose == "smtp-client" && (i.State == "active") != (i.ID == last.ID) {
			t.Errorf("%+v beside %s", i, last.ID)
		}
	}
	c.must("connection", "test", "acme", "mailbox")
}

// killWhile kills the simulator at some moments while an act runs and after it,
// and leaves it running.
func (s *simProcess) killWhile(kills int, act func()) {
	s.t.Helper()
	acting := make(chan struct{})
	go func() { defer close(acting); act() }()
	for range kills {
		time.Sleep(time.Duration(rand.IntN(250)) * time.Millisecond) // the moment of a kill is what is random here
		s.kill()
		time.Sleep(time.Duration(rand.IntN(100)) * time.Millisecond)
		s.start()
	}
	<-acting
}

// onlyUnanswered holds that a message came a second time only where its first
// had no answer: the simulator was killed with it, so that nothing else came by
// that connection.
func (s *simProcess) onlyUnanswered() {
	s.t.Helper()
	type link struct {
		life   int
		remote string
	}
	all := s.arrivals()
	latest := map[link]int{}
	for i, a := range all {
		latest[link{s.life(a.Time), a.Remote}] = i
	}
	first := map[string]int{}
	doubled := 0
	for i, a := range all {
		if !strings.HasSuffix(a.MessageID, "@example.org>") {
			continue
		}
		before, twice := first[a.MessageID]
		first[a.MessageID] = i
		if !twice {
			continue
		}
		doubled++
		from := all[before]
		if at := (link{s.life(from.Time), from.Remote}); latest[at] != before || s.life(a.Time) == at.life {
			s.t.Errorf("%s came at %s and again at %s, and the first was answered", a.MessageID, from.Time, a.Time)
		}
	}
	s.t.Logf("%d of %d came twice, each without an answer to its first", doubled, len(first))
}
