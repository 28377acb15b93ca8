package ledger

import "github.com/sallyport-mail/sallyport/internal/store"

// The statements of the ledger's tables.
const (
	selectLog   store.KeeperSQL = `SELECT origin, keys, removed FROM ledger_log WHERE id = 1`
	insertLog   store.KeeperSQL = `INSERT INTO ledger_log (id, origin, keys, removed) VALUES (1, $1, $2, 0)`
	updateKeys  store.KeeperSQL = `UPDATE ledger_log SET keys = $1 WHERE id = 1`
	updateEnded store.KeeperSQL = `UPDATE ledger_log SET removed = $1 WHERE id = 1 AND removed < $1`

	entryColumns = `idx, time, actor, act, tenant, connection, trace, key, hash, payload`

	insertEntry store.KeeperSQL = `INSERT INTO ledger_entry (` + entryColumns + `)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)`
	// A row costs PostgreSQL a round trip; eight cost one too.
	insertEight store.KeeperSQL = `INSERT INTO ledger_entry (` + entryColumns + `) VALUES
		($1, $2, $3, $4, $5, $6, $7, $8, $9, $10),
		($11, $12, $13, $14, $15, $16, $17, $18, $19, $20),
		($21, $22, $23, $24, $25, $26, $27, $28, $29, $30),
		($31, $32, $33, $34, $35, $36, $37, $38, $39, $40),
		($41, $42, $43, $44, $45, $46, $47, $48, $49, $50),
		($51, $52, $53, $54, $55, $56, $57, $58, $59, $60),
		($61, $62, $63, $64, $65, $66, $67, $68, $69, $70),
		($71, $72, $73, $74, $75, $76, $77, $78, $79, $80)`

	countEntries  store.KeeperSQL = `SELECT COALESCE(MAX(idx), -1) + 1 FROM ledger_entry`
	selectHashes  store.KeeperSQL = `SELECT idx, hash FROM ledger_entry WHERE idx >= $1 ORDER BY idx LIMIT $2`
	selectEntries store.KeeperSQL = `SELECT idx, hash, payload FROM ledger_entry WHERE idx >= $1 AND idx < $2 ORDER BY idx`
	selectColumns store.KeeperSQL = `SELECT ` + entryColumns + ` FROM ledger_entry WHERE idx >= $1 AND idx < $2 ORDER BY idx`
	selectByKey   store.KeeperSQL = `SELECT idx FROM ledger_entry WHERE key = $1 AND key <> ''`

	insertTile  store.KeeperSQL = `INSERT INTO ledger_tile (level, n, hashes) VALUES ($1, $2, $3)`
	selectTile  store.KeeperSQL = `SELECT hashes FROM ledger_tile WHERE level = $1 AND n = $2`
	selectTiles store.KeeperSQL = `SELECT n, hashes FROM ledger_tile WHERE level = $1 AND n >= $2 AND n < $3 ORDER BY n`

	// How many entries there are and what is signed of it, as one statement sees
	// both.
	selectEnd store.KeeperSQL = `SELECT COALESCE(MAX(idx), -1) + 1, COALESCE((SELECT note FROM ledger_tail WHERE id = 1), '') FROM ledger_entry`

	selectTail store.KeeperSQL = `SELECT note FROM ledger_tail WHERE id = 1`
	upsertTail store.KeeperSQL = `INSERT INTO ledger_tail (id, note) VALUES (1, $1) ON CONFLICT (id) DO UPDATE SET note = excluded.note`

	insertCheckpoint store.KeeperSQL = `INSERT INTO ledger_checkpoint (size, time, note) VALUES ($1, $2, $3)`
	newestCheckpoint store.KeeperSQL = `SELECT note FROM ledger_checkpoint ORDER BY size DESC LIMIT 1`
	checkpointOf     store.KeeperSQL = `SELECT note FROM ledger_checkpoint WHERE size = $1`
	checkpointsFrom  store.KeeperSQL = `SELECT size, note FROM ledger_checkpoint WHERE size > $1 AND size <= $2 ORDER BY size LIMIT $3`

	insertCosignature store.KeeperSQL = `INSERT INTO ledger_cosignature (size, witness, line) VALUES ($1, $2, $3)
		ON CONFLICT (size, witness) DO NOTHING`
	selectCosignatures store.KeeperSQL = `SELECT line FROM ledger_cosignature WHERE size = $1 ORDER BY witness`
	newestCosignature  store.KeeperSQL = `SELECT COALESCE(MAX(size), 0) FROM ledger_cosignature WHERE witness = $1`

	// Search, in one block of the log: by the block's index of tenants or of
	// traces, or through all of it. Filters that are empty match everything.
	searchTenant store.KeeperSQL = `SELECT idx, hash, payload FROM ledger_entry
		WHERE idx / 16384 = $11 AND tenant = $1 AND tenant <> '' AND idx >= $2 AND idx < $3
		AND ($4 = '' OR actor = $4) AND ($5 = '' OR act = $5) AND ($6 = '' OR connection = $6) AND ($7 = '' OR trace = $7)
		AND time >= $8 AND time < $9 ORDER BY idx LIMIT $10`
	searchTrace store.KeeperSQL = `SELECT idx, hash, payload FROM ledger_entry
		WHERE idx / 16384 = $11 AND ($1 = '' OR tenant = $1) AND idx >= $2 AND idx < $3
		AND ($4 = '' OR actor = $4) AND ($5 = '' OR act = $5) AND ($6 = '' OR connection = $6) AND trace = $7 AND trace <> ''
		AND time >= $8 AND time < $9 ORDER BY idx LIMIT $10`
	searchAll store.KeeperSQL = `SELECT idx, hash, payload FROM ledger_entry
		WHERE idx / 16384 = $11 AND ($1 = '' OR tenant = $1) AND idx >= $2 AND idx < $3
		AND ($4 = '' OR actor = $4) AND ($5 = '' OR act = $5) AND ($6 = '' OR connection = $6) AND ($7 = '' OR trace = $7)
		AND time >= $8 AND time < $9 ORDER BY idx LIMIT $10`

	oldEntries  store.KeeperSQL = `SELECT idx, time FROM ledger_entry WHERE idx >= $1 ORDER BY idx LIMIT $2`
	endPayloads store.KeeperSQL = `UPDATE ledger_entry SET payload = NULL, time = 0, actor = '', act = '', tenant = '', connection = '', trace = ''
		WHERE idx >= $1 AND idx < $2`
)
