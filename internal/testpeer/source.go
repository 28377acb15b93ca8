package testpeer

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Load is what smtp-source is to send.
type Load struct {
	Senders  int // parallel sessions; default 1
	Messages int
	Size     int // bytes of a message; default what smtp-source does
	From, To string
	Reuse    bool // several messages on a connection
	Numbered bool // recipients are numbered: 1to@…, 2to@…
}

// RunSource sends a load with Postfix's smtp-source and returns how long that
// took.
func RunSource(t testing.TB, address string, l Load) time.Duration {
	t.Helper()
	program := Need(t, "postfix", "smtp-source")[0]
	args := []string{"-s", strconv.Itoa(max(l.Senders, 1)), "-m", strconv.Itoa(l.Messages), "-f", l.From, "-t", l.To}
	if l.Size > 0 {
		args = append(args, "-l", strconv.Itoa(l.Size))
	}
	if l.Reuse {
		args = append(args, "-d")
	}
	if l.Numbered {
		args = append(args, "-N")
	}
	begun := time.Now()
	out, err := exec.CommandContext(t.Context(), program, append(args, address)...).CombinedOutput()
	if err != nil {
		t.Fatalf("smtp-source: %v\n%s", err, out)
	}
	return time.Since(begun)
}

// SMTPSink is Postfix's smtp-sink. It keeps each message in a file.
type SMTPSink struct {
	Addr string
	dir  string
}

// StartSMTPSink starts one that ends with the test; options are its own, as
// "-L" for LMTP. keep says whether messages are kept or only swallowed.
func StartSMTPSink(t testing.TB, keep bool, options ...string) *SMTPSink {
	t.Helper()
	program := Need(t, "postfix", "smtp-sink")[0]
	port, err := freePort()
	if err != nil {
		t.Fatal(err)
	}
	s := &SMTPSink{Addr: net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), dir: scratch(t, "sink")}
	if keep {
		options = append(options, "-d", filepath.Join(s.dir, "%Y%m%d%H%M%S."))
	}
	user, err := unprivileged()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, append(options, s.Addr, "1024")...)
	if user != nil {
		own(t, s.dir, int(user.Uid))
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: user}
	}
	var log strings.Builder
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { defer close(ended); cmd.Wait() }()
	afterwards(t, `kill "$1"; rm -rf "$2"`, fmt.Sprint(cmd.Process.Pid), s.dir)
	if !answers(s.Addr, false) {
		cmd.Process.Kill()
		<-ended
		t.Fatalf("smtp-sink did not start: %s", log.String())
	}
	return s
}

// Messages are the kept messages, each behind a few lines of smtp-sink's own
// ("X-Mail-Args:", "X-Rcpt-Args:").
func (s *SMTPSink) Messages(t testing.TB) []string {
	t.Helper()
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, e := range entries {
		data, err := os.ReadFile(filepath.Join(s.dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, string(data))
	}
	return all
}
