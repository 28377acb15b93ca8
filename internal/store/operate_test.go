package store_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/store"
	"github.com/sallyport-mail/sallyport/internal/testpeer"
)

// keep stores a body of size bytes for a tenant as the edge does.
func keep(ctx context.Context, s *store.Store, tenant string, size int) (store.BodyRef, error) {
	b := s.Bodies.New()
	defer b.Discard()
	if _, err := b.Write(pattern(size)); err != nil {
		return store.BodyRef{}, err
	}
	refs, err := b.Finish(ctx, tenant)
	if err != nil {
		return store.BodyRef{}, err
	}
	return refs[0], s.Road.Road().Change(ctx, func(tx store.RoadTx) error { return tx.PutBody(b, refs[0]) })
}

func mustKeep(t testing.TB, s *store.Store, tenant string, size int) store.BodyRef {
	t.Helper()
	ref, err := keep(t.Context(), s, tenant, size)
	must(t, err)
	return ref
}

func drop(ctx context.Context, s *store.Store, ref store.BodyRef) error {
	return s.Road.Road().Change(ctx, func(tx store.RoadTx) error { return tx.DropBody(ref) })
}

func pattern(size int) []byte {
	p := make([]byte, size)
	for i := range p {
		p[i] = byte(i * 7 >> 3)
	}
	return p
}

// holds is true when a body is there as it was written.
func holds(ctx context.Context, s *store.Store, ref store.BodyRef) error {
	r, err := s.Bodies.Open(ctx, ref)
	if err != nil {
		return err
	}
	defer r.Close()
	got, err := io.ReadAll(r)
	if err == nil && !bytes.Equal(got, pattern(int(ref.Size))) {
		err = fmt.Errorf("%s has other bytes", ref.ID)
	}
	return err
}

// file finds a body's file below the data directory.
func file(t *testing.T, dir, id string) string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(dir, "bodies", "*", "*", id))
	if err != nil || len(found) != 1 {
		t.Fatal(found, err)
	}
	return found[0]
}

const (
	spoilBody store.RoadSQL = `UPDATE body SET sum = sum + 1 WHERE id = $1`
	loseBody  store.RoadSQL = `DELETE FROM body WHERE id = $1`
	refTable  store.RoadSQL = `CREATE TABLE mention (tenant TEXT, id TEXT, body TEXT)`
	refRow    store.RoadSQL = `INSERT INTO mention (tenant, id, body) VALUES ($1, $2, $3)`
)

func execute(t *testing.T, s *store.Store, q store.RoadSQL, args ...any) {
	t.Helper()
	must(t, s.Road.Road().Change(t.Context(), func(tx store.RoadTx) error { _, err := tx.Exec(q, args...); return err }))
}

func TestVerify(t *testing.T) {
	testpeer.EachConfig(t, func(t *testing.T, c store.Config) {
		s := testpeer.OpenStore(t, c)
		var refs []store.BodyRef
		for i := range 6 {
			refs = append(refs, mustKeep(t, s, "Acme & Söhne", 100+i*20000))
		}
		execute(t, s, refTable)
		execute(t, s, refRow, refs[0].Tenant, "1", refs[0].ID)
		execute(t, s, refRow, refs[0].Tenant, "2", "")
		if found, err := s.Verify(t.Context()); err != nil || len(found) != 0 {
			t.Fatal(found, err)
		}

		execute(t, s, refRow, "globex", "3", refs[0].ID) // another tenant's
		execute(t, s, spoilBody, refs[1].ID)
		must(t, os.Remove(file(t, c.Dir, refs[2].ID)))
		flip(t, file(t, c.Dir, refs[3].ID))
		old := file(t, c.Dir, refs[4].ID)
		must(t, os.Chtimes(old, time.Time{}, time.Now().Add(-time.Hour)))
		execute(t, s, loseBody, refs[4].ID)
		found, err := s.Verify(t.Context())
		must(t, err)
		want := []string{"road.mention " + refs[0].ID, "road.body " + refs[1].ID, "road.body " + refs[2].ID, "road.body " + refs[3].ID}
		for _, p := range found {
			i := slices.Index(want, p.Where)
			if i < 0 && strings.HasSuffix(p.Where, refs[4].ID) {
				continue
			}
			if i < 0 {
				t.Error("unexpected", p)
				continue
			}
			want = slices.Delete(want, i, i+1)
		}
		if len(want) > 0 || len(found) != 5 {
			t.Error("not found:", want, found)
		}
	})
}

