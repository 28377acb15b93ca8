package trace

import "github.com/sallyport-mail/sallyport/internal/store"

// The events on the road.
const (
	insertEvent store.RoadSQL = `INSERT INTO trace_event (seq, tenant, message, payload) VALUES ($1, $2, $3, $4)
		ON CONFLICT (seq) DO NOTHING`
	selectEvents store.RoadSQL = `SELECT seq, tenant, message, payload FROM trace_event ORDER BY seq LIMIT $1`

	// deleteEvents names deleteBatch of them, the last as often as there is
	// room.
	deleteEvents store.RoadSQL = `DELETE FROM trace_event WHERE seq IN ($1, $2, $3, $4, $5, $6, $7, $8,
		$9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24, $25, $26, $27, $28, $29, $30, $31, $32)`
)

const deleteBatch = 32

// The moves.
const (
	selectMoved store.RoadSQL = `SELECT seqs FROM trace_moved`
	clearMoved  store.RoadSQL = `DELETE FROM trace_moved`
	insertMoved store.RoadSQL = `INSERT INTO trace_moved (batch, seqs) VALUES ($1, $2)`

	// upsertMessage is the first event of a message; should a later one have
	// come before it (its row then has no received time), the two are joined.
	upsertMessage store.RoadSQL = `INSERT INTO trace_message (tenant, id, message_id, region, direction, sender, recipients,
			subject, size, received, queued, delivered, failed, held, dropped, steps)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)
		ON CONFLICT (tenant, id) DO UPDATE SET
			message_id = excluded.message_id, region = excluded.region, direction = excluded.direction,
			sender = excluded.sender, recipients = excluded.recipients, subject = excluded.subject,
			size = excluded.size, received = excluded.received,
			queued = trace_message.queued + excluded.queued, delivered = trace_message.delivered + excluded.delivered,
			failed = trace_message.failed + excluded.failed, held = trace_message.held + excluded.held,
			dropped = trace_message.dropped + excluded.dropped, steps = excluded.steps || trace_message.steps`
	updateMessage store.RoadSQL = `UPDATE trace_message SET queued = queued + $3, delivered = delivered + $4,
			failed = failed + $5, held = held + $6, dropped = dropped + $7, steps = steps || $8
		WHERE tenant = $1 AND id = $2`
)

// state derives a message's state from what became of its recipients.
const state = `CASE WHEN queued > 0 THEN 'queued' WHEN held > 0 THEN 'held'
		WHEN delivered > 0 AND failed + dropped > 0 THEN 'partial' WHEN delivered > 0 THEN 'delivered'
		WHEN failed > 0 THEN 'failed' WHEN dropped > 0 THEN 'dropped' ELSE 'refused' END`

const (
	messageColumns = `id, message_id, tenant, region, direction, sender, recipients, subject, size, received, ` + state
	messageFilter  = ` AND id < $2 AND id >= $3 AND received >= $4
		AND (CAST($5 AS TEXT) = '' OR ` + state + ` = $5)
		AND (CAST($6 AS TEXT) = '' OR lower(sender) LIKE $6 ESCAPE '\')
		AND (CAST($7 AS TEXT) = '' OR lower(recipients) LIKE $7 ESCAPE '\')
		AND (CAST($8 AS TEXT) = '' OR message_id = $8)
		ORDER BY id DESC LIMIT $9`

	listMessages    store.TenantSQL   = `SELECT ` + messageColumns + ` FROM trace_message WHERE tenant = $1` + messageFilter
	listAllMessages store.OperatorSQL = `SELECT ` + messageColumns + ` FROM trace_message WHERE CAST($1 AS TEXT) = ''` + messageFilter

	listSteps store.TenantSQL = `SELECT ` + messageColumns + `, steps FROM trace_message
		WHERE tenant = $1 AND id < $2 AND id >= $3 AND received >= $4 ORDER BY id DESC LIMIT $5`

	showMessage    store.TenantSQL   = `SELECT ` + messageColumns + `, steps FROM trace_message WHERE tenant = $1 AND id = $2`
	showAnyMessage store.OperatorSQL = `SELECT ` + messageColumns + `, steps FROM trace_message WHERE CAST($1 AS TEXT) = '' AND id = $2`

	showMessageID store.TenantSQL = `SELECT ` + messageColumns + `, steps FROM trace_message
		WHERE tenant = $1 AND message_id = $2 ORDER BY id DESC LIMIT 1`
	showAnyMessageID store.OperatorSQL = `SELECT ` + messageColumns + `, steps FROM trace_message
		WHERE CAST($1 AS TEXT) = '' AND message_id = $2 ORDER BY id DESC LIMIT 1`
)

// Refusals.
const (
	insertRefusal store.RoadSQL = `INSERT INTO trace_refusal (tenant, id, first, last, count, peer, hello, sender, rcpt,
			command, code, enhanced, reply)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)`
	updateRefusal store.RoadSQL = `UPDATE trace_refusal SET last = $3, count = $4 WHERE tenant = $1 AND id = $2`

	refusalColumns = `tenant, id, first, last, count, peer, hello, sender, rcpt, command, code, enhanced, reply`
	refusalFilter  = ` AND id < $2 AND id >= $3
		AND (CAST($4 AS TEXT) = '' OR lower(sender) LIKE $4 ESCAPE '\')
		AND (CAST($5 AS TEXT) = '' OR lower(rcpt) LIKE $5 ESCAPE '\')
		ORDER BY id DESC LIMIT $6`
	listRefusals    store.TenantSQL   = `SELECT ` + refusalColumns + ` FROM trace_refusal WHERE tenant = $1` + refusalFilter
	listAllRefusals store.OperatorSQL = `SELECT ` + refusalColumns + ` FROM trace_refusal WHERE CAST($1 AS TEXT) = ''` + refusalFilter
)

// Retention. Tenants are found by skipping along the primary key.
const (
	nextTenant        store.RoadSQL = `SELECT tenant FROM trace_message WHERE tenant > $1 ORDER BY tenant LIMIT 1`
	nextRefusedTenant store.RoadSQL = `SELECT tenant FROM trace_refusal WHERE tenant >= $1 AND tenant <> $2 ORDER BY tenant LIMIT 1`
	deleteMessages    store.RoadSQL = `DELETE FROM trace_message WHERE tenant = $1 AND id IN
		(SELECT id FROM trace_message WHERE tenant = $1 AND id < $2 AND queued = 0 AND held = 0 ORDER BY id LIMIT 200)`
	deleteRefusals store.RoadSQL = `DELETE FROM trace_refusal WHERE tenant = $1 AND id IN
		(SELECT id FROM trace_refusal WHERE tenant = $1 AND id < $2 ORDER BY id LIMIT 200)`
)
