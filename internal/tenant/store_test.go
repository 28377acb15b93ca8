package tenant_test

import (
	"testing"

	"github.com/sallyport-mail/sallyport/internal/store"
	"github.com/sallyport-mail/sallyport/internal/testpeer"
)

func eachStore(t *testing.T, f func(t *testing.T, s *store.Store)) { testpeer.EachStore(t, f) }

func openSQLite(t testing.TB) *store.Store {
	return testpeer.OpenStore(t, store.Config{Dir: t.TempDir()})
}
