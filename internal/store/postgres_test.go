package store_test

import (
	"sync"
	"syscall"
	"testing"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/store"
	"github.com/sallyport-mail/sallyport/internal/testpeer"
)

// A server that goes away makes changes fail with kind later; when it is back
// they work again, and nothing that was answered is lost.
func TestPostgresRestart(t *testing.T) {
	p := testpeer.StartPostgres(t, "fsync=on")
	s := testpeer.OpenStore(t, store.Config{Dir: t.TempDir(), URL: p.Database(t)})
	var mu sync.Mutex
	var kept []store.BodyRef
	failed := 0
	for _, how := range []syscall.Signal{syscall.SIGINT, syscall.SIGQUIT} {
		down, up := make(chan struct{}), make(chan struct{})
		var wg sync.WaitGroup
		for range 8 {
			first := make(chan struct{})
			wg.Go(func() {
				for n := 0; ; n++ {
					ref, err := keep(t.Context(), s, "acme", 1000)
					mu.Lock()
					if err == nil {
						kept = append(kept, ref)
					} else if failed++; !fault.Is(err, fault.Later) {
						t.Error(err)
					}
					mu.Unlock()
					if n == 0 {
						close(first)
					}
					if err != nil {
						break
					}
				}
				<-down
				if _, err := keep(t.Context(), s, "acme", 1000); !fault.Is(err, fault.Later) {
					t.Error("while it was down:", err)
				}
				<-up
				ref, err := keep(t.Context(), s, "acme", 1000)
				if err != nil {
					t.Error("after it was back:", err)
					return
				}
				mu.Lock()
				kept = append(kept, ref)
				mu.Unlock()
			})
			<-first
		}
		p.Stop(how)
		close(down)
		if err := s.Ping(t.Context()); !fault.Is(err, fault.Later) {
			t.Error(err)
		}
		must(t, p.Start(t.Context()))
		close(up)
		wg.Wait()
	}
	for _, ref := range kept {
		if err := holds(t.Context(), s, ref); err != nil {
			t.Error(ref.ID, err)
		}
	}
	t.Logf("%d kept, %d failed", len(kept), failed)
}

const showCommit store.RoadSQL = `SELECT current_setting('synchronous_commit')`

// Whatever the address or the database says, our commits wait for the disk;
// and an address that leads nowhere is told from one that makes no sense.
func TestPostgresDurability(t *testing.T) {
	url := testpeer.SharedPostgres(t).Database(t)
	s := testpeer.OpenStore(t, store.Config{Dir: t.TempDir(), URL: url + "&options=-csynchronous_commit%3Doff"})
	must(t, s.Road.Road().Change(t.Context(), func(tx store.RoadTx) error {
		var v string
		if err := tx.QueryRow(showCommit).Scan(&v); err != nil || v != "on" {
			t.Error(v, err)
		}
		return nil
	}))
	if _, err := store.Open(t.Context(), store.Config{Dir: t.TempDir(), URL: "postgres://%"}); !fault.Is(err, fault.Invalid) || fault.HintOf(err) == "" {
		t.Error(err)
	}
	if _, err := store.Open(t.Context(), store.Config{Dir: t.TempDir(), URL: "postgres://nobody@127.0.0.1:1/x"}); !fault.Is(err, fault.Later) {
		t.Error(err)
	}
}

// Every schema there ever was comes forward, also beside the other sets.
func TestMigratePostgres(t *testing.T) {
	sets, err := store.Sets()
	must(t, err)
	for set, newest := range sets {
		for version := int64(1); version <= newest; version++ {
			url := testpeer.SharedPostgres(t).Database(t)
			if have, err := store.MigratePostgres(t.Context(), url, set, version); err != nil || have > version {
				t.Fatal(set, version, have, err)
			}
			s, err := store.Open(t.Context(), store.Config{Dir: t.TempDir(), URL: url})
			must(t, err)
			must(t, s.Ping(t.Context()))
			must(t, s.Close())
			if have, err := store.MigratePostgres(t.Context(), url, set, 0); err != nil || have != newest {
				t.Error(set, version, have, err)
			}
		}
	}
}
