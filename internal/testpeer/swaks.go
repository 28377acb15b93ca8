package testpeer

import (
	"errors"
	"os/exec"
	"testing"
)

// Swaks runs swaks against a server and returns its transcript and exit code:
// 0 when the message was taken, 2x when the server refused.
func Swaks(t testing.TB, server string, args ...string) (transcript string, code int) {
	t.Helper()
	program := Need(t, "swaks", "swaks")[0]
	cmd := exec.CommandContext(t.Context(), program, append([]string{"--server", server, "--timeout", "20"}, args...)...)
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}
