package main

import (
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/keeper/client"
)

// A keeper that serve runs and that dies at each start holds nobody who asks for
// a ledger's export longer than for anything else.
func TestExportOfAKeeperThatDies(t *testing.T) {
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, keeperConfigName), []byte("no settings\n"), 0o600))
	one, err := newChild("us", dir, nil, "gate.example", slog.New(slog.DiscardHandler))
	must(t, err)
	one.program = "/bin/false"
	t.Cleanup(one.stop)
	r, err := client.NewRemote(client.RemoteConfig{Region: "us", Socket: filepath.Join(dir, socketName), Wake: one.wake, Timeout: 300 * time.Millisecond})
	must(t, err)
	t.Cleanup(r.Close)
	done := make(chan error, 1)
	go func() { done <- r.ExportLedger(t.Context(), io.Discard) }()
	select {
	case err := <-done:
		if !fault.Is(err, fault.Later) || !strings.HasPrefix(fault.Sentence(err), "the keeper of region us does not answer") {
			t.Error(err)
		}
	case <-time.After(20 * time.Second):
		t.Error("it hangs")
	}
}
