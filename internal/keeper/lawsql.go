package keeper

import "github.com/sallyport-mail/sallyport/internal/store"

// The statements on credentials, bindings as far as credentials need them,
// orders, the rotation of the KEK and the freezing.
const (
	selectBoundTo store.KeeperSQL = `SELECT binding FROM keeper_binding WHERE tenant = $1 AND connection = $2`

	selectCredential store.KeeperSQL = `SELECT blob, binding, marker, set_at, used FROM keeper_credential
		WHERE tenant = $1 AND connection = $2 AND purpose = $3`
	selectCredentials store.KeeperSQL = `SELECT purpose, blob, binding, marker, set_at, used FROM keeper_credential
		WHERE tenant = $1 AND connection = $2 ORDER BY purpose`
	listCredentials store.KeeperSQL = `SELECT connection, purpose, binding, set_at, used FROM keeper_credential
		WHERE tenant = $1 ORDER BY connection, purpose`
	upsertCredential store.KeeperSQL = `INSERT INTO keeper_credential (tenant, connection, purpose, blob, binding, marker, set_at, used)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (tenant, connection, purpose)
		DO UPDATE SET blob = excluded.blob, binding = excluded.binding, marker = excluded.marker, set_at = excluded.set_at, used = excluded.used`
	updateUsed store.KeeperSQL = `UPDATE keeper_credential SET used = $5
		WHERE tenant = $1 AND connection = $2 AND purpose = $3 AND used = $4`
	updateSealed store.KeeperSQL = `UPDATE keeper_credential SET blob = $4, binding = $5, marker = $6, used = $7
		WHERE tenant = $1 AND connection = $2 AND purpose = $3`
	deleteCredential store.KeeperSQL = `DELETE FROM keeper_credential WHERE tenant = $1 AND connection = $2 AND purpose = $3`

	insertNonce store.KeeperSQL = `INSERT INTO keeper_nonce (nonce, not_after) VALUES ($1, $2)`
	sweepNonces store.KeeperSQL = `DELETE FROM keeper_nonce WHERE not_after < $1`

	// Each ring has its own rows: a rotation sees none of the other's.
	countKEKs   store.KeeperSQL = `SELECT kek, COUNT(*) FROM keeper_datakey WHERE tenant NOT LIKE 'standby:%' GROUP BY kek ORDER BY kek`
	selectUnder store.KeeperSQL = `SELECT tenant, blob FROM keeper_datakey
		WHERE kek = $1 AND tenant > $2 AND tenant NOT LIKE 'standby:%' ORDER BY tenant LIMIT $3`
	countStandbyKEKs   store.KeeperSQL = `SELECT kek, COUNT(*) FROM keeper_datakey WHERE tenant LIKE 'standby:%' GROUP BY kek ORDER BY kek`
	selectStandbyUnder store.KeeperSQL = `SELECT tenant, blob FROM keeper_datakey
		WHERE kek = $1 AND tenant > $2 AND tenant LIKE 'standby:%' ORDER BY tenant LIMIT $3`

	updateDataKey store.KeeperSQL = `UPDATE keeper_datakey SET kek = $3, blob = $4 WHERE tenant = $1 AND kek = $2`

	deleteState store.KeeperSQL = `DELETE FROM keeper_state WHERE name = $1`

	selectUnretired store.KeeperSQL = `SELECT COUNT(*) FROM keeper_identity WHERE id = $1 AND state <> 'retired' AND state <> 'compromised'`
	// retireOthers retires some of those that an operator did not name; $1 are
	// their ids, each between commas. The region's own stay: no partner knows them.
	retireOthers store.KeeperSQL = `UPDATE keeper_identity SET state = 'retired', changed_at = $2, marker = $4 WHERE id IN (
		SELECT id FROM keeper_identity WHERE state <> 'retired' AND state <> 'compromised' AND tenant NOT LIKE 'region:%'
		AND $1 NOT LIKE '%,' || id || ',%' ORDER BY state, id LIMIT $3)`
)
