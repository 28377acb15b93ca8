package store_test

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/store"
	"github.com/sallyport-mail/sallyport/internal/testpeer"
)

func TestBodies(t *testing.T) { testpeer.EachStore(t, testBodies) }

func testBodies(t *testing.T, s *store.Store) {
	ctx := t.Context()
	for _, size := range []int{0, 1, store.DefaultRowLimit, store.DefaultRowLimit + 1, 1 << 20} {
		b := s.Bodies.New()
		want := bytes.Repeat([]byte("x"), size)
		for p := want; len(p) > 0; p = p[min(len(p), 1000):] {
			b.Write(p[:min(len(p), 1000)])
		}
		refs, err := b.Finish(ctx, "acme", "globex", "acme")
		if err != nil {
			t.Fatal(err)
		}
		err = s.Road.Road().Change(ctx, func(tx store.RoadTx) error {
			for _, ref := range refs {
				if err := tx.PutBody(b, ref); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		b.Discard()
		for _, ref := range refs {
			r, err := s.Bodies.Open(ctx, ref)
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(r)
			if err != nil || !bytes.Equal(got, want) {
				t.Fatal(size, len(got), err)
			}
			r.Close()
			if err := s.Road.Road().Change(ctx, func(tx store.RoadTx) error { return tx.DropBody(ref) }); err != nil {
				t.Fatal(err)
			}
			if _, err := s.Bodies.Open(ctx, ref); !fault.Is(err, fault.Missing) {
				t.Fatal(err)
			}
		}
	}
}

const (
	put  store.OperatorSQL = `INSERT INTO outbox (time, actor, act, tenant, connection, subject, purpose, outcome) VALUES ($1, '', '', '', '', $2, '', '')`
	uniq store.OperatorSQL = `CREATE UNIQUE INDEX outbox_subject ON outbox (subject)`
)

func TestNeighboursOfAFailure(t *testing.T) { testpeer.EachStore(t, testNeighbours) }

func testNeighbours(t *testing.T, s *store.Store) {
	ctx := t.Context()
	door := s.Control.Operator("test")
	if err := door.Change(ctx, func(tx store.OperatorTx) error { _, err := tx.Exec(uniq); return err }); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	mine := errors.New("mine")
	for i := range 300 {
		wg.Go(func() {
			err := door.Change(ctx, func(tx store.OperatorTx) error {
				if _, err := tx.Exec(put, 1, fmt.Sprint(i)); err != nil {
					return err
				}
				if i%10 == 1 {
					return mine
				}
				if i%10 == 2 {
					_, err := tx.Exec(put, 1, fmt.Sprint(i))
					return err
				}
				if i%10 == 3 {
					panic("at the disco")
				}
				return nil
			})
			switch i % 10 {
			case 1:
				if !errors.Is(err, mine) {
					t.Error(i, err)
				}
			case 2:
				if !fault.Is(err, fault.Conflict) {
					t.Error(i, err)
				}
			case 3:
				if !fault.Is(err, fault.Internal) || !strings.Contains(err.Error(), "disco") {
					t.Error(i, err)
				}
			default:
				if err != nil {
					t.Error(i, err)
				}
			}
		})
	}
	wg.Wait()
	var n int
	if err := door.QueryRow(ctx, `SELECT COUNT(*) FROM outbox WHERE subject <> ''`).Scan(&n); err != nil || n != 210 {
		t.Fatal(n, err, s.Stats())
	}
	if err := s.Control.For("").QueryRow(ctx, `SELECT 1`).Scan(&n); !fault.Is(err, fault.Invalid) {
		t.Fatal(err)
	}
	if err := door.QueryRow(context.Background(), `SELECT seq FROM outbox WHERE seq = 0`).Scan(&n); !errors.Is(err, sql.ErrNoRows) {
		t.Fatal(err)
	}
}

const bodySize store.KeySQL = `SELECT size FROM body WHERE tenant = $1 AND id = $2`

func TestGet(t *testing.T) { testpeer.EachStore(t, testGet) }

func testGet(t *testing.T, s *store.Store) {
	ctx := t.Context()
	ref := mustKeep(t, s, "acme", 7)
	var size int
	if err := s.Road.For("acme").Get(ctx, bodySize, ref.ID).Scan(&size); err != nil || size != 7 {
		t.Errorf("its own row: %d, %v", size, err)
	}
	if err := s.Road.For("globex").Get(ctx, bodySize, ref.ID).Scan(&size); !errors.Is(err, sql.ErrNoRows) {
		t.Errorf("another tenant's row: %v", err)
	}
	if err := s.Road.For("").Get(ctx, bodySize, ref.ID).Scan(&size); !fault.Is(err, fault.Invalid) {
		t.Errorf("nobody's row: %v", err)
	}
	over, cancel := context.WithCancel(ctx)
	cancel()
	if err := s.Road.For("acme").Get(over, bodySize, ref.ID).Scan(&size); !errors.Is(err, context.Canceled) {
		t.Errorf("for somebody who has left: %v", err)
	}
}
