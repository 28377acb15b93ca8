package testpeer

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// SoftHSM is a token of SoftHSM2 in a folder of a test's own.
type SoftHSM struct {
	Module  string // the PKCS#11 module
	Label   string // the token's
	PIN     string // the user's
	PINFile string // mode 0600
	files   string
	program string
}

// StartSoftHSM makes a token. The module reads its settings when a process
// initialises it, from the environment, which is the whole process's: tests
// that use it don't run in parallel, and close the module before they end.
func StartSoftHSM(t testing.TB) *SoftHSM {
	t.Helper()
	s := &SoftHSM{Module: softHSMModule(t), Label: "suite", PIN: "0123-user", program: Need(t, "softhsm2", "softhsm2-util")[0]}
	dir := t.TempDir()
	s.files, s.PINFile = filepath.Join(dir, "tokens"), filepath.Join(dir, "pin")
	settings := filepath.Join(dir, "softhsm2.conf")
	if err := os.Mkdir(s.files, 0o700); err != nil {
		t.Fatal(err)
	}
	for path, text := range map[string]string{
		settings:  "directories.tokendir = " + s.files + "\nobjectstore.backend = file\nlog.level = ERROR\n",
		s.PINFile: s.PIN + "\n",
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("SOFTHSM2_CONF", settings)
	s.AddToken(t, s.Label)
	return s
}

// AddToken makes one more token, with the same PIN.
func (s *SoftHSM) AddToken(t testing.TB, label string) {
	t.Helper()
	out, err := exec.Command(s.program, "--init-token", "--free", "--label", label, "--pin", s.PIN, "--so-pin", "9876-officer").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

// Away takes the files of the token away, as a disk or a network that is gone.
func (s *SoftHSM) Away(t testing.TB) {
	t.Helper()
	if err := os.Rename(s.files, s.files+".away"); err != nil {
		t.Fatal(err)
	}
}

// Back brings them back.
func (s *SoftHSM) Back(t testing.TB) {
	t.Helper()
	if err := os.Rename(s.files+".away", s.files); err != nil {
		t.Fatal(err)
	}
}

func softHSMModule(t testing.TB) string {
	t.Helper()
	for _, pattern := range []string{"/usr/lib/softhsm/libsofthsm2.so", "/usr/lib/*/softhsm/libsofthsm2.so", "/usr/lib64/pkcs11/libsofthsm2.so", "/usr/local/lib/softhsm/libsofthsm2.so"} {
		if found, err := filepath.Glob(pattern); err == nil && len(found) > 0 {
			return found[0]
		}
	}
	Missing(t, "softhsm2", "libsofthsm2.so")
	return ""
}
