package keeper

import "github.com/sallyport-mail/sallyport/internal/store"

// identityColumns are in the order of identity.fields.
const identityColumns = `id, tenant, connection, purpose, epoch, name, state, issuer, driver, algorithm, handle, sealer, binding,
	chain, sha256, not_before, not_after, announced, explanation, marker, created_at, changed_at`

const (
	insertIdentity store.KeeperSQL = `INSERT INTO keeper_identity (` + identityColumns + `)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22)`
	selectByID          store.KeeperSQL = `SELECT ` + identityColumns + ` FROM keeper_identity WHERE id = $1`
	selectByCertificate store.KeeperSQL = `SELECT ` + identityColumns + ` FROM keeper_identity WHERE sha256 = $1 AND sha256 <> ''`
	selectActive        store.KeeperSQL = `SELECT ` + identityColumns + ` FROM keeper_identity
		WHERE tenant = $1 AND connection = $2 AND purpose = $3 AND state = 'active' ORDER BY epoch DESC, id DESC LIMIT 1`
	// selectPlace is what is to be known of the identities of one place.
	selectPlace store.KeeperSQL = `SELECT id, epoch, name, state FROM keeper_identity
		WHERE tenant = $1 AND connection = $2 AND purpose = $3 ORDER BY epoch, id`
	selectConnection store.KeeperSQL = `SELECT ` + identityColumns + ` FROM keeper_identity
		WHERE tenant = $1 AND connection = $2 AND state <> 'retired' AND state <> 'compromised' ORDER BY purpose, epoch, id`
	selectCompromised store.KeeperSQL = `SELECT sha256 FROM keeper_identity
		WHERE tenant = $1 AND connection = $2 AND purpose = $3 AND state = 'compromised' AND sha256 <> '' ORDER BY changed_at DESC, id LIMIT $4`
	selectEnded store.KeeperSQL = `SELECT ` + identityColumns + ` FROM keeper_identity
		WHERE (state = 'retired' OR state = 'compromised') AND changed_at < $1 AND id > $2 AND length(handle) > 0 ORDER BY id LIMIT $3`
	updateDestroyed store.KeeperSQL = `UPDATE keeper_identity SET handle = $1 WHERE id = $2`
	selectWanted    store.KeeperSQL = `SELECT ` + identityColumns + ` FROM keeper_identity WHERE state = 'wanted' AND created_at < $1 ORDER BY id`

	// Pages go by the index of places. The first five are the place after
	// which a page begins.
	selectPageOfAll store.KeeperSQL = `SELECT ` + identityColumns + ` FROM keeper_identity
		WHERE (tenant, connection, purpose, epoch, id) > ($1, $2, $3, $4, $5)
		ORDER BY tenant, connection, purpose, epoch, id LIMIT $6`
	selectPageOfTenant store.KeeperSQL = `SELECT ` + identityColumns + ` FROM keeper_identity
		WHERE (tenant, connection, purpose, epoch, id) > ($1, $2, $3, $4, $5) AND tenant = $7
		ORDER BY tenant, connection, purpose, epoch, id LIMIT $6`
	selectPageOfConnection store.KeeperSQL = `SELECT ` + identityColumns + ` FROM keeper_identity
		WHERE (tenant, connection, purpose, epoch, id) > ($1, $2, $3, $4, $5) AND tenant = $7 AND connection = $8
		ORDER BY tenant, connection, purpose, epoch, id LIMIT $6`
	countShown store.KeeperSQL = `SELECT COUNT(*) FROM keeper_identity WHERE state = 'staged' OR state = 'active' OR state = 'retiring'`

	// A state is changed only where it is still what was looked at.
	updateIssued store.KeeperSQL = `UPDATE keeper_identity
		SET state = 'issued', chain = $1, sha256 = $2, not_before = $3, not_after = $4, changed_at = $5, marker = $6 WHERE id = $7 AND state = 'wanted'`
	updateState store.KeeperSQL = `UPDATE keeper_identity SET state = $1, changed_at = $2, marker = $3 WHERE id = $4 AND state = $5`
	// updateTaken is updateState of a standby that is taken into use.
	updateTaken store.KeeperSQL = `UPDATE keeper_identity
		SET state = $1, changed_at = $2, marker = $3, handle = $4, sealer = '' WHERE id = $5 AND state = $6 AND sealer = 'standby'`
	// updateLost retires a standby that could not be sealed at another binding.
	updateLost store.KeeperSQL = `UPDATE keeper_identity
		SET state = 'retired', changed_at = $1, marker = $2, explanation = $3 WHERE id = $4 AND sealer = 'standby'`
	updateGiveUp store.KeeperSQL = `UPDATE keeper_identity
		SET state = 'retired', explanation = $1, changed_at = $2, marker = $3 WHERE id = $4 AND state = 'wanted'`
	updateRelease store.KeeperSQL = `UPDATE keeper_identity SET state = 'retired', changed_at = $1, marker = $2
		WHERE tenant = $3 AND connection = $4 AND state <> 'retired' AND state <> 'compromised'`
	updateSeal   store.KeeperSQL = `UPDATE keeper_identity SET handle = $1, marker = $2, binding = $3 WHERE id = $4`
	updateAdvice store.KeeperSQL = `UPDATE keeper_identity SET announced = $1, explanation = $2 WHERE id = $3 AND state = 'active'`
	selectAdvice store.KeeperSQL = `SELECT id, chain FROM keeper_identity
		WHERE state = 'active' AND issuer = $1 AND id > $2 ORDER BY id LIMIT $3`
	selectEnding store.KeeperSQL = `SELECT id, tenant, connection, purpose, name, not_before, not_after FROM keeper_identity
		WHERE not_after < $1 AND state <> 'retired' AND state = 'active' ORDER BY not_after, id LIMIT $2`

	selectBinding store.KeeperSQL = `SELECT binding FROM keeper_binding WHERE tenant = $1 AND connection = $2`
	insertBinding store.KeeperSQL = `INSERT INTO keeper_binding (tenant, connection, binding, set_at) VALUES ($1, $2, $3, $4)`
	updateBinding store.KeeperSQL = `UPDATE keeper_binding SET binding = $1, set_at = $2 WHERE tenant = $3 AND connection = $4`
	deleteBinding store.KeeperSQL = `DELETE FROM keeper_binding WHERE tenant = $1 AND connection = $2`

	deleteCredentials store.KeeperSQL = `DELETE FROM keeper_credential WHERE tenant = $1 AND connection = $2`

	insertSpare store.KeeperSQL = `INSERT INTO keeper_spare (id, algorithm, handle) VALUES ($1, $2, $3)`
	selectSpare store.KeeperSQL = `SELECT id, handle FROM keeper_spare WHERE algorithm = $1 ORDER BY id LIMIT 1`
	deleteSpare store.KeeperSQL = `DELETE FROM keeper_spare WHERE id = $1`
	countSpares store.KeeperSQL = `SELECT COUNT(*) FROM keeper_spare WHERE algorithm = $1`
)
