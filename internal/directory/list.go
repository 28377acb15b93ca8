package directory

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/mail"
	"github.com/sallyport-mail/sallyport/internal/store"
	"github.com/sallyport-mail/sallyport/internal/tenant"
)

const (
	// listFresh is how long an answer from the list is remembered: a change of
	// this process is seen at once, one of another within that time.
	listFresh = time.Minute
	// batch is how many addresses an import adds in one commit.
	batch = 500
	// maxPage bounds List.
	maxPage = 10_000
)

// Entry is one listed address.
type Entry struct {
	Address   string    `json:"address"`
	Tenant    string    `json:"tenant"`
	CreatedAt time.Time `json:"created_at"`
}

func wrap(op string, err error) error { return fault.Wrap(fault.KindOf(err), op, err) }

// checkList answers from memory, or else from the table. Millions of addresses
// stay on disk; what is asked for often is in memory.
func (x *Directory) checkList(ctx context.Context, d tenant.Domain, a mail.Address) (Answer, string) {
	n := name{d.Tenant, a.Key()}
	now := x.c.Now()
	f, ok, mark := x.listed.get(n)
	if ok && now.Sub(f.at) < listFresh {
		return f.answer, ""
	}
	f = fact{answer: Known, at: now}
	var one int
	err := x.c.DB.For(n.tenant).Get(ctx, selectRecipient, n.key).Scan(&one)
	if errors.Is(err, sql.ErrNoRows) {
		f.answer, err = Unknown, nil
	}
	if err != nil {
		x.c.Log.Error("the list of recipients cannot be read", "tenant", d.Tenant, "error", err)
		return Later, "the list of recipients cannot be read"
	}
	x.listed.putRead(n, f, mark)
	return f.answer, ""
}

// checkOwner refuses an address that is in no domain of the tenant.
func (x *Directory) checkOwner(op, tenantName string, a mail.Address) error {
	d, ok := x.c.Tenants.Domain(a.Domain)
	if !ok || d.Tenant != tenantName {
		return fault.New(fault.Invalid, op, fmt.Sprintf("%s is in no domain of tenant %s", a, tenantName)).
			WithHint("Add the domain first.")
	}
	return nil
}

func (x *Directory) event(a tenant.Actor, act, tenantName, subject string) store.Event {
	return store.Event{Time: x.now(), Actor: string(a), Act: act, Tenant: tenantName, Subject: subject, Outcome: "done"}
}

// now is the time as the database keeps it.
func (x *Directory) now() time.Time { return x.c.Now().UTC().Truncate(time.Microsecond) }

// Add lists an address; kind conflict when it is listed.
func (x *Directory) Add(ctx context.Context, a tenant.Actor, tenant string, addr mail.Address) (Entry, error) {
	const op = "directory.Add"
	if err := x.checkOwner(op, tenant, addr); err != nil {
		return Entry{}, err
	}
	at := x.now()
	err := x.c.DB.For(tenant).Change(ctx, func(tx store.TenantTx) error {
		n, err := tx.Exec(insertRecipient, addr.Key(), addr.Domain, addr.String(), at.UnixMicro())
		if err != nil {
			return err
		}
		if n == 0 {
			return fault.New(fault.Conflict, "", addr.String()+" is listed already").WithHint("With --if-absent that is no error.")
		}
		return tx.Audit(x.event(a, "directory.add", tenant, addr.String()))
	})
	if err != nil {
		return Entry{}, wrap(op, err)
	}
	x.listed.forget(name{tenant, addr.Key()})
	return Entry{Address: addr.String(), Tenant: tenant, CreatedAt: at}, nil
}

// Import replaces nothing: it adds every address, in batches, and says how
// many were new. What was added before an error stays.
func (x *Directory) Import(ctx context.Context, a tenant.Actor, tenant string, addrs []mail.Address) (added int, err error) {
	const op = "directory.Import"
	for _, addr := range addrs {
		if err := x.checkOwner(op, tenant, addr); err != nil {
			return 0, err
		}
	}
	for len(addrs) > 0 {
		part := addrs[:min(len(addrs), batch)]
		addrs = addrs[len(part):]
		n, err := x.importBatch(ctx, a, tenant, part)
		if err != nil {
			return added, wrap(op, err)
		}
		added += n
	}
	return added, nil
}

func (x *Directory) importBatch(ctx context.Context, a tenant.Actor, tenant string, addrs []mail.Address) (added int, err error) {
	at := x.now()
	err = x.c.DB.For(tenant).Change(ctx, func(tx store.TenantTx) error {
		added = 0
		for _, addr := range addrs {
			n, err := tx.Exec(insertRecipient, addr.Key(), addr.Domain, addr.String(), at.UnixMicro())
			if err != nil {
				return err
			}
			added += int(n)
		}
		if added == 0 {
			return nil
		}
		return tx.Audit(x.event(a, "directory.import", tenant, fmt.Sprintf("%d addresses", added)))
	})
	if err != nil {
		return 0, err
	}
	for _, addr := range addrs {
		x.listed.forget(name{tenant, addr.Key()})
	}
	return added, nil
}

// Remove takes an address off the list.
func (x *Directory) Remove(ctx context.Context, a tenant.Actor, tenant string, addr mail.Address) error {
	const op = "directory.Remove"
	err := x.c.DB.For(tenant).Change(ctx, func(tx store.TenantTx) error {
		n, err := tx.Exec(deleteRecipient, addr.Key())
		if err != nil {
			return err
		}
		if n == 0 {
			return fault.New(fault.Missing, "", addr.String()+" is not listed for tenant "+tenant).
				WithHint("List the tenant's recipients to see what there is.")
		}
		return tx.Audit(x.event(a, "directory.remove", tenant, addr.String()))
	})
	if err != nil {
		return wrap(op, err)
	}
	x.listed.forget(name{tenant, addr.Key()})
	return nil
}

// List is a page of a tenant's addresses in the order of their keys, after the
// address given.
func (x *Directory) List(ctx context.Context, tenant, after string, limit int) ([]Entry, error) {
	const op = "directory.List"
	if a, err := mail.ParseAddress(after); err == nil {
		after = a.Key()
	}
	rows, err := x.c.DB.For(tenant).Query(ctx, listRecipients, after, min(max(limit, 0), maxPage))
	if err != nil {
		return nil, wrap(op, err)
	}
	defer rows.Close()
	list := []Entry{}
	for rows.Next() {
		e := Entry{Tenant: tenant}
		var key string
		var created int64
		if err := rows.Scan(&key, &e.Address, &created); err != nil {
			return nil, store.Fault(op, err)
		}
		e.CreatedAt = time.UnixMicro(created).UTC()
		list = append(list, e)
	}
	return list, store.Fault(op, rows.Err())
}
