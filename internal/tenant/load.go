package tenant

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/store"
)

const loadReason = "load the registry at start"

// load reads every table once.
func (r *Registry) load(ctx context.Context) error {
	for _, step := range []func(context.Context) error{
		r.loadTenants, r.loadDomains, r.loadTokens, r.loadSubmitters, r.loadLists,
	} {
		if err := step(ctx); err != nil {
			return wrap("tenant.New", err)
		}
	}
	return nil
}

// pages calls scan for every row of a statement that takes a key and a limit;
// scan returns the row's key.
func (r *Registry) pages(ctx context.Context, q store.OperatorSQL, scan func(*sql.Rows) (string, error)) error {
	door := r.c.DB.Operator(loadReason)
	for after, n := "", loadPage; n == loadPage; {
		rows, err := door.Query(ctx, q, after, loadPage)
		if err != nil {
			return err
		}
		n = 0
		for rows.Next() {
			if after, err = scan(rows); err != nil {
				rows.Close()
				return store.Fault("", err)
			}
			n++
		}
		rows.Close()
		if err := rows.Err(); err != nil {
			return store.Fault("", err)
		}
	}
	return nil
}

func (r *Registry) loadTenants(ctx context.Context) error {
	err := r.pages(ctx, selectTenants, func(rows *sql.Rows) (string, error) {
		var h holding
		var settings string
		var created int64
		if err := rows.Scan(&h.Name, &h.Region, &settings, &created); err != nil {
			return "", err
		}
		h.CreatedAt = time.UnixMicro(created).UTC()
		if err := h.restore(settings); err != nil {
			return "", fmt.Errorf("settings of tenant %s: %w", h.Name, err)
		}
		r.tenants[h.Name] = &h
		r.names = append(r.names, h.Name)
		return h.Name, nil
	})
	// The database's collation need not be ours.
	slices.Sort(r.names)
	return err
}

// restore fills in a tenant's settings as they were stored.
func (h *holding) restore(text string) error {
	s, err := decodeSettings(text)
	if err != nil {
		return err
	}
	h.Settings, h.senders, err = s.check("tenant.New")
	return err
}

func (r *Registry) loadDomains(ctx context.Context) error {
	err := r.pages(ctx, selectDomains, func(rows *sql.Rows) (string, error) {
		var d Domain
		var plus, created int64
		if err := rows.Scan(&d.Name, &d.Tenant, &d.Recipients, &plus, &created); err != nil {
			return "", err
		}
		d.PlusTags, d.CreatedAt = plus != 0, time.UnixMicro(created).UTC()
		h := r.tenants[d.Tenant]
		if h == nil {
			return "", fmt.Errorf("domain %s is of tenant %s, which does not exist", d.Name, d.Tenant)
		}
		d.Tenant = h.Name // one copy of the name
		h.domains = append(h.domains, d.Name)
		r.domains[d.Name] = d
		return d.Name, nil
	})
	for _, h := range r.tenants {
		slices.Sort(h.domains)
	}
	return err
}

func (r *Registry) loadTokens(ctx context.Context) error {
	return r.pages(ctx, selectTokens, func(rows *sql.Rows) (string, error) {
		t := &token{}
		var sum string
		var created int64
		var expires, revoked, used sql.NullInt64
		if err := rows.Scan(&t.ID, &t.Tenant, &t.Role, &sum, &created, &expires, &revoked, &used); err != nil {
			return "", err
		}
		if err := t.setSum(sum); err != nil {
			return "", err
		}
		t.CreatedAt = time.UnixMicro(created).UTC()
		t.ExpiresAt, t.RevokedAt = moment(expires), moment(revoked)
		t.used.Store(used.Int64)
		r.tokens[t.ID] = t
		return t.ID, nil
	})
}

func (r *Registry) loadSubmitters(ctx context.Context) error {
	return r.pages(ctx, selectSubmitters, func(rows *sql.Rows) (string, error) {
		s := &submitter{}
		var set int64
		var used sql.NullInt64
		if err := rows.Scan(&s.user, &s.tenant, &s.hash, &s.state, &set, &used); err != nil {
			return "", err
		}
		s.setAt = time.UnixMicro(set).UTC()
		s.used.Store(used.Int64)
		r.users[s.user] = s
		return s.user, nil
	})
}

func (r *Registry) loadLists(ctx context.Context) error {
	var text string
	err := r.c.DB.Operator(loadReason).QueryRow(ctx, selectSetting, settingLists).Scan(&text)
	if errors.Is(err, sql.ErrNoRows) {
		text, err = "{}", nil
	}
	if err != nil {
		return store.Fault("", err)
	}
	if err := json.Unmarshal([]byte(text), &r.lists); err != nil {
		return fault.Wrap(fault.Internal, "", fmt.Errorf("operator's sender lists: %w", err))
	}
	r.operator, err = compileLists("tenant.New", r.lists)
	return err
}

// moment is a nullable column of microseconds.
func moment(n sql.NullInt64) *time.Time {
	if !n.Valid {
		return nil
	}
	t := time.UnixMicro(n.Int64).UTC()
	return &t
}
