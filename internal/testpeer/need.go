package testpeer

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// Need returns the paths of programs, found in PATH, in the places where
// Debian keeps servers. When one is missing the test is skipped, or fails
// under CI=true.
func Need(t testing.TB, pkg string, programs ...string) []string {
	t.Helper()
	paths := make([]string, len(programs))
	for i, program := range programs {
		path, ok := find(program)
		if !ok {
			Missing(t, pkg, program)
		}
		paths[i] = path
	}
	return paths
}

// Missing skips the test for want of a Debian package; under CI=true it fails.
func Missing(t testing.TB, pkg, what string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf("%s is missing: apt-get install %s", what, pkg)
	}
	t.Skipf("%s is missing: apt-get install %s", what, pkg)
}

// DataSet is the path of a file of the shared data sets; without them the test
// is skipped.
func DataSet(t testing.TB, elements ...string) string {
	t.Helper()
	root := os.Getenv("SALLYPORT_DATA_SETS")
	if root == "" {
		root = besideRepository()
	}
	path := filepath.Join(append([]string{root}, elements...)...)
	if _, err := os.Stat(path); err != nil {
		t.Skipf("no data set %s: set SALLYPORT_DATA_SETS", filepath.Join(elements...))
	}
	return path
}

// besideRepository is ../shared/data seen from the root of the repository,
// which is where go.mod is.
func besideRepository() string {
	dir, err := os.Getwd()
	for err == nil && dir != "/" {
		if _, e := os.Stat(filepath.Join(dir, "go.mod")); e == nil {
			return filepath.Join(dir, "..", "shared", "data")
		}
		dir = filepath.Dir(dir)
	}
	return filepath.Join("..", "shared", "data")
}

func find(program string) (string, bool) {
	if path, err := exec.LookPath(program); err == nil {
		return path, true
	}
	for _, folder := range []string{"/usr/sbin", "/sbin", "/usr/lib/postfix/sbin", "/usr/lib/dovecot", "/usr/lib/postgresql/*/bin"} {
		found, err := filepath.Glob(filepath.Join(folder, program))
		if err == nil && len(found) > 0 {
			return found[len(found)-1], true
		}
	}
	return "", false
}
