package api

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/sallyport-mail/sallyport/internal/directory"
	"github.com/sallyport-mail/sallyport/internal/fault"
	"github.com/sallyport-mail/sallyport/internal/mail"
)

// importLimit is the body of an import, some 500,000 addresses.
const importLimit = 32 << 20

type newAddress struct {
	OfTenant
	Body struct {
		Address  string `json:"address" required:"true"`
		IfAbsent bool   `json:"if_absent" doc:"One that is listed already is no conflict"`
	}
}

type manyAddresses struct {
	OfTenant
	Body struct {
		Addresses []string `json:"addresses" required:"true" nullable:"false"`
	}
}

// Imported says how many addresses of an import were new.
type Imported struct {
	Added int `json:"added"`
}

func recipients(r *router) {
	const base = "/v1/tenants/{tenant}/directory"
	on(r, http.MethodGet, base, "List the addresses of a tenant", r.listAddresses)
	on(r, http.MethodPost, base, "Add an address", r.addAddress, creates)
	on(r, http.MethodPost, base+"/import", "Add many addresses", r.importAddresses, upTo(importLimit, 2), within(10*time.Minute))
	on(r, http.MethodDelete, base+"/{address}", "Remove an address", r.removeAddress)
}

func (s *server) listAddresses(ctx context.Context, in *struct {
	OfTenant
	Paging
}) (*out[Page[directory.Entry]], error) {
	name, err := scope(ctx, in.Tenant)
	if err != nil {
		return nil, err
	}
	page, err := s.Directory.List(ctx, name, in.After, in.Limit+1)
	if err != nil || len(page) <= in.Limit {
		return paged(page, ""), err
	}
	page = page[:in.Limit]
	return paged(page, page[in.Limit-1].Address), nil
}

func (s *server) addAddress(ctx context.Context, in *newAddress) (*made[directory.Entry], error) {
	name, err := scope(ctx, in.Tenant)
	if err != nil {
		return nil, err
	}
	a, err := mail.ParseAddress(in.Body.Address)
	if err != nil {
		return nil, err
	}
	e, err := s.Directory.Add(ctx, actor(ctx), name, a)
	if err == nil {
		return &made[directory.Entry]{http.StatusCreated, e}, nil
	}
	if in.Body.IfAbsent && fault.Is(err, fault.Conflict) {
		if have, ok := s.listed(ctx, name, a); ok {
			return &made[directory.Entry]{http.StatusOK, have}, nil
		}
	}
	return nil, err
}

// listed finds a tenant's address in its listing, which is in order of key.
func (s *server) listed(ctx context.Context, tenant string, a mail.Address) (directory.Entry, bool) {
	key := a.Key()
	// The page after the key's predecessor begins with the key itself.
	page, err := s.Directory.List(ctx, tenant, key[:len(key)-1], 1000)
	if err != nil {
		return directory.Entry{}, false
	}
	for _, e := range page {
		if b, err := mail.ParseAddress(e.Address); err == nil && b.Key() == key {
			return e, true
		}
	}
	return directory.Entry{}, false
}

func (s *server) importAddresses(ctx context.Context, in *manyAddresses) (*out[Imported], error) {
	name, err := scope(ctx, in.Tenant)
	if err != nil {
		return nil, err
	}
	list, err := addresses(in.Body.Addresses)
	if err != nil {
		return nil, err
	}
	n, err := s.Directory.Import(ctx, actor(ctx), name, list)
	return reply(Imported{n}), err
}

// addresses reads all or none, and names the first that are wrong.
func addresses(texts []string) ([]mail.Address, error) {
	const most = 20
	list := make([]mail.Address, 0, len(texts))
	var wrong flaws
	for i, t := range texts {
		a, err := mail.ParseAddress(t)
		if err != nil && len(wrong) < most {
			wrong = append(wrong, ProblemError{fmt.Sprintf("body.addresses[%d]", i), fault.Sentence(err)})
		}
		list = append(list, a)
	}
	if wrong != nil {
		return nil, wrong
	}
	return list, nil
}

func (s *server) removeAddress(ctx context.Context, in *struct {
	OfTenant
	Address string `path:"address"`
}) (*out[Removed], error) {
	name, err := scope(ctx, in.Tenant)
	if err != nil {
		return nil, err
	}
	a, err := mail.ParseAddress(in.Address)
	if err != nil {
		return nil, err
	}
	if err := s.Directory.Remove(ctx, actor(ctx), name, a); err != nil {
		return nil, err
	}
	return reply(Removed{in.Address, true}), nil
}
