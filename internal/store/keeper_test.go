package store_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/store"
	"github.com/sallyport-mail/sallyport/internal/testpeer"
)

const (
	putLog store.KeeperSQL = `INSERT INTO ledger_log (id, origin, keys, removed) VALUES (1, $1, '', 0)`
	getLog store.KeeperSQL = `SELECT origin FROM ledger_log WHERE id = 1`
)

// What was committed through the keeper's door is there when it opens again,
// and a change that failed left nothing.
func TestKeeperDatabase(t *testing.T) {
	testpeer.EachConfig(t, func(t *testing.T, c store.Config) {
		k, err := store.OpenKeeper(t.Context(), c)
		must(t, err)
		put := func(tx store.KeeperTx) error { _, err := tx.Exec(putLog, "sallyport.us"); return err }
		must(t, k.Keeper().Change(t.Context(), put))
		if err := k.Keeper().Change(t.Context(), put); !fault.Is(err, fault.Conflict) {
			t.Error("a second row with the same key:", err)
		}
		must(t, k.Close())
		k, err = store.OpenKeeper(t.Context(), c)
		must(t, err)
		defer k.Close()
		var origin string
		must(t, k.Keeper().QueryRow(t.Context(), getLog).Scan(&origin))
		if origin != "sallyport.us" {
			t.Error(origin)
		}
	})
}

// Neither process opens the other's place.
func TestKeeperApart(t *testing.T) {
	testpeer.EachConfig(t, func(t *testing.T, c store.Config) {
		k, err := store.OpenKeeper(t.Context(), c)
		must(t, err)
		must(t, k.Close())
		s, err := store.Open(t.Context(), c)
		if err == nil {
			s.Close()
		}
		if !fault.Is(err, fault.Conflict) || fault.HintOf(err) == "" {
			t.Error("the gateway opened the keeper's place:", err)
		}
	})
	testpeer.EachConfig(t, func(t *testing.T, c store.Config) {
		s, err := store.Open(t.Context(), c)
		must(t, err)
		must(t, s.Close())
		k, err := store.OpenKeeper(t.Context(), c)
		if err == nil {
			k.Close()
		}
		if !fault.Is(err, fault.Conflict) {
			t.Error("the keeper opened the gateway's place:", err)
		}
	})
}

// The keeper's directory is nobody else's to look into.
func TestKeeperDirectory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "keeper")
	k, err := store.OpenKeeper(t.Context(), store.Config{Dir: dir})
	must(t, err)
	defer k.Close()
	info, err := os.Stat(dir)
	must(t, err)
	if info.Mode().Perm() != 0o700 {
		t.Error(info.Mode())
	}
	if _, err := store.OpenKeeper(t.Context(), store.Config{}); !fault.Is(err, fault.Invalid) {
		t.Error("without a directory:", err)
	}
}