func flip(t *testing.T, path string) {
	t.Helper()
	text, err := os.ReadFile(path)
	must(t, err)
	text[len(text)/2] ^= 1
	must(t, os.WriteFile(path, text, 0o600))
}

func TestDamagedFileEndsWithAnError(t *testing.T) {
	c := store.Config{Dir: t.TempDir()}
	s := testpeer.OpenStore(t, c)
	ref := mustKeep(t, s, "acme", 100000)
	must(t, holds(t.Context(), s, ref))
	flip(t, file(t, c.Dir, ref.ID))
	if err := holds(t.Context(), s, ref); !fault.Is(err, fault.Internal) {
		t.Error(err)
	}
	must(t, os.Truncate(file(t, c.Dir, ref.ID), 5000))
	if err := holds(t.Context(), s, ref); !fault.Is(err, fault.Internal) {
		t.Error(err)
	}
}

// What is in memory after the commit is what the next process reads.
func TestReadAfterReopening(t *testing.T) {
	testpeer.EachConfig(t, func(t *testing.T, c store.Config) {
		s, err := store.Open(t.Context(), c)
		must(t, err)
		var refs []store.BodyRef
		for i := range 500 { // more than is kept in memory
			refs = append(refs, mustKeep(t, s, "acme", i*100))
		}
		for range 2 {
			for _, ref := range refs {
				must(t, holds(t.Context(), s, ref))
			}
			must(t, s.Close())
			s, err = store.Open(t.Context(), c)
			must(t, err)
		}
		must(t, s.Close())
	})
}

// A tenant's body cannot be read in another tenant's name.
func TestForeignBody(t *testing.T) {
	testpeer.EachStore(t, func(t *testing.T, s *store.Store) {
		for _, size := range []int{100, 100000} {
			ref := mustKeep(t, s, "acme", size)
			ref.Tenant = "globex"
			if _, err := s.Bodies.Open(t.Context(), ref); !fault.Is(err, fault.Missing) {
				t.Error(err)
			}
			ref.Tenant = ""
			if _, err := s.Bodies.Open(t.Context(), ref); !fault.Is(err, fault.Invalid) {
				t.Error(err)
			}
			ref.Tenant, ref.ID = "../globex", "../../../acme/"+ref.ID
			if _, err := s.Bodies.Open(t.Context(), ref); !fault.Is(err, fault.Invalid) && !fault.Is(err, fault.Missing) {
				t.Error(err)
			}
		}
	})
}

// The file of a dropped body is written over by a later one, but not while it
// is read, and not while another tenant has it too.
func TestSpareFiles(t *testing.T) {
	c := store.Config{Dir: t.TempDir()}
	s := testpeer.OpenStore(t, c)
	ctx := t.Context()
	inode := func(ref store.BodyRef) uint64 {
		info, err := os.Stat(file(t, c.Dir, ref.ID))
		must(t, err)
		return info.Sys().(*syscall.Stat_t).Ino
	}
	first := mustKeep(t, s, "acme", 200000)
	was := inode(first)
	must(t, drop(ctx, s, first))
	second := mustKeep(t, s, "globex", 100000)
	if inode(second) != was {
		t.Error("the file was not used again")
	}
	must(t, holds(ctx, s, second))

	r, err := s.Bodies.Open(ctx, second)
	must(t, err)
	must(t, drop(ctx, s, second))
	third := mustKeep(t, s, "acme", 90000)
	if inode(third) == was {
		t.Error("a file was written over while it was read")
	}
	got, err := io.ReadAll(r)
	if err != nil || !bytes.Equal(got, pattern(100000)) {
		t.Error("what was read has changed", err)
	}
	must(t, r.Close())

	b := s.Bodies.New()
	defer b.Discard()
	b.Write(pattern(100000))
	both, err := b.Finish(ctx, "acme", "globex")
	must(t, err)
	must(t, s.Road.Road().Change(ctx, func(tx store.RoadTx) error {
		must(t, tx.PutBody(b, both[0]))
		return tx.PutBody(b, both[1])
	}))
	must(t, drop(ctx, s, both[0]))
	mustKeep(t, s, "initech", 50000)
	must(t, holds(ctx, s, both[1]))
	if found, err := s.Verify(ctx); err != nil || len(found) > 0 {
		t.Error(found, err)
	}
}

