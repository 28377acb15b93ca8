package tenant_test

import (
	"testing"

	"github.com/sallyport-mail/sallyport/internal/store"
	"github.com/sallyport-mail/sallyport/internal/tenant"
)

// wrongHand is every statement by which a tenant's door could read or change
// a row of these tables; through globex's door none of them may find acme's.
func TestOtherTenantsDoor(t *testing.T) {
	const (
		readTenant       store.TenantSQL = `SELECT count(*) FROM tenant WHERE tenant = $1 AND tenant = $2`
		readDomain       store.TenantSQL = `SELECT count(*) FROM domain WHERE tenant = $1 AND domain = $2`
		readToken        store.TenantSQL = `SELECT count(*) FROM token WHERE tenant = $1 AND id = $2`
		readSubmitter    store.TenantSQL = `SELECT count(*) FROM submitter WHERE tenant = $1 AND username = $2`
		changeTenant     store.TenantSQL = `UPDATE tenant SET region = 'de' WHERE tenant = $1 AND tenant = $2`
		changeDomain     store.TenantSQL = `UPDATE domain SET recipients = 'none' WHERE tenant = $1 AND domain = $2`
		changeToken      store.TenantSQL = `UPDATE token SET role = 'operator' WHERE tenant = $1 AND id = $2`
		changeSubmitter  store.TenantSQL = `UPDATE submitter SET state = 'revoked' WHERE tenant = $1 AND username = $2`
		destroyTenant    store.TenantSQL = `DELETE FROM tenant WHERE tenant = $1 AND tenant = $2`
		destroyDomain    store.TenantSQL = `DELETE FROM domain WHERE tenant = $1 AND domain = $2`
		destroyToken     store.TenantSQL = `DELETE FROM token WHERE tenant = $1 AND id = $2`
		destroySubmitter store.TenantSQL = `DELETE FROM submitter WHERE tenant = $1 AND username = $2`
	)
	eachStore(t, func(t *testing.T, s *store.Store) {
		r := openRegistry(t, s, newClock())
		ctx := t.Context()
		addTenants(t, r, "acme", "globex")
		_, err := r.AddDomain(ctx, "system", tenant.Domain{Name: "acme.test", Tenant: "acme"})
		must(t, err)
		tok, _, err := r.AddToken(ctx, "system", tenant.Token{Role: tenant.Read, Tenant: "acme"})
		must(t, err)
		_, _, err = r.AddSubmitter(ctx, "system", "acme", "app")
		must(t, err)
		for _, k := range []struct {
			table, key            string
			read, change, destroy store.TenantSQL
		}{
			{"tenant", "acme", readTenant, changeTenant, destroyTenant},
			{"domain", "acme.test", readDomain, changeDomain, destroyDomain},
			{"token", tok.ID, readToken, changeToken, destroyToken},
			{"submitter", "app", readSubmitter, changeSubmitter, destroySubmitter},
		} {
			if n := countRows(t, s, "acme", k.read, k.key); n != 1 {
				t.Errorf("%s: its own tenant sees %d rows", k.table, n)
			}
			if n := countRows(t, s, "globex", k.read, k.key); n != 0 {
				t.Errorf("%s: another tenant sees %d rows", k.table, n)
			}
			err := s.Control.For("globex").Change(ctx, func(tx store.TenantTx) error {
				for _, q := range []store.TenantSQL{k.change, k.destroy} {
					if n, err := tx.Exec(q, k.key); n != 0 || err != nil {
						t.Errorf("%s: another tenant changed %d rows, %v", k.table, n, err)
					}
				}
				return nil
			})
			must(t, err)
			if n := countRows(t, s, "acme", k.read, k.key); n != 1 {
				t.Errorf("%s: the row is gone", k.table)
			}
		}
	})
}

func countRows(t *testing.T, s *store.Store, as string, q store.TenantSQL, key string) (n int) {
	t.Helper()
	must(t, s.Control.For(as).QueryRow(t.Context(), q, key).Scan(&n))
	return n
}
