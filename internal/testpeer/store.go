package testpeer

import (
	"sync"
	"testing"

	"github.com/sallyport-mail/sallyport/internal/store"
)

// sharedPostgres is the one server that all suites of a test process use, each
// with databases of its own; it starts with the first that asks.
var sharedPostgres = sync.OnceValues(func() (*Postgres, error) {
	initdb, _ := find("initdb")
	server, _ := find("postgres")
	return startPostgres(initdb, server, nil)
})

// SharedPostgres returns a server that this test process shares; it runs
// without fsync and must not be stopped.
func SharedPostgres(t testing.TB) *Postgres {
	t.Helper()
	Need(t, "postgresql", "initdb", "postgres")
	p, err := sharedPostgres()
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// EachStore runs f as two subtests, with an empty store on SQLite and one on
// PostgreSQL. Options change the store's configuration before it is opened.
func EachStore(t *testing.T, f func(t *testing.T, s *store.Store), options ...func(*store.Config)) {
	t.Helper()
	EachConfig(t, func(t *testing.T, c store.Config) { f(t, OpenStore(t, c)) }, options...)
}

// EachConfig is EachStore for suites that open the store themselves, perhaps
// more than once.
func EachConfig(t *testing.T, f func(t *testing.T, c store.Config), options ...func(*store.Config)) {
	t.Helper()
	t.Run("sqlite", func(t *testing.T) { f(t, config(t, "", options)) })
	t.Run("postgres", func(t *testing.T) { f(t, config(t, SharedPostgres(t).Database(t), options)) })
}

// OpenStore opens a store that is closed with the test.
func OpenStore(t testing.TB, c store.Config) *store.Store {
	t.Helper()
	s, err := store.Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func config(t testing.TB, url string, options []func(*store.Config)) store.Config {
	c := store.Config{Dir: t.TempDir(), URL: url}
	for _, o := range options {
		o(&c)
	}
	return c
}