func TestSweep(t *testing.T) {
	var ahead atomic.Int64
	now := func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	testpeer.EachConfig(t, func(t *testing.T, c store.Config) {
		ahead.Store(0)
		s := testpeer.OpenStore(t, c)
		kept := mustKeep(t, s, "acme", 100000)
		orphan := mustKeep(t, s, "globex", 100000)
		execute(t, s, loseBody, orphan.ID)
		unfinished := s.Bodies.New()
		unfinished.Write(pattern(100000))
		sweep := func(want int) {
			t.Helper()
			if n, err := s.Bodies.Sweep(t.Context()); n != want || err != nil {
				t.Errorf("swept %d, not %d: %v", n, want, err)
			}
		}
		sweep(0)
		sweep(0) // too young
		ahead.Store(int64(25 * time.Hour))
		sweep(0) // seen once
		sweep(2)
		sweep(0)
		must(t, holds(t.Context(), s, kept))
		if _, err := s.Bodies.Open(t.Context(), orphan); !fault.Is(err, fault.Missing) {
			t.Error(err)
		}
		if dirs, _ := filepath.Glob(filepath.Join(c.Dir, "bodies", "globex", "*")); len(dirs) != 0 {
			t.Error("the empty directory stayed", dirs)
		}
		must(t, holds(t.Context(), s, mustKeep(t, s, "globex", 100000)))
	}, func(c *store.Config) { c.Now = now })
}

func TestDiscard(t *testing.T) {
	testpeer.EachConfig(t, func(t *testing.T, c store.Config) {
		s := testpeer.OpenStore(t, c)
		ctx := t.Context()
		boom := fault.New(fault.Denied, "test", "no")
		for name, use := range map[string]func(b *store.Body) error{
			"unfinished": func(*store.Body) error { return boom },
			"finished": func(b *store.Body) error {
				_, err := b.Finish(ctx, "acme", "globex")
				must(t, err)
				return boom
			},
			"rolled back": func(b *store.Body) error {
				refs, err := b.Finish(ctx, "acme", "globex")
				must(t, err)
				return s.Road.Road().Change(ctx, func(tx store.RoadTx) error {
					must(t, tx.PutBody(b, refs[0]))
					return boom
				})
			},
		} {
			b := s.Bodies.New()
			b.Write(pattern(100000))
			if err := use(b); err != boom {
				t.Error(name, err)
			}
			b.Discard()
			files, _ := filepath.Glob(filepath.Join(c.Dir, "bodies", "*", "*", "*"))
			more, _ := filepath.Glob(filepath.Join(c.Dir, "bodies", "+incoming", "*"))
			if len(files)+len(more) > 0 || count(t, s) != 0 {
				t.Error(name, "left", files, more)
			}
		}
	})
}

func TestRoom(t *testing.T) {
	s := testpeer.OpenStore(t, store.Config{Dir: t.TempDir(), Reserve: 1 << 20})
	must(t, s.Room(1000))
	free := s.Stats().FreeBytes
	if err := s.Room(free); !fault.Is(err, fault.Later) || fault.HintOf(err) == "" {
		t.Error(err)
	}
}

const countReads store.OperatorSQL = `SELECT COUNT(*) FROM outbox WHERE act = 'operator.open'`

func TestOperatorLeavesATrace(t *testing.T) {
	var ahead atomic.Int64
	testpeer.EachStore(t, func(t *testing.T, s *store.Store) {
		ahead.Store(0)
		reads := func(reason string) (n int) {
			t.Helper()
			must(t, s.Control.Operator(reason).QueryRow(t.Context(), countReads).Scan(&n))
			return n
		}
		for _, want := range []int{1, 1, 1} {
			if n := reads("support case"); n != want {
				t.Errorf("%d events, not %d", n, want)
			}
		}
		if n := reads("another"); n != 2 {
			t.Error(n)
		}
		ahead.Store(int64(2 * time.Minute))
		if n := reads("support case"); n != 3 {
			t.Error(n)
		}
		var n int
		if err := s.Road.Operator("").QueryRow(t.Context(), countReads).Scan(&n); !fault.Is(err, fault.Invalid) {
			t.Error(err)
		}
		err := s.Road.For("acme").Change(t.Context(), func(tx store.TenantTx) error { return tx.Audit(store.Event{}) })
		if !fault.Is(err, fault.Internal) {
			t.Error(err)
		}
		must(t, s.Control.For("acme").Change(t.Context(), func(tx store.TenantTx) error {
			return tx.Audit(store.Event{Act: "domain.add", Tenant: "globex"})
		}))
		var tenant string
		must(t, s.Control.Operator("x").QueryRow(t.Context(), `SELECT tenant FROM outbox WHERE act = 'domain.add'`).Scan(&tenant))
		if tenant != "acme" {
			t.Error("an event of", tenant)
		}
	}, func(c *store.Config) {
		c.Now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	})
}
