package tenant

import "github.com/sallyport-mail/sallyport/internal/store"

// Loading goes by pages, because a read is cut off after five seconds.
const loadPage = 5000

const (
	selectTenants store.OperatorSQL = `
		SELECT tenant, region, settings, created_at FROM tenant
		WHERE tenant > $1 ORDER BY tenant LIMIT $2`
	selectDomains store.OperatorSQL = `
		SELECT domain, tenant, recipients, plus_tags, created_at FROM domain
		WHERE domain > $1 ORDER BY domain LIMIT $2`
	selectTokens store.OperatorSQL = `
		SELECT id, tenant, role, sha256, created_at, expires_at, revoked_at, last_used FROM token
		WHERE id > $1 ORDER BY id LIMIT $2`
	selectSubmitters store.OperatorSQL = `
		SELECT username, tenant, hash, state, set_at, last_used FROM submitter
		WHERE username > $1 ORDER BY username LIMIT $2`
)

const (
	insertTenant store.TenantSQL = `
		INSERT INTO tenant (tenant, region, settings, created_at) VALUES ($1, $2, $3, $4)`
	updateSettings store.TenantSQL = `UPDATE tenant SET settings = $2 WHERE tenant = $1`
	deleteTenant   store.TenantSQL = `DELETE FROM tenant WHERE tenant = $1`

	insertDomain store.TenantSQL = `
		INSERT INTO domain (tenant, domain, recipients, plus_tags, created_at) VALUES ($1, $2, $3, $4, $5)`
	updateDomain store.TenantSQL = `
		UPDATE domain SET recipients = $3, plus_tags = $4 WHERE tenant = $1 AND domain = $2`
	deleteDomain store.TenantSQL = `DELETE FROM domain WHERE tenant = $1 AND domain = $2`
)

// A tenant's tokens go through the tenant's door, the operator's through the
// operator's.
const (
	insertToken store.TenantSQL = `
		INSERT INTO token (tenant, id, role, sha256, created_at, expires_at) VALUES ($1, $2, $3, $4, $5, $6)`
	revokeToken  store.TenantSQL = `UPDATE token SET revoked_at = $3 WHERE tenant = $1 AND id = $2`
	deleteTokens store.TenantSQL = `DELETE FROM token WHERE tenant = $1`

	insertOperatorToken store.OperatorSQL = `
		INSERT INTO token (tenant, id, role, sha256, created_at, expires_at) VALUES ('', $1, $2, $3, $4, $5)`
	revokeOperatorToken store.OperatorSQL = `UPDATE token SET revoked_at = $2 WHERE tenant = '' AND id = $1`
	touchToken          store.OperatorSQL = `UPDATE token SET last_used = $2 WHERE id = $1`
)

const (
	insertSubmitter store.TenantSQL = `
		INSERT INTO submitter (tenant, username, hash, state, set_at) VALUES ($1, $2, $3, $4, $5)`
	resetSubmitter store.TenantSQL = `
		UPDATE submitter SET hash = $3, state = $4, set_at = $5 WHERE tenant = $1 AND username = $2`
	revokeSubmitter  store.TenantSQL   = `UPDATE submitter SET state = $3 WHERE tenant = $1 AND username = $2`
	deleteSubmitters store.TenantSQL   = `DELETE FROM submitter WHERE tenant = $1`
	touchSubmitter   store.OperatorSQL = `UPDATE submitter SET last_used = $2 WHERE username = $1`
)

const (
	selectSetting store.OperatorSQL = `SELECT value FROM operator_setting WHERE name = $1`
	upsertSetting store.OperatorSQL = `
		INSERT INTO operator_setting (name, value) VALUES ($1, $2)
		ON CONFLICT (name) DO UPDATE SET value = excluded.value`
)

// settingLists is the name of the operator's sender lists in operator_setting.
const settingLists = "sender_lists"
