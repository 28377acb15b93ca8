package connection

import "github.com/sallyport-mail/sallyport/internal/store"

// loadPage bounds a read at start: reads are cut off after five seconds.
const loadPage = 5000

const (
	selectConnections store.OperatorSQL = `
		SELECT tenant, name, state, spec, health, created_at FROM connection
		WHERE tenant > $1 OR (tenant = $1 AND name > $2) ORDER BY tenant, name LIMIT $3`

	insertConnection store.TenantSQL = `
		INSERT INTO connection (tenant, name, state, spec, health, created_at) VALUES ($1, $2, $3, $4, '', $5)`
	updateState      store.TenantSQL = `UPDATE connection SET state = $3 WHERE tenant = $1 AND name = $2`
	updateHealth     store.TenantSQL = `UPDATE connection SET health = $3 WHERE tenant = $1 AND name = $2`
	updateSpec       store.TenantSQL = `UPDATE connection SET spec = $3 WHERE tenant = $1 AND name = $2 AND created_at = $4`
	deleteConnection store.TenantSQL = `DELETE FROM connection WHERE tenant = $1 AND name = $2`
	deleteAll        store.TenantSQL = `DELETE FROM connection WHERE tenant = $1`

	insertClaim     store.TenantSQL = `INSERT INTO claim (tenant, connection, kind, value) VALUES ($1, $2, $3, $4)`
	deleteClaims    store.TenantSQL = `DELETE FROM claim WHERE tenant = $1 AND connection = $2`
	deleteAllClaims store.TenantSQL = `DELETE FROM claim WHERE tenant = $1`

	insertReplacement store.TenantSQL = `
		INSERT INTO replacement (tenant, id, connection, state, ended, spec, started_at, changed_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $7)`
	updateReplacement store.TenantSQL = `UPDATE replacement SET state = $3, ended = $4, spec = $5, changed_at = $6
		WHERE tenant = $1 AND id = $2 AND state = $7 AND ended = 0`
	openReplacement store.TenantSQL = `SELECT state, spec FROM replacement WHERE tenant = $1 AND connection = $2 AND ended = 0`
	lastReplacement store.TenantSQL = `
		SELECT state, spec FROM replacement WHERE tenant = $1 AND connection = $2 ORDER BY ended, id DESC LIMIT 1`
	allReplacements       store.TenantSQL = `SELECT state, spec FROM replacement WHERE tenant = $1 AND connection = $2 ORDER BY id`
	deleteReplacements    store.TenantSQL = `DELETE FROM replacement WHERE tenant = $1 AND connection = $2`
	deleteAllReplacements store.TenantSQL = `DELETE FROM replacement WHERE tenant = $1`

	allOpenReplacements store.OperatorSQL = `SELECT state, spec FROM replacement WHERE ended = 0 ORDER BY tenant, id`
)
