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
	pageEvents OperatorSQL = `SELECT seq, time, actor, act, tenant, connection, subject, purpose, outcome FROM outbox
		WHERE region = $1 ORDER BY seq LIMIT $2`
	countEvents  OperatorSQL = `SELECT COUNT(*), MIN(time) FROM outbox`
	assignEvents OperatorSQL = `UPDATE outbox SET region = $1 WHERE seq BETWEEN $2 AND $3`
	deleteEvents OperatorSQL = `DELETE FROM outbox WHERE seq BETWEEN $1 AND $2 AND region = $3`
)
