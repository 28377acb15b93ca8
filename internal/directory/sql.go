package directory

import "github.com/sallyport-mail/sallyport/internal/store"

const (
	selectRecipient store.KeySQL    = `SELECT 1 FROM recipient WHERE tenant = $1 AND key = $2`
	listRecipients  store.TenantSQL = `
		SELECT key, address, created_at FROM recipient WHERE tenant = $1 AND key > $2 ORDER BY key LIMIT $3`
	insertRecipient store.TenantSQL = `
		INSERT INTO recipient (tenant, key, domain, address, created_at) VALUES ($1, $2, $3, $4, $5)
		ON CONFLICT (tenant, key) DO NOTHING`
	deleteRecipient        store.TenantSQL = `DELETE FROM recipient WHERE tenant = $1 AND key = $2`
	deleteDomainRecipients store.TenantSQL = `DELETE FROM recipient WHERE tenant = $1 AND domain = $2`
	deleteAllRecipients    store.TenantSQL = `DELETE FROM recipient WHERE tenant = $1`
)

const (
	selectProbe store.KeySQL    = `SELECT at FROM probe WHERE tenant = $1 AND key = $2`
	countProbes store.TenantSQL = `SELECT count(*) FROM probe WHERE tenant = $1 AND domain = $2`
	upsertProbe store.TenantSQL = `
		INSERT INTO probe (tenant, key, domain, at) VALUES ($1, $2, $3, $4)
		ON CONFLICT (tenant, key) DO UPDATE SET at = excluded.at`
	deleteProbe        store.TenantSQL   = `DELETE FROM probe WHERE tenant = $1 AND key = $2`
	deleteDomainProbes store.TenantSQL   = `DELETE FROM probe WHERE tenant = $1 AND domain = $2`
	deleteAllProbes    store.TenantSQL   = `DELETE FROM probe WHERE tenant = $1`
	deleteOldProbes    store.OperatorSQL = `DELETE FROM probe WHERE at < $1`
)
