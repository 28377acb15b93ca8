package store_test

import (
	"archive/tar"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/store"
	"github.com/sallyport-mail/sallyport/internal/testpeer"
)

// A backup is taken while mail comes and goes; what is restored from it is
// sound and holds all that was there before it began.
func TestBackupInUse(t *testing.T) {
	testpeer.EachConfig(t, func(t *testing.T, c store.Config) {
		s := testpeer.OpenStore(t, c)
		must(t, os.WriteFile(filepath.Join(c.Dir, "sallyport.toml"), []byte("# mine"), 0o600))
		var before []store.BodyRef
		for i := range 20 {
			before = append(before, mustKeep(t, s, fmt.Sprint("tenant-", i%3), i*5000))
		}
		stop := traffic(t, s)
		backup := filepath.Join(t.TempDir(), "backup.tar")
		must(t, s.Backup(t.Context(), backup))
		stop()
		if err := s.Backup(t.Context(), backup); !fault.Is(err, fault.Conflict) {
			t.Error(err)
		}

		fresh := store.Config{Dir: filepath.Join(t.TempDir(), "new")}
		if c.URL != "" {
			fresh.URL = testpeer.SharedPostgres(t).Database(t)
		}
		must(t, store.Restore(t.Context(), backup, fresh, nil))
		if err := store.Restore(t.Context(), backup, fresh, nil); !fault.Is(err, fault.Conflict) {
			t.Error(err)
		}
		again := testpeer.OpenStore(t, fresh)
		if found, err := again.Verify(t.Context()); err != nil || len(found) > 0 {
			t.Error(found, err)
		}
		for _, ref := range before {
			must(t, holds(t.Context(), again, ref))
		}
		if text, err := os.ReadFile(filepath.Join(fresh.Dir, "sallyport.toml")); string(text) != "# mine" {
			t.Error(err)
		}
		must(t, again.Control.For("acme").Change(t.Context(), func(tx store.TenantTx) error {
			return tx.Audit(store.Event{Act: "the counter goes on"})
		}))
		if rest, _ := filepath.Glob(filepath.Join(filepath.Dir(backup), ".*")); len(rest) > 0 {
			t.Error("left", rest)
		}
	})
}

// traffic keeps and drops bodies of both kinds until stop is called.
func traffic(t *testing.T, s *store.Store) (stop func()) {
	end := make(chan struct{})
	var wg, begun sync.WaitGroup
	for i := range 4 {
		begun.Add(1)
		wg.Go(func() {
			for n := 0; ; n++ {
				ref, err := keep(t.Context(), s, "busy", 20000+i*10000)
				if err == nil {
					err = drop(t.Context(), s, ref)
				}
				if err != nil {
					t.Error(err)
				}
				if n == 0 {
					begun.Done()
				}
				select {
				case <-end:
					return
				default:
				}
			}
		})
	}
	begun.Wait()
	return func() { close(end); wg.Wait() }
}

func TestRestoreRefuses(t *testing.T) {
	dir := t.TempDir()
	s := testpeer.OpenStore(t, store.Config{Dir: filepath.Join(dir, "data")})
	mustKeep(t, s, "acme", 100000)
	good := filepath.Join(dir, "good.tar")
	must(t, s.Backup(t.Context(), good))
	whole, err := os.ReadFile(good)
	must(t, err)
	for name, content := range map[string][]byte{
		"empty":      {},
		"no tar":     []byte("hello"),
		"cut":        whole[:len(whole)/2],
		"foreign":    tarOf("readme", "hello"),
		"form":       tarOf("manifest.json", `{"format":9,"store":"sqlite"}`),
		"store":      tarOf("manifest.json", `{"format":1,"store":"postgres"}`),
		"other":      tarOf("manifest.json", `{"format":1,"store":"oracle"}`),
		"newer":      tarOf("manifest.json", `{"format":1,"store":"sqlite","versions":{"road":99999,"control":1,"trace":1}}`),
		"incomplete": tarOf("manifest.json", `{"format":1,"store":"sqlite","versions":{"road":1,"control":1,"trace":1}}`),
		"way out":    tarOf("manifest.json", `{"format":1,"store":"sqlite","versions":{"road":1,"control":1,"trace":1}}`, "../out", "x"),
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(dir, "bad.tar")
			must(t, os.WriteFile(file, content, 0o600))
			to := filepath.Join(dir, "to "+name)
			if err := store.Restore(t.Context(), file, store.Config{Dir: to}, nil); !fault.Is(err, fault.Invalid) || fault.HintOf(err) == "" {
				t.Error(err)
			}
			if left, err := os.ReadDir(to); err != nil || len(left) > 0 {
				t.Error("left", left, err)
			}
		})
	}
}

// tarOf makes a tar of names and contents.
func tarOf(pairs ...string) []byte {
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for i := 0; i < len(pairs); i += 2 {
		w.WriteHeader(&tar.Header{Name: pairs[i], Size: int64(len(pairs[i+1])), Mode: 0o600})
		w.Write([]byte(pairs[i+1]))
	}
	w.Close()
	return out.Bytes()
}
