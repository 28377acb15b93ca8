package queue

import "github.com/sallyport-mail/sallyport/internal/store"

// Items come and go.
const (
	insertItem store.RoadSQL = `INSERT INTO item (id, message, tenant, destination, connection, state, due, expires, received,
			attempts, rcpts, reason, flags, body, size, sum, detail)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)`

	// A report says which state and how many attempts it knew: should it be
	// written twice, because nobody could know whether the first took, the
	// second changes nothing.
	deleteItem store.RoadSQL = `DELETE FROM item WHERE id = $1 AND state = $2 AND attempts = $3`
	updateItem store.RoadSQL = `UPDATE item SET state = $4, due = $5, expires = $6, attempts = $7, rcpts = $8, reason = $9,
			flags = $10, detail = $11
		WHERE id = $1 AND state = $2 AND attempts = $3`

	// Bulk acts change columns of the queue, never the envelope.
	moveItem store.RoadSQL = `UPDATE item SET state = $4, due = $5, expires = $6, reason = $7, destination = $8, connection = $9
		WHERE id = $1 AND state = $2 AND due = $3`
	removeItem store.RoadSQL = `DELETE FROM item WHERE id = $1 AND state = $2 AND due = $3`

	insertShare store.RoadSQL = `INSERT INTO item_share (tenant, body, uses) VALUES ($1, $2, $3)`
	useShare    store.RoadSQL = `UPDATE item_share SET uses = uses - 1 WHERE tenant = $1 AND body = $2`
	endShare    store.RoadSQL = `DELETE FROM item_share WHERE tenant = $1 AND body = $2 AND uses <= 0`
)

// Reading for the road: queue columns only.
const (
	nextLane store.RoadSQL = `SELECT tenant, destination FROM item WHERE (tenant, destination) > ($1, $2)
		ORDER BY tenant, destination LIMIT 1`
	countLane store.RoadSQL = `SELECT state, COUNT(*), MIN(due) FROM item WHERE tenant = $1 AND destination = $2 GROUP BY state`
	refillRow store.RoadSQL = `SELECT id, due FROM item WHERE tenant = $1 AND destination = $2 AND state = $3
		AND (due, id) > ($4, $5) ORDER BY due, id LIMIT $6`

	rowColumns               = `id, message, tenant, destination, connection, state, due, expires, received, rcpts, reason, flags, body, size, sum`
	laneRows   store.RoadSQL = `SELECT ` + rowColumns + ` FROM item WHERE tenant = $1 AND destination = $2 AND state = $3
		AND (due, id) > ($4, $5) ORDER BY due, id LIMIT $6`
	rangeRows store.RoadSQL = `SELECT ` + rowColumns + ` FROM item WHERE id >= $1 AND id <= $2 ORDER BY id LIMIT $3`
	lastItem  store.RoadSQL = `SELECT COALESCE(MAX(id), '') FROM item`
)

// Reading the envelope: by tenant.
const (
	itemColumns = `id, message, tenant, destination, connection, state, due, expires, received, attempts, rcpts, reason, flags,
		body, size, sum, detail`
	selectItem    store.KeySQL      = `SELECT ` + itemColumns + ` FROM item WHERE tenant = $1 AND id = $2`
	selectAnyItem store.OperatorSQL = `SELECT ` + itemColumns + ` FROM item WHERE CAST($1 AS TEXT) = '' AND id = $2`

	pageTail                   = ` AND destination = $2 AND state = $3 AND (due, id) > ($4, $5) ORDER BY due, id LIMIT $6`
	pageLane store.TenantSQL   = `SELECT ` + itemColumns + ` FROM item WHERE tenant = $1` + pageTail
	pageAny  store.OperatorSQL = `SELECT ` + itemColumns + ` FROM item WHERE tenant = $1` + pageTail

	pageRange    store.TenantSQL   = `SELECT ` + itemColumns + ` FROM item WHERE tenant = $1 AND id >= $2 AND id <= $3 ORDER BY id`
	pageAnyRange store.OperatorSQL = `SELECT ` + itemColumns + ` FROM item WHERE CAST($1 AS TEXT) = '' AND id >= $2 AND id <= $3 ORDER BY id`
)

// Destinations and stop switches.
const (
	selectDestinations store.RoadSQL = `SELECT key, state, cause, reason, failures, next_try, since FROM destination`
	upsertDestination  store.RoadSQL = `INSERT INTO destination (key, state, cause, reason, failures, next_try, since)
		VALUES ($1, $2, $3, $4, $5, $6, $7)
		ON CONFLICT (key) DO UPDATE SET state = excluded.state, cause = excluded.cause, reason = excluded.reason,
			failures = excluded.failures, next_try = excluded.next_try, since = excluded.since`
	deleteDestination store.RoadSQL = `DELETE FROM destination WHERE key = $1`

	selectStops store.RoadSQL = `SELECT scope, value, reason, actor, since FROM stop ORDER BY since`
	upsertStop  store.RoadSQL = `INSERT INTO stop (scope, value, reason, actor, since) VALUES ($1, $2, $3, $4, $5)
		ON CONFLICT (scope, value) DO UPDATE SET reason = excluded.reason, actor = excluded.actor, since = excluded.since`
	deleteStop store.RoadSQL = `DELETE FROM stop WHERE scope = $1 AND value = $2`
)
