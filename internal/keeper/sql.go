package keeper

import "github.com/sallyport-mail/sallyport/internal/store"

const (
	selectDataKey store.KeeperSQL = `SELECT kek, blob FROM keeper_datakey WHERE tenant = $1`
	insertDataKey store.KeeperSQL = `INSERT INTO keeper_datakey (tenant, kek, blob) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING`

	selectState  store.KeeperSQL = `SELECT value FROM keeper_state WHERE name = $1`
	selectStates store.KeeperSQL = `SELECT name, value FROM keeper_state ORDER BY name`
	upsertState  store.KeeperSQL = `
		INSERT INTO keeper_state (name, value) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = excluded.value`
)
