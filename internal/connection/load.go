package connection

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/sallyport-mail/sallyport/internal/store"
)

// load reads every connection, by pages.
func (r *Registry) load(ctx context.Context) error {
	byTenant := make(map[string][]*entry)
	door := r.c.DB.Operator("load connections at start")
	tenant, name := "", ""
	for n := loadPage; n == loadPage; {
		rows, err := door.Query(ctx, selectConnections, tenant, name, loadPage)
		if err != nil {
			return err
		}
		n = 0
		for rows.Next() {
			e, err := r.scan(rows)
			if err != nil {
				rows.Close()
				return store.Fault("", err)
			}
			byTenant[e.Tenant] = append(byTenant[e.Tenant], e)
			r.enterClaims(e)
			tenant, name = e.Tenant, e.Name
			n++
		}
		rows.Close()
		if err := rows.Err(); err != nil {
			return store.Fault("", err)
		}
	}
	for tenant, all := range byTenant {
		r.tenants[tenant] = newRouting(all)
	}
	return nil
}

func (r *Registry) scan(rows *sql.Rows) (*entry, error) {
	var tenant, name, state, spec, health string
	var created int64
	if err := rows.Scan(&tenant, &name, &state, &spec, &health, &created); err != nil {
		return nil, err
	}
	var c stored
	if err := json.Unmarshal([]byte(spec), &c); err != nil {
		return nil, fmt.Errorf("connection %s of %s: %w", name, tenant, err)
	}
	c.Tenant, c.Name, c.State, c.CreatedAt = tenant, name, state, time.UnixMicro(created).UTC()
	e, err := check("connection.New", c.Connection)
	if err != nil {
		return nil, fmt.Errorf("connection %s of %s: %w", name, tenant, err)
	}
	e.health = new(atomic.Pointer[Health])
	if c.Found != "" {
		e.found.Store(&c.Found)
	}
	if health != "" {
		var h Health
		if err := json.Unmarshal([]byte(health), &h); err != nil {
			return nil, fmt.Errorf("health of connection %s of %s: %w", name, tenant, err)
		}
		e.health.Store(&h)
	}
	return e, nil
}
