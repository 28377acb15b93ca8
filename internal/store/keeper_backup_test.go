package store_test

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/store"
	"github.com/sallyport-mail/sallyport/internal/testpeer"
)

const (
	markLog    store.KeeperSQL = `UPDATE ledger_log SET removed = $1 WHERE id = 1`
	writeState store.KeeperSQL = `INSERT INTO keeper_state (name, value) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = excluded.value`
)

// A copy is made beside a keeper that writes, and beside none; the mark is in
// the copy alone.
func TestBackupKeeperBeside(t *testing.T) {
	const getRemoved store.KeeperSQL = `SELECT removed FROM ledger_log WHERE id = 1`
	testpeer.EachConfig(t, func(t *testing.T, c store.Config) {
		k, err := store.OpenKeeper(t.Context(), c)
		must(t, err)
		put := func(tx store.KeeperTx) error { _, err := tx.Exec(putLog, "sallyport.us"); return err }
		must(t, k.Keeper().Change(t.Context(), put))
		stop, written := make(chan struct{}), make(chan error, 1)
		go func() {
			for {
				select {
				case <-stop:
					written <- nil
					return
				default:
				}
				if err := k.Keeper().Change(t.Context(), func(tx store.KeeperTx) error {
					_, err := tx.Exec(writeState, "n", "1") // another row than the mark's, as in a keeper
					return err
				}); err != nil {
					written <- err
					return
				}
			}
		}()
		var running, stopped bytes.Buffer
		err = store.BackupKeeper(t.Context(), c, &running, markLog, 7)
		close(stop)
		must(t, err)
		must(t, <-written)
		var removed int
		must(t, k.Keeper().QueryRow(t.Context(), getRemoved).Scan(&removed))
		if removed != 0 {
			t.Error("the mark is in the database in use")
		}
		must(t, k.Close())
		must(t, store.BackupKeeper(t.Context(), c, &stopped, markLog, 7))
		for _, b := range []*bytes.Buffer{&running, &stopped} {
			to := store.Config{Dir: filepath.Join(t.TempDir(), "db")}
			must(t, store.RestoreKeeper(t.Context(), b, to))
			n, err := store.OpenKeeper(t.Context(), to)
			must(t, err)
			must(t, n.Keeper().QueryRow(t.Context(), getRemoved).Scan(&removed))
			must(t, n.Close())
			if removed != 7 {
				t.Errorf("the mark is %d in the copy", removed)
			}
		}
		if left, _ := filepath.Glob(filepath.Join(c.Dir, ".backup-*")); len(left) > 0 {
			t.Error("left behind:", left)
		}
	})
}

// What has no keeper's tables, or those of another version, is not copied, and
// nothing is made there.
func TestBackupKeeperOfNone(t *testing.T) {
	testpeer.EachConfig(t, func(t *testing.T, c store.Config) {
		if err := store.BackupKeeper(t.Context(), c, io.Discard, markLog, 7); !fault.Is(err, fault.Missing) || fault.HintOf(err) == "" {
			t.Error(err)
		}
		if made, err := os.ReadDir(c.Dir); err != nil || len(made) > 0 {
			t.Error(made, err)
		}
		k, err := store.OpenKeeper(t.Context(), c)
		must(t, err)
		must(t, k.Keeper().Change(t.Context(), func(tx store.KeeperTx) error {
			_, err := tx.Exec(`INSERT INTO version_keeper (version_id, is_applied) VALUES (999, $1)`, true)
			return err
		}))
		must(t, k.Close())
		if err := store.BackupKeeper(t.Context(), c, io.Discard, markLog, 7); !fault.Is(err, fault.Conflict) || fault.HintOf(err) == "" {
			t.Error(err)
		}
	})
}
