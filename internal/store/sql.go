package store

// The statements of the tables that this room owns: body and outbox.
const (
	insertBody RoadSQL     = `INSERT INTO body (tenant, id, size, sum, file, data) VALUES ($1, $2, $3, $4, $5, $6)`
	deleteBody TenantSQL   = `DELETE FROM body WHERE tenant = $1 AND id = $2`
	selectBody KeySQL      = `SELECT data FROM body WHERE tenant = $1 AND id = $2`
	countBody  TenantSQL   = `SELECT COUNT(*) FROM body WHERE tenant = $1 AND id = $2`
	pageBodies OperatorSQL = `SELECT tenant, id, size, sum, file FROM body
		WHERE tenant > $1 OR (tenant = $1 AND id > $2) ORDER BY tenant, id LIMIT $3`
	allFiles    OperatorSQL = `SELECT tenant, id, size, sum, file FROM body WHERE file = 1 ORDER BY tenant, id`
	insertEvent OperatorSQL = `INSERT INTO outbox (time, actor, act, tenant, connection, subject, purpose, outcome)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8)`
)
