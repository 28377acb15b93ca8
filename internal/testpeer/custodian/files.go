package custodian

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/sallyport-mail/sallyport/internal/keeper/client"
)

// Files is custody by files in a directory, as a gateway from before the keeper
// has left it.
func Files(t testing.TB, dir string) *client.Files {
	t.Helper()
	for _, sub := range []string{"tls", "identities", "secrets"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	return client.ExistingFiles(dir)
}
