package testpeer

import (
	"net"
	"os"
	"os/exec"
	"testing"
	"time"
)

// afterwards runs a shell script with arguments when the test ends, at the
// latest when the test process does: nothing is left of a test that was
// killed. The function returned runs it at once and waits for it.
func afterwards(t testing.TB, script string, args ...string) (now func()) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	shell := exec.Command("sh", append([]string{"-c", "read _\n" + script, "sh"}, args...)...)
	shell.Stdin = r
	if err := shell.Start(); err != nil {
		w.Close()
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { defer close(ended); shell.Wait() }()
	now = func() { w.Close(); <-ended }
	t.Cleanup(now)
	return now
}

// scratch makes a directory that every user may enter, for peers that give up
// root. It is removed by whoever ends the peer.
func scratch(t testing.TB, name string) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "sallyport-"+name+"-")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// answers waits until something accepts connections at an address and, if
// greets, has said its first byte.
func answers(address string, greets bool) bool {
	for range 400 {
		if greeted(address, greets) {
			return true
		}
		time.Sleep(25 * time.Millisecond) // a program starting up has no channel to wait on
	}
	return false
}

func greeted(address string, greets bool) bool {
	c, err := net.DialTimeout("tcp", address, time.Second)
	if err != nil {
		return false
	}
	defer c.Close()
	if !greets {
		return true
	}
	c.SetReadDeadline(time.Now().Add(2 * time.Second))
	n, _ := c.Read(make([]byte, 1))
	return n == 1
}
